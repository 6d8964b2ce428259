"""`trainkit runs [FOLDER] [FILTER…]`: the run folders below a folder, as a table or as JSON. No torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainkit.config.flags import FlagParser
from trainkit.console.columns import cut, emit, lines_of, terminal_width, total_width
from trainkit.errors import ConfigError
from trainkit.run_folders import query
from trainkit.run_folders.records import Record, find, short_id
from trainkit.tasks.base import LOSS
from trainkit.tasks.metrics import headline
from trainkit.text import say, visible

HELP = """\
usage: trainkit runs [FOLDER] [FILTER …] [--sort KEY] [--columns KEY,…] [--json]

The runs in and below FOLDER (default: outputs), oldest first; a run that came from another stands below it.
A FILTER is KEY=VALUE or one of != > < >= <= (in quotes: the shell reads > and <); all of them must hold.
A KEY is a metric (val/accuracy), a config key (model, optim.lr, seed), or a fact: run path verb state label started
ended seconds exit_code error monitor objective best_epoch epoch step resumed overrides. States: running, completed,
failed, interrupted, and killed: no process holds the folder, but nothing says how the run ended.

  --sort KEY       smallest first; --sort -KEY largest first; several with commas
  --columns KEY,…  these columns only
  --json           everything as JSON

