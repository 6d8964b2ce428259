"""The runs that a person names: by folder, or by the beginning of a name or id below outputs/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainkit.errors import ConfigError, nearest
from trainkit.run_folders.records import STAMPED, Record, find, short_id


def select(words: Sequence[str], root: Path) -> list[Record]:
    """The runs that the words name, in that order, each once. A word names a folder with a run or with runs (a sweep),
    or is the unique beginning of the name or id of a run or a sweep below `root`.

    Raises ConfigError for words that name nothing, or more than one thing.
    """
    chosen: dict[Path, Record] = {}
    known: dict[Path, list[Record]] | None = None
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            records, _ = find(path)
            if not records:
                raise ConfigError(f"'{word}' holds no run that can be read")
        else:
            if known is None:
                known = entities(find(root)[0]) if root.is_dir() else {}
            records = named(word, known, root)
        chosen |= {record.path: record for record in records if record.path not in chosen}
    return list(chosen.values())


def entities(records: Sequence[Record]) -> dict[Path, list[Record]]:
    """What can be named: each run by its folder, and each sweep by its own."""
    found: dict[Path, list[Record]] = {}
    for record in records:
        found.setdefault(record.path, []).append(record)
        if "/" in short_id(record.path):
            found.setdefault(record.path.parent, []).append(record)
    return found


def names(path: Path, records: Sequence[Record]) -> list[str]:
    """What a run or a sweep may be called: its id and the name of its folder."""
    record = records[0]
    if path == record.path:
        job = "/" in short_id(path)
        return [record.id, f"{path.parent.name}/{path.name}" if job else path.name]
    stamped = STAMPED.fullmatch(path.name)
    return [path.name, *([stamped["uid"]] if stamped else [])]


def named(word: str, known: dict[Path, list[Record]], root: Path) -> list[Record]:
    """The runs of the one run or sweep that a word names."""
    called = {path: names(path, records) for path, records in known.items()}
    found = [path for path in called if word in called[path]]
    found = found or [path for path in called if any(name.startswith(word) for name in called[path])]
    found = [path for path in found if path.parent not in found]  # the jobs of a sweep are meant by its name
    if len(found) == 1:
        return known[found[0]]
    if not found:
        close = nearest(word, [name for some in called.values() for name in some])
        hint = f" (did you mean {close}?)" if close else ""
        raise ConfigError(f"'{word}' is no folder, and names no run below {root}{hint}; see trainkit runs")
    some = ", ".join(called[path][0] for path in found[:5]) + (", …" if len(found) > 5 else "")
    raise ConfigError(f"'{word}' may be any of {len(found)} runs: {some}; type more of it")
