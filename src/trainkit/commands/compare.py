"""`trainkit compare A B…`: runs side by side: what differs in their configs, their metrics, whether they can be told
apart. No torch; NumPy and SciPy only for what needs them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit.commands.runs import shown
from trainkit.config.flags import FlagParser
from trainkit.console.columns import GAP, cut, emit, lines_of, terminal_width, total_width
from trainkit.errors import ConfigError
from trainkit.run_folders.groups import Group, best, by_dataset, differing, group, headline, metric_names
from trainkit.run_folders.select import select
from trainkit.run_folders.significance import Comparison
from trainkit.run_folders.significance import compare as judge
from trainkit.statistics import LEVEL, Estimate
from trainkit.text import say, to_json, visible

HELP = """\
usage: trainkit compare A B … [--json]

Each of A, B, … is the folder of a run or of a sweep, or the beginning of a run's id or name below outputs/, as
trainkit runs shows it. Runs that differ in their seed alone are one group.

Shows the config keys that differ, the metrics with the best marked, and whether accuracy (rmse for regression) can be
told apart at the 95% level: groups of seeds by Welch's t-test, single runs by their predictions on the same samples.

examples:
  trainkit compare outputs/train/RUN_1 outputs/train/RUN_2
  trainkit compare 3f2a1c 90be77
  trainkit compare outputs/sweeps/SWEEP --json"""


def compare(argv: Sequence[str]) -> int:
    """Print the comparison. Raises ConfigError for names that mean no run or several, and for a single run."""
    parser = FlagParser("compare")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--json", action="store_true")
    flags = parser.read(argv)
    records = select(flags.words, Path("outputs"))
    if len(records) < 2:
        raise ConfigError("compare needs two or more runs: name their folders or ids; trainkit runs lists them")
    groups = group(records)
    verdicts = judge_all(groups)
    if flags.json:
        emit([to_json(as_json(groups, verdicts))])
    else:
        emit(text(groups, verdicts, terminal_width()))
    for record in records:
        if not record.metrics:
            say(f"note: {record.id} has no metrics: {record.state}", stream=sys.stderr)
    return 0


def judge_all(groups: Sequence[Group]) -> list[tuple[str, list[Comparison]]]:
    """The metric and the comparisons of every data set that two or more groups with metrics have."""
    verdicts = []
    for part in by_dataset(groups):
        measured = [one for one in part if any(record.metrics for record in one.records)]
        metric = headline(measured) if len(measured) > 1 else None
        if metric is not None:
            verdicts.append((metric, judge(measured, metric)))
    return verdicts


def leaders(groups: Sequence[Group], metric: str) -> list[Group]:
    """The best groups in a metric, of each data set."""
    return [one for part in by_dataset(groups) for one in best(part, metric)]


def text(groups: Sequence[Group], verdicts: Sequence[tuple[str, list[Comparison]]], width: int) -> list[str]:
    """The comparison as lines of at most `width` characters."""
    parts = [members(groups, width), config_table(groups, width), metric_table(groups, width)]
    parts += [verdict(metric, comparisons, width) for metric, comparisons in verdicts]
    return [line for i, part in enumerate(parts) for line in ([""] if i else []) + part]


def members(groups: Sequence[Group], width: int) -> list[str]:
    """Which runs each group is made of."""
    lines = []
    for one in groups:
        runs = ", ".join(record.id for record in one.records)
        label = f"{one.name}  {one.records[0].label}, {one.repeated}: {runs}"
        lines += wrapped(label, width, " " * (len(one.name) + 2))
    return lines


def config_table(groups: Sequence[Group], width: int) -> list[str]:
    """The config keys that differ."""
    found = differing(groups)
    if not found:
        return ["config: no difference"]
    rows = [[key, *(setting(one, key) for one in groups)] for key in found]
    return in_blocks([["config", *(one.name for one in groups)], *rows], True, width)


def setting(one: Group, key: str) -> str:
    """A config value; nothing where the group has no such key."""
    value = one.config.get(key)
    return "null" if value is None and key in one.config else shown(value)


def metric_table(groups: Sequence[Group], width: int) -> list[str]:
    """Every metric: the value, or mean ± standard deviation with the interval below it; a star after the best."""
    rows = [["metric", *(one.name for one in groups)]]
    for name in metric_names(groups):
        leading = leaders(groups, name)
        found = [one.estimate(name) for one in groups]
        cells = [shown_estimate(e) for e in found]
        stars = [" *" if one in leading else "  " for one in groups]
        rows.append([name, *(cell + star for cell, star in zip(cells, stars, strict=True))])
        intervals = [f"{bounds(e.interval)}  " if e is not None and e.interval else "" for e in found]
        rows += [["", *intervals]] if any(intervals) else []
    lines = in_blocks(rows, False, width) if len(rows) > 1 else ["no metrics"]
    legend = ["* best"] if any("*" in line for line in lines) else []
    if any("±" in line for line in lines):
        repeated = "folds" if any("fold" in one.repeated for one in groups) else "seeds"
        legend.append(f"mean ± standard deviation over {repeated}, [{LEVEL:.0%} interval of the mean]")
    return lines + (wrapped("; ".join(legend), width) if legend else [])


def shown_estimate(found: Estimate | None) -> str:
    """A mean, with its standard deviation if there is one."""
    if found is None:
        return ""
    return number(found.mean) + (f" ± {number(found.std)}" if found.std is not None else "")


def in_blocks(rows: list[list[str]], to_left: bool, width: int) -> list[str]:
    """A table whose first column is repeated in front of as many others as fit, below each other."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    start = 1
    while start < len(columns):
        end = start + 1
        while end < len(columns) and total_width([columns[0], *columns[start : end + 1]]) <= width:
            end += 1
        room = width - total_width(columns[start:end]) - len(GAP)
        names = [cut(cell, max(room, 8)) for cell in columns[0]]
        chosen = [names, *columns[start:end]]
        left = [True, *[to_left] * (end - start)]
        lines += ([""] if lines else []) + lines_of(list(zip(*chosen, strict=True)), left, width)
        start = end
    return lines


