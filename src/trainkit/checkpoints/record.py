"""The record of a run's checkpoints: which file is the last, which the best, and what came before. No torch.

    checkpoints/record.json                      the record; replacing it is the only moment a save takes effect
    checkpoints/epoch0003-step00001200.safetensors
    checkpoints/last.safetensors, best.safetensors   links for people, renewed after the record

A save writes the new file, then the record, then the links, and only then deletes what the record no longer names. So a
process that is killed at any instant leaves a record whose files are all there and whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from trainkit import storage
from trainkit.checkpoints.tensorfile import Content

NAME = "record.json"
FORMAT = 1
_LOG = re.compile(r"[a-z]+\.(jsonl|csv)")
_FILE = re.compile(r"epoch(\d{4,})-step(\d{8,})\.safetensors")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A checkpoint file: its size in bytes, the SHA-256 of its bytes, what it was saved after.

    logs: bytes of each log that belong to it; what is beyond them was written later.
    """

    file: str
    size: int
    sha256: str
    epoch: int
    step: int
    logs: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Record:
    """previous: newest first. best: None until an epoch was judged."""

    last: Entry
    previous: tuple[Entry, ...] = ()
    best: Entry | None = None

    @property
    def kept(self) -> list[Entry]:
        """The last checkpoint and those before it, newest first."""
        return [self.last, *self.previous]


def file_name(epoch: int, step: int) -> str:
    """The name of the checkpoint after so many epochs and steps."""
    return f"epoch{epoch:04d}-step{step:08d}.safetensors"


def read(folder: Path) -> Record | None:
    """The record of a folder of checkpoints; None when there is none, or none that can be read."""
    try:
        content = json.loads(storage.read_regular(folder / NAME))
        if content["format"] > FORMAT:
            return None
        best = content["best"]
        previous = tuple(_entry(entry) for entry in content["previous"])
        return Record(_entry(content["last"]), previous, None if best is None else _entry(best))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _entry(values: dict[str, Any]) -> Entry:
    entry = Entry(**values)
    if not _FILE.fullmatch(entry.file) or not all(map(_LOG.fullmatch, entry.logs)):  # never a path out of the folder
        raise ValueError(entry.file)
    numbers = (entry.size, entry.epoch, entry.step, *entry.logs.values())
    if any(not isinstance(number, int) or number < 0 for number in numbers):
        raise ValueError("a number of bytes, epochs or steps")
    return entry


def commit(
    folder: Path, content: Content, *, epoch: int, step: int, logs: dict[str, int], is_best: bool, keep: int
) -> Record:
    """Save a checkpoint and make it the last one, and the best one if `is_best`; `keep` of the last stay.

    The content is written as it comes, piece by piece. Raises ResourceError; the record and all files that it names
    then are as before.
    """
    old = read(folder)
    name = file_name(epoch, step)
    digest = hashlib.sha256()
    with storage.replacing(folder / name, content.size) as file:
        for piece in content:
            digest.update(piece)
            file.write(piece)
    entry = Entry(name, content.size, digest.hexdigest(), epoch, step, logs)
    before = [kept for kept in old.kept if kept.file != name] if old else []
    best = entry if is_best else old.best if old else None
    record = Record(entry, tuple(before[: keep - 1]), best)
    write(folder, record)
    return record


def write(folder: Path, record: Record) -> None:
    """Make `record` the one that counts, and the folder what it says."""
    storage.replace_json(folder / NAME, {"format": FORMAT, **dataclasses.asdict(record)})
    settle(folder, record)


def settle(folder: Path, record: Record) -> None:
    """Point the links at the record's files, and delete those it does not name."""
    storage.point(folder / "last.safetensors", record.last.file)
    if record.best is not None:
        storage.point(folder / "best.safetensors", record.best.file)
    named = {entry.file for entry in record.kept} | {record.best.file if record.best else ""}
    for path in folder.iterdir():
        if _FILE.fullmatch(path.name) and path.name not in named:
            storage.remove(path)


def candidates(folder: Path) -> list[Path]:
    """The checkpoint files to try, newest first: those of the record, or without one all that are there."""
    record = read(folder)
    return scan(folder) if record is None else [folder / entry.file for entry in record.kept]


def scan(folder: Path) -> list[Path]:
    """All checkpoint files that are there, newest first, whatever the record says."""
    found = [(match, path) for path in folder.glob("*.safetensors") if (match := _FILE.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: [int(n) for n in pair[0].groups()], reverse=True)]
