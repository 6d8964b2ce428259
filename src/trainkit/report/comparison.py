"""Several runs beside each other: their order, what was varied, their curves and the effect of each parameter."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainkit.plots.draw import BLUE, INK, LINE, SERIES, Panel
from trainkit.plots.markup import clean
from trainkit.report.facts import Facts, number
from trainkit.report.panels import log_axis, series, whole_epochs
from trainkit.report.settings import UNKNOWN, differing, word
from trainkit.run_folders.groups import only_repeated
from trainkit.run_folders.records import short_id
from trainkit.text import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORED = len(SERIES)  # the best runs have a color,
DRAWN = 100  # and so many more are gray
PARAMETERS = 8  # at most so many are drawn
DASHES: list[Any] = ["-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1.5, 1.5)), "-", (0, (5, 1.5))]


@dataclasses.dataclass
class Comparison:
    """runs: the best first, those without a value last; of `repeated` ones, by folder. metric: what orders them.

    mode: min or max. parameters: what was varied, by key, each with the values of the runs as text.
    """

    runs: list[Facts]
    metric: str
    mode: str
    parameters: dict[str, list[str]]

    def value(self, run: Facts) -> float | None:
        """The ordering metric of a run's best epoch, or of its evaluation."""
        for row in run.epochs:
            if row["epoch"] == run.best_epoch:
                return number(row.get(self.metric))
        return run.metric(self.metric)

    @property
    def repeated(self) -> bool:
        """Whether the runs are one experiment, done several times: the runs are then in the order of their folders."""
        return only_repeated(self.parameters)

    def called(self, run: Facts) -> str:
        """What to call a run: its rank, where there is one, and its id."""
        place = next(i for i, other in enumerate(self.runs) if other is run)
        return short_id(run.path) if self.repeated else f"{place + 1}. {short_id(run.path)}"

    def described(self, run: Facts) -> str:
        """What sets a run apart: `model=cnn seed=1`."""
        place = next(i for i, other in enumerate(self.runs) if other is run)
        return " ".join(f"{key}={values[place]}" for key, values in self.parameters.items())


def compare(runs: Sequence[Facts]) -> Comparison:
    """Order runs by the metric that most of them are monitored by."""
    counts = collections.Counter(run.monitor for run in runs)
    metric = counts.most_common(1)[0][0]
    modes = [run.result.get("mode") for run in runs if run.monitor == metric]
    mode = next((mode for mode in modes if mode in ("min", "max")), runs[0].described(metric).better)
    found = Comparison(list(runs), metric, mode, {})

    def rank(run: Facts) -> tuple[bool, float]:
        value = found.value(run)
        return (value is None, 0.0 if value is None else value if mode == "min" else -value)

    found.runs.sort(key=rank)
    found.parameters = parameters(found.runs)
    if found.repeated:
        found.runs.sort(key=lambda run: (run.path.parent, not run.name.isdigit(), run.name.zfill(9)))
        found.parameters = parameters(found.runs)
    return found


def parameters(runs: Sequence[Facts]) -> dict[str, list[str]]:
    """What was varied: the overrides of a sweep that differ; else what differs in every config."""
    given = [dict(pair for text in _texts(run) if (pair := _pair(text))) for run in runs]
    if all(given) and len({tuple(sorted(pairs)) for pairs in given}) == 1:
        found = {key: [pairs[key] for pairs in given] for key in given[0]}
        varied = {key: values for key, values in found.items() if len(set(values)) > 1}
        if varied:
            return varied
    return {
        key: [word(value) for value in values]
        for key, values in differing(runs).items()
        if not key.startswith("env.") and UNKNOWN not in values
    }


def _texts(run: Facts) -> list[str]:
    overrides = run.status.get("overrides")
    return [str(text) for text in overrides] if isinstance(overrides, list) else []


def _pair(text: str) -> tuple[str, str] | None:
    key, sign, value = text.partition("=")
    return (key.lstrip("+"), value) if sign and not key.startswith("hydra") else None


