"""The end of a sweep: sweep.csv and a table, sorted by the monitored metric; a failed job is a row too."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import storage
from trainkit.run_folders import out_of_fold, rundir
from trainkit.run_folders.groups import only_repeated
from trainkit.statistics import estimate
from trainkit.text import cell, say, say_json, visible

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]


def summarize(folder: Path, *, as_json: bool) -> bool:
    """Show the table of a sweep and write sweep.csv; returns whether it had jobs and all of them completed."""
    rows = read_rows(folder)
    if rows:
        show(rows, folder, as_json=as_json)
        write_csv(folder / "sweep.csv", rows)
        told = out_of_fold.gather(folder, [Path(row["run"]) for row in sorted(rows, key=lambda row: row["job"])])
        if told is not None:
            say(f"{rundir.shown(folder / out_of_fold.FILE)}: {told}", stream=sys.stderr if as_json else None)
    return bool(rows) and all(row["state"] == "completed" for row in rows)


def read_rows(folder: Path) -> list[Row]:
    """One row a job, best first, failed ones last; `lost` are those that could not even write how they ended."""
    rows: list[Row] = []
    for path in folder.iterdir():
        if not path.name.isdigit():
            continue
        status = rundir.read_status(path) or {"state": "lost"}
        if rundir.is_killed(path, status):  # or it could not write any more that it failed
            status["state"] = "killed"
        result = status.get("result") or {}
        row: Row = {"job": int(path.name), **_parameters(status.get("overrides", [])), "state": status["state"]}
        row["objective"] = result.get("objective")
        for split, metrics in result.get("metrics", {}).items():
            row |= {f"{split}/{name}": value for name, value in metrics.items()}
        row |= {key: status.get(key) for key in ("seconds", "exit_code", "error")} | {"run": str(path)}
        row["_mode"] = result.get("mode", "min")
        row["_monitor"] = result.get("monitor")
        rows.append(row)
    return sorted(rows, key=_rank)


def _rank(row: Row) -> tuple[bool, float, int]:
    value = row["objective"]
    if value is None:
        return (True, 0.0, row["job"])
    return (False, value if row["_mode"] == "min" else -value, row["job"])


def _parameters(overrides: list[str]) -> Row:
    pairs = [text.partition("=") for text in overrides]
    return {key.lstrip("+"): value for key, _, value in pairs}


def _columns(rows: list[Row]) -> list[str]:
    # in order of first appearance, with what every row has at the end
    last = ["seconds", "exit_code", "error", "run"]
    seen = dict.fromkeys(name for row in rows for name in row if not name.startswith("_"))
    return [name for name in seen if name not in last] + last


def write_csv(path: Path, rows: list[Row]) -> None:
    """All rows with all columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)
    storage.replace(path, text.getvalue().encode())


def show(rows: list[Row], folder: Path, *, as_json: bool) -> None:
    """The table: what was varied, the monitored metric, the test metric, time and state."""
    from rich.console import Console
    from rich.text import Text

    if as_json:
        say_json([{k: v for k, v in row.items() if not k.startswith("_")} for row in rows])
    monitor = next((row["_monitor"] for row in rows if row["_monitor"]), None)
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    failed = sum(row["state"] != "completed" for row in rows)
    jobs = f"{len(rows)} job{'s' if len(rows) > 1 else ''}"
    parameters = [name for name in _columns(rows) if _varies(name, rows)]
    repeated = len(rows) > 1 and only_repeated(parameters)  # one experiment, several times: there is no best
    order = "" if monitor is None or repeated else f"; best first by {visible(monitor)}"
    console.print(Text(f"\n{jobs}, {failed} failed{order}"))
    console.print(_table(sorted(rows, key=lambda row: row["job"]) if repeated else rows, parameters, monitor))
    if repeated and monitor is not None:
        for line in _spreads(rows, _measured(monitor), " and ".join(parameters)):
            console.print(Text(visible(line)), soft_wrap=True)
    console.print(Text(visible(f"sweep folder: {rundir.shown(folder)}")), soft_wrap=True)
    if rows[0]["state"] == "completed" and not repeated:
        console.print(Text(visible(f"best run: {rundir.shown(Path(rows[0]['run']))}")), soft_wrap=True)


def _measured(monitor: str) -> list[str]:
    """The monitored value, and the same metric on the test split where that is another number."""
    return [monitor] if monitor.startswith("test/") else [monitor, f"test/{monitor.partition('/')[2]}"]


def _spreads(rows: list[Row], measured: list[str], keys: str) -> Iterator[str]:
    """What the jobs came to together: mean and standard deviation of each metric."""
    for name in measured:
        values = [row["objective"] if name == measured[0] else row.get(name) for row in rows]
        numbers = [value for value in values if value is not None]
        if numbers:
            found = estimate(numbers)
            spread = "" if found.std is None else f" ± {_number(found.std)}"
            yield f"{name} {_number(found.mean)}{spread} (mean ± standard deviation over {keys}, n = {found.count})"


def _table(rows: list[Row], parameters: list[str], monitor: str | None) -> Table:
    from rich.table import Table
    from rich.text import Text

    measured = [] if monitor is None else _measured(monitor)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("job", *parameters, *measured, "seconds", "state"):
        text = name in parameters  # of these the long ones are folded, so that every number stays in one piece
        justify: Any = "left" if text or name == "state" else "right"
        table.add_column(Text(visible(name)), justify=justify, overflow="fold", no_wrap=not text)
    for row in rows:
        values = [row["objective"], *(row.get(name) for name in measured[1:])] if measured else []
        state = row["state"] if row["exit_code"] in (0, None) else f"{row['state']} ({row['exit_code']})"
        cells = [str(row["job"]), *(str(row.get(name, "")) for name in parameters), *map(_number, values)]
        table.add_row(*(Text(visible(text)) for text in [*cells, _number(row["seconds"], 1), state]))
    return table


def _varies(name: str, rows: list[Row]) -> bool:
    fixed = re.fullmatch(r"job|state|objective|seconds|exit_code|error|run|(train|val|test)/.*", name)
    return not fixed and (len({row.get(name) for row in rows}) > 1 or len(rows) == 1)


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"
