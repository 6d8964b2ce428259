"""The report of several runs, or of a sweep: which is best, their curves, metrics and configs beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit.plots.markup import Markup, element, join, table
from trainkit.report.comparison import COLORED, DRAWN, Comparison, compare, comparison_panels
from trainkit.report.facts import Facts, number
from trainkit.report.page import document, missing, plots, section, settings, verdict_box
from trainkit.report.settings import differing, word
from trainkit.report.verdict import Verdict, judge_fit, label, shown
from trainkit.run_folders.records import short_id
from trainkit.statistics import estimate
from trainkit.tasks.base import Metric

COLUMNS = 40  # keys in the table of differences


def runs_page(runs: Sequence[Facts], sweep: Path | None, title: str | None = None) -> Markup:
    """The page of several runs; sweep: the folder whose jobs they are, if they are; title: of the page."""
    found = compare(runs)
    drawn = comparison_panels(found)
    name = title or f"{', '.join(dict.fromkeys(run.data for run in runs))}: {_counted(found)}"
    judged = repeated_verdict(found) if found.repeated else verdict(found)
    lacking = [f"{short_id(run.path)}: {line}" for run in found.runs for line in run.missing if run.state != "failed"]
    shown_first = f"The {'first' if found.repeated else 'best'} {COLORED} in color, up to {DRAWN} more in gray."
    parts = [
        element("h1", name),
        element("p", sweep, class_="quiet") if sweep is not None else None,
        verdict_box(judged),
        section("Results", _results(found), None if found.repeated else f"Best first by {found.metric}."),
        section(
            "Learning curves", plots(drawn.get("curves", []), "curves"), shown_first if len(runs) > COLORED else None
        ),
        section(
            "Effect of each parameter",
            plots(drawn.get("parameters", []), "parameters"),
            f"Each dot is a run at its best {found.metric}; a bar is the mean of the runs with that value.",
        ),
        section("Differences", _differences(found), "Keys of config and environment that differ between runs."),
        _failures(found),
        _commands(found),
        missing(lacking[:100]),
    ]
    return document(f"{name}: {judged.headline}", parts)


def _counted(found: Comparison) -> str:
    return f"{len(found.runs)} runs over {', '.join(found.parameters)}" if found.repeated else f"{len(found.runs)} runs"


def repeated_verdict(found: Comparison) -> Verdict:
    """What an experiment came to that was done several times: mean and standard deviation."""
    failed = [run for run in found.runs if run.state != "completed"]
    split, _, name = found.metric.rpartition("/")
    metric = found.runs[0].described(name)
    spread = _spread(metric, [value for run in found.runs if (value := found.value(run)) is not None])
    if spread is None:
        return verdict(found)
    count = f"{len(found.runs)} runs, {len(failed)} of them not completed" if failed else f"{len(found.runs)} runs"
    keys = " and ".join(found.parameters)
    sentences = [f"{count}, which differ in {keys} alone: they are one result, and none of them is the best."]
    tested = [value for run in found.runs if (value := run.metric(f"test/{name}")) is not None]
    if split != "test" and (on_test := _spread(metric, tested)):
        sentences.append(f"On test the {label(metric)} is {on_test}.")
    return Verdict(f"{label(metric)} {spread} on {split}", "warn" if failed else "good", sentences)


def _spread(metric: Metric, values: Sequence[float]) -> str | None:
    """`93.1% ± 0.4% (mean ± standard deviation of 5)`; None without a value."""
    if not values:
        return None
    if len(values) == 1:
        return f"{shown(metric, values[0])} (of one run)"
    return f"{_short_spread(metric, values)} (mean ± standard deviation of {len(values)})"


def verdict(found: Comparison) -> Verdict:
    """Which run is best, by how much, and what must be known about it."""
    failed = [run for run in found.runs if run.state != "completed"]
    values = [value for run in found.runs if (value := found.value(run)) is not None]
    count = f"{len(found.runs)} runs, {len(failed)} of them not completed." if failed else f"{len(found.runs)} runs."
    if not values:
        return Verdict("no run has a result", "bad", [count])
    best = found.runs[0]
    split, _, name = found.metric.rpartition("/")
    metric = best.described(name)
    headline = f"{short_id(best.path)} is best: {label(metric)} {shown(metric, values[0])} on {split}"
    sentences = [count]
    if said := found.described(best):
        sentences.append(f"It has {said}.")
    if len(values) > 1:
        next_best = f"The next best is {short_id(found.runs[1].path)} with {shown(metric, values[1])}"
        sentences.append(f"{next_best}; the worst has {shown(metric, values[-1])}.")
    test = best.metric(f"test/{name}")
    if test is not None and split == "val":
        chosen = f"Its {label(metric)} on test is {shown(metric, test)}"
        sentences.append(f"{chosen}, which is the number to quote: {found.metric} chose it among {len(values)}.")
    fit, worry = judge_fit(best)
    sentences += [f"The best run: {sentence[0].lower()}{sentence[1:]}" for sentence in fit] if worry else []
    return Verdict(headline, "warn" if failed or worry else "good", sentences)


def _results(found: Comparison) -> Markup:
    """A row a run: what was varied, what it measured, how it ended."""
    measured = [_numbers(run) for run in found.runs]
    # what orders the runs, then test, then the rest
    names = sorted({name for values in measured for name in values}, key=lambda name: (name[:5] != "test/", name))
    names = [name for name in names if name != found.metric]
    heads = ["run", *found.parameters, found.metric, "best epoch", "state", "seconds", *names]
    rows = []
    for place, (run, values) in enumerate(zip(found.runs, measured, strict=True)):
        varied = [column[place] for column in found.parameters.values()]
        seconds = number(run.status.get("seconds"))
        row: list[Any] = [
            found.called(run),
            *varied,
            shown(run.described(found.metric), found.value(run)),
        ]
        row += [run.best_epoch or "–", run.state, "–" if seconds is None else f"{seconds:.1f}"]
        rows.append([*row, *(shown(run.described(name), values.get(name)) for name in names)])
    if found.repeated:
        columns = [[value for run in found.runs if (value := found.value(run)) is not None]]
        columns += [[values[name] for values in measured if name in values] for name in names]
        metrics = map(found.runs[0].described, [found.metric, *names])
        first, *rest = map(_short_spread, metrics, columns)
        rows.append(["mean ± sd", *("" for _ in found.parameters), first, "", "", "", *rest])
    return table(heads, rows)


def _short_spread(metric: Metric, values: Sequence[float]) -> str:
    """`93.10% ± 0.42%`, both with as many decimals."""
    if not values:
        return shown(metric, None)
    found = estimate(values)
    mean = shown(metric, found.mean)
    if found.std is None:
        return mean
    decimals = len(mean.partition(".")[2])
    return f"{mean} ± {shown(metric, found.std) if metric.unit == 'share' else f'{found.std:,.{decimals}f}'}"


def _numbers(run: Facts) -> dict[str, float]:
    pairs = [(f"{split}/{key}", number(x)) for split, metrics in run.measured.items() for key, x in metrics.items()]
    return {name: value for name, value in pairs if value is not None}


def _differences(found: Comparison) -> Markup | None:
    """A row a key that differs, a column a run; of many runs the first few."""
    runs = found.runs[:12]
    rows = [[key, *map(word, values)] for key, values in differing(runs).items()][:COLUMNS]
    if not rows:
        return None
    heads = ["key", *map(found.called, runs)]
    note = f"The first {len(runs)} of {len(found.runs)} runs." if len(runs) < len(found.runs) else None
    return join(settings(heads, rows), element("p", note, class_="quiet") if note else None)


def _failures(found: Comparison) -> Markup | None:
    rows = [
        [short_id(run.path), found.described(run), run.state, run.status.get("error", "–")]
        for run in found.runs
        if run.state != "completed"
    ]
    return section("Not completed", settings(["run", "with", "state", "error"], rows) if rows else None)


def _commands(found: Comparison) -> Markup | None:
    lines = [run.command for run in found.runs if run.command]
    folded = element("details", element("summary", f"{len(lines)} commands"), element("pre", "\n".join(lines)))
    return section("Commands", folded if lines else None)