def comparison_panels(found: Comparison) -> dict[str, list[Panel]]:
    """The overlaid curves and the effect of each parameter, by the name of their file."""
    curves = [_overlay(found, name) for name in dict.fromkeys(["val/loss", found.metric])]
    effects = [_effect(found, key, values) for key, values in list(found.parameters.items())[:PARAMETERS]]
    measured = [run for run in found.runs if found.value(run) is not None]
    drawn = {"curves": [panel for panel in curves if panel is not None]}
    if len(measured) > 1 and not found.repeated:
        drawn["parameters"] = effects
    return {name: panels for name, panels in drawn.items() if panels}


def _overlay(found: Comparison, key: str) -> Panel | None:
    lines = [(place, run, *series(run.epochs, key)) for place, run in enumerate(found.runs)]
    lines = [line for line in lines if len(line[2])][: COLORED + DRAWN]
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for place, run, x, y in reversed(lines):
            marker = "o" if len(x) == 1 else None
            if place < COLORED:
                name = found.called(run)
                text = clean(name if len(name) <= 30 else name[:29] + "…")
                axes.plot(x, y, color=SERIES[place], linestyle=DASHES[place], marker=marker, label=text, zorder=3)
            else:
                axes.plot(x, y, color=LINE, linewidth=1, marker=marker)
        values = np.concatenate([y for *_, y in lines])
        if key.endswith("loss") and values.min() > 0 and values.max() / values.min() > 50:
            log_axis(axes, "y")
        whole_epochs(axes, max(x[-1] for _, _, x, _ in lines))
        handles, texts = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], texts[::-1], loc="best")

    return Panel(key, f"{key} over the epochs for {len(lines)} runs", draw, (5.2, 3.6))


def _effect(found: Comparison, key: str, texts: list[str]) -> Panel:
    """The ordering metric against the values of one parameter: a dot a run, a bar the mean of a value."""
    values = [found.value(run) for run in found.runs]
    pairs = [(text, value) for text, value in zip(texts, values, strict=True) if value is not None]
    numbers = {text: as_number(text) for text, _ in pairs}
    numeric = all(value is not None for value in numbers.values()) and len(numbers) > 4

    def draw(axes: Axes) -> None:
        if numeric:
            x = np.array([numbers[text] for text, _ in pairs], dtype=float)
            if x.min() > 0 and x.max() / x.min() >= 30:
                log_axis(axes, "x")
            axes.plot(x, [value for _, value in pairs], "o", color=BLUE, alpha=0.7, markeredgewidth=0)
            axes.margins(x=0.06)
        else:
            _by_value(axes, pairs, sorted(numbers, key=lambda text: _order(text, numbers[text])))
        axes.set_xlabel(clean(key))
        axes.set_ylabel(found.metric)

    means = {text: np.mean([value for other, value in pairs if other == text]) for text in numbers}
    spoken = "; ".join(f"{text}: mean {written(float(mean))}" for text, mean in list(means.items())[:8])
    return Panel(key, f"{found.metric} by {key}: {spoken}", draw, (4.2, 3.0))


def _by_value(axes: Axes, pairs: list[tuple[str, float]], order: list[str]) -> None:
    for place, text in enumerate(order):
        values = [value for other, value in pairs if other == text]
        axes.plot([place] * len(values), values, "o", color=BLUE, alpha=0.6, markeredgewidth=0)
        axes.hlines(np.mean(values), place - 0.25, place + 0.25, color=INK, linewidth=2)
    names = [clean(text if len(text) <= 18 else text[:17] + "…") for text in order]
    long = sum(map(len, names)) > 34
    axes.set_xticks(range(len(order)), names, rotation=30 if long else 0, ha="right" if long else "center")
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.grid(visible=False, axis="x")


def as_number(text: str) -> float | None:
    """The finite number that a text is, else None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _order(text: str, value: float | None) -> tuple[bool, float, str]:
    return (value is None, value or 0.0, text)