def verdict(metric: str, comparisons: Sequence[Comparison], width: int) -> list[str]:
    """The best group against each other one, in words."""
    tests = sum(one.difference is not None for one in comparisons)
    holm = f", p by Holm's correction for {tests} tests" if tests > 1 else ""
    lines = wrapped(f"{metric}: {comparisons[0].best.name} against the others at the {LEVEL:.0%} level{holm}", width)
    if len(comparisons) == 1:
        lines = []
    for one in comparisons:
        if one.difference is None or one.adjusted_p is None:
            line = f"not tested: {one.reason}"
        else:
            interval = f" {bounds(one.difference.interval)}" if one.difference.interval else ""
            p = "p < 0.0001" if one.adjusted_p < 1e-4 else f"p = {one.adjusted_p:.4f}"
            word = "distinguishable" if one.distinguishable else "not distinguishable"
            line = f"{one.difference.value:+.4g}{interval}, {p}: {word} ({one.test})"
        prefix = "  " if lines else f"{metric} "
        lines += wrapped(f"{prefix}{one.other.name} - {one.best.name}: {line}", width, "    ")
    return lines


def wrapped(line: str, width: int, indent: str = "") -> list[str]:
    """A line broken between words where it does not fit."""
    return textwrap.wrap(visible(line), width, subsequent_indent=indent) or [""]


def number(value: float) -> str:
    """Four decimals; powers of ten where they would say nothing."""
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.2e}"


def bounds(interval: tuple[float, float] | None) -> str:
    """An interval in brackets."""
    return f"[{number(interval[0])}, {number(interval[1])}]" if interval else ""


def as_json(groups: Sequence[Group], verdicts: Sequence[tuple[str, list[Comparison]]]) -> dict[str, Any]:
    """The comparison as JSON data."""
    names = metric_names(groups)
    found = []
    for one in groups:
        estimates = {name: one.estimate(name) for name in names}
        metrics = {
            name: {"mean": e.mean, "std": e.std, "interval": e.interval, "count": e.count, "values": one.values(name)}
            for name, e in estimates.items()
            if e is not None
        }
        runs = [{"run": r.id, "path": str(r.path), "state": r.state, "seed": r.config.get("seed")} for r in one.records]
        found.append({"name": one.name, "label": one.records[0].label, "runs": runs, "metrics": metrics})
    return {
        "groups": found,
        "differences": {
            key: {one.name: value for one, value in zip(groups, values, strict=True)}
            for key, values in differing(groups).items()
        },
        "best": {name: [one.name for one in leaders(groups, name)] for name in names},
        "verdicts": [
            {"metric": metric, "level": LEVEL, "comparisons": [_comparison(one) for one in comparisons]}
            for metric, comparisons in verdicts
        ],
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "best": one.best.name,
        "other": one.other.name,
        "difference": one.difference and one.difference.value,
        "interval": one.difference and one.difference.interval,
        "p": one.difference and one.difference.p,
        "adjusted_p": one.adjusted_p,
        "distinguishable": one.distinguishable,
        "test": one.test or None,
        "reason": one.reason or None,
    }