examples:
  trainkit runs
  trainkit runs model=cnn 'val/accuracy>0.9' --sort -val/accuracy
  trainkit runs outputs/sweeps --columns run,optim.lr,seed,test/accuracy
  trainkit runs state=killed --columns run,path"""

NARROW = 24  # of the last column, `overrides`, at least so much is shown


def runs(argv: Sequence[str]) -> int:
    """Print the runs. Raises ConfigError for a folder that is missing and for keys that no run has."""
    parser = FlagParser("runs")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--sort", default="")
    parser.add_argument("--columns", default="")
    parser.add_argument("--json", action="store_true")
    flags = parser.read(_join_sort(argv))
    folder, filters = _folder_and_filters(flags.words)
    found, skipped = find(folder)
    sort, columns = _keys(flags.sort, "--sort"), _keys(flags.columns, "--columns")
    query.refuse_unknown([*(f.key for f in filters), *(key.removeprefix("-") for key in sort), *columns], found)
    chosen = [record for record in found if all(f.matches(record) for f in filters)]
    placed = [(0, record) for record in query.ordered(chosen, sort)] if sort else query.tree(chosen)
    if flags.json:
        emit(json_lines(placed, skipped))
        return 0
    if placed:
        emit(table(placed, columns, terminal_width()))
    note(len(found), len(chosen), len(skipped), folder)
    return 0


def _join_sort(argv: Sequence[str]) -> list[str]:
    # argparse takes the `-val/accuracy` of `--sort -val/accuracy` for a flag
    words = list(argv)
    while "--sort" in words[:-1]:
        at = words.index("--sort")
        words[at : at + 2] = [f"--sort={words[at + 1]}"]
    return words


def _keys(text: str, flag: str) -> list[str]:
    keys = text.split(",") if text else []
    if not all(key.removeprefix("-") for key in keys):
        raise ConfigError(f"runs: {flag} {text}: a key is missing between the commas")
    return keys


def _folder_and_filters(words: Sequence[str]) -> tuple[Path, list[query.Filter]]:
    folders: list[Path] = []
    filters: list[query.Filter] = []
    for word in words:
        path = Path(word).expanduser()
        parsed = None if path.is_dir() else query.parse_filter(word)
        if parsed is None:
            folders.append(path)
        else:
            filters.append(parsed)
    if len(folders) > 1:
        raise ConfigError(f"runs: one folder at a time: '{folders[0]}' or '{folders[1]}'; a filter is KEY=VALUE")
    return (folders or [Path("outputs")])[0], filters


def note(found: int, chosen: int, skipped: int, folder: Path) -> None:
    """Say on stderr what the table does not."""
    if not chosen:
        say(f"no run in {folder}" if not found else f"none of {found} runs in {folder} matches", stream=sys.stderr)
    if skipped:
        folders = "1 folder" if skipped == 1 else f"{skipped} folders"
        say(f"note: {folders} skipped, without a run or damaged (--json names them)", stream=sys.stderr)


def json_lines(placed: Sequence[tuple[int, Record]], skipped: Sequence[Path]) -> Iterator[str]:
    """The runs as one JSON object, a run a line: thousands are never in memory at once."""
    yield '{"runs": ['
    for number, (_, record) in enumerate(placed, start=1):
        yield json.dumps(as_json(record), default=str) + ("," if number < len(placed) else "")
    yield f'], "skipped": {json.dumps(list(map(str, skipped)))}}}'


def as_json(record: Record) -> dict[str, Any]:
    """All that is known of a run, as JSON data."""
    relation, origin = record.origin or (None, None)
    came = {"relation": relation, "origin": None if origin is None else str(origin)}
    lists = {name: record.status.get(name) or [] for name in ("overrides", "resumed")}
    return {**record.facts, **lists, **came, "metrics": record.metrics, "config": record.config}


def table(placed: Sequence[tuple[int, Record]], columns: Sequence[str], width: int) -> list[str]:
    """The lines of the table: a header, and a row a run at its depth in the tree.

    columns: the user's choice, all of which stay; without one, those that fit into the width.
    """
    records = [record for _, record in placed]
    cells = {key: _column(key, placed) for key in columns or default_columns(records)}
    if not columns:
        cells["run"] = [cut(cell, max(16, width // 2)) for cell in cells["run"]]  # a folder that the user has named
        for key in _least_first(list(cells)):
            last = list(cells)[-1]
            spare = max(0, max(map(len, cells[last])) - NARROW) if last == "overrides" else 0
            if total_width(list(cells.values())) - spare <= width:
                break
            del cells[key]
    left = [key in ("run", "from") or not _numeric(record.value(key) for record in records) for key in cells]
    return lines_of(list(zip(*cells.values(), strict=True)), left, width)


def default_columns(records: Sequence[Record]) -> list[str]:
    """What is shown without `--columns`: each monitored metric, the same on test, and the rest where there is any."""
    monitors = [str(r.value("monitor")) for r in records if r.value("monitor") and r.verb != "eval"]
    measured = sorted(set(monitors), key=lambda name: (-monitors.count(name), name))
    measured += [f"test/{name.partition('/')[2]}" for name in measured]
    if not monitors:  # nothing but evaluations, or nothing that has ended
        names = dict.fromkeys([*(headline(record.measured) for record in records), LOSS.name])
        measured = [f"{split}/{name}" for split in ("val", "test", "train") for name in names]
    kept = [name for name in dict.fromkeys(measured) if any(name in record.metrics for record in records)]
    resumed = ["resumed"] if any(record.value("resumed") for record in records) else []
    origin = ["from"] if any(record.origin for record in records) else []
    return ["run", "started", "state", "label", *kept, "seconds", *resumed, *origin, "overrides"]


def _least_first(columns: list[str]) -> list[str]:
    """Columns in the order in which they give way on a narrow terminal; the first one never does."""
    measured = [key for key in columns if "/" in key]
    order = ["seconds", "started", *reversed(measured[1:]), "from", "overrides", "resumed", "label"]
    return [key for key in [*order, *measured[:1], "state"] if key in columns]


def _column(key: str, placed: Sequence[tuple[int, Record]]) -> list[str]:
    if key == "run":
        trees = ["  " * (depth - 1) + "└ " if depth else "" for depth, _ in placed]
        return ["run", *(tree + visible(record.id) for tree, (_, record) in zip(trees, placed, strict=True))]
    return [key, *(_cell(key, record) for _, record in placed)]


def _cell(key: str, record: Record) -> str:
    if key == "from":
        relation, origin = record.origin or ("", Path())
        return f"{relation} {short_id(origin)}" if relation else ""
    value = record.value(key)
    if key == "state" and record.status.get("exit_code"):
        return f"{value} ({record.status['exit_code']})"
    if key in ("started", "ended") and isinstance(value, str):
        return value[:16].replace("T", " ")
    if key == "seconds" and query.is_number(value):
        return f"{value:,.1f}"
    if isinstance(value, float) and (key in record.metrics or key == "objective"):
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"
    return shown(value)


def shown(value: Any) -> str:
    """A value as one would type it on a command line; a missing one is nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str).replace(" ", "")


def _numeric(values: Iterable[Any]) -> bool:
    return all(value is None or query.is_number(value) for value in values)
