"""The plots of one run: learning curves, and what its task shows of the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.plots.draw import BLUE, INK, MUTED, ORANGE, Panel
from trainkit.report.facts import Facts, Row, number
from trainkit.tasks.base import Section
from trainkit.text import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 2000  # of a line


def panels(facts: Facts, sections: Sequence[Section]) -> dict[str, list[Panel]]:
    """All plots that the run has data for, by the name of their file; sections: what its task shows."""
    found = {"curves": curves(facts)}
    for section in sections:
        found |= section.panels
    return {name: drawn for name, drawn in found.items() if drawn}


def sections(facts: Facts) -> list[Section]:
    """What the task shows of the answers."""
    found = facts.predictions
    return [] if found is None else found.task.sections(found.kept, found.target)


def curves(facts: Facts) -> list[Panel]:
    """Loss, the monitored metric, and the learning rate over the epochs."""
    if not facts.epochs:
        return []
    metric = facts.monitor.partition("/")[2]
    names = ["loss"] if metric == "loss" else ["loss", metric]
    return [_curve(facts, name) for name in names] + [_learning_rate(facts)]


def _curve(facts: Facts, name: str) -> Panel:
    lines = {split: series(facts.epochs, f"{split}/{name}") for split in ("train", "val")}
    lines = {split: line for split, line in lines.items() if len(line[0])}
    ends = ", ".join(f"{split} ends at {written(line[1][-1])}" for split, line in lines.items())
    best = facts.best_epoch

    def draw(axes: Axes) -> None:
        few = len(facts.epochs) < 3
        if few and name == "loss" and len(facts.steps) > 1:  # too few epochs for a curve: the logged steps are one
            x, y = step_series(facts, "loss")
            axes.plot(x, y, color=ORANGE, alpha=0.35, linewidth=1, label="train, single batches")
        for split, color in (("train", ORANGE), ("val", BLUE)):
            if split in lines:
                axes.plot(*lines[split], color=color, label=split, marker="o" if len(lines[split][0]) < 16 else None)
        if best is not None:
            mark_best(axes, best, lines.get("val", lines.get("train")))
        values = np.concatenate([line[1] for line in lines.values()]) if lines else np.ones(1)
        if name == "loss" and values.min() > 0 and values.max() / values.min() > 50:
            log_axis(axes, "y")
        whole_epochs(axes, facts.epochs[-1]["epoch"])
        axes.legend(loc="best")

    return Panel(name.replace("_", " "), f"{name} over {len(facts.epochs)} epochs: {ends}; best epoch {best}", draw)


def _learning_rate(facts: Facts) -> Panel:
    x, y = step_series(facts, "lr")

    def draw(axes: Axes) -> None:
        axes.plot(x, y, color=INK, linewidth=1.4, marker="o" if len(x) < 3 else None)
        if len(y) and y.max() > 0:
            axes.set_ylim(0, y.max() * 1.08)
        whole_epochs(axes, facts.epochs[-1]["epoch"])

    low, high = (y.min(), y.max()) if len(y) else (0.0, 0.0)
    return Panel("learning rate", f"learning rate over the epochs, from {written(low)} to {written(high)}", draw)


def log_axis(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic; it says 0.001, not a formula."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: written(value)))
    axis.set_minor_formatter(NullFormatter())


def mark_best(axes: Axes, epoch: int, line: tuple[Any, Any] | None) -> None:
    """A thin line at the best epoch, and a ring on the curve there."""
    axes.axvline(epoch, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label=f"best epoch, {epoch}")
    if line is not None and epoch in line[0]:
        value = line[1][list(line[0]).index(epoch)]
        axes.plot([epoch], [value], "o", markersize=8, markerfacecolor="none", color=INK, markeredgewidth=1.4)


def whole_epochs(axes: Axes, last: float) -> None:
    """The axis of epochs: whole numbers from 0 to the last."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlabel("epoch")
    axes.set_xlim(0, last * 1.03)


def series(rows: list[Row], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Epochs and the finite values of a key there."""
    return _line([(row["epoch"], value) for row in rows if (value := number(row.get(key))) is not None])


def step_series(facts: Facts, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logged steps and the epochs' ends, in epochs, and the finite values of a key there."""
    last = facts.epochs[-1]
    per_epoch = (number(last.get("step")) or 0) / last["epoch"] if last["epoch"] else 0
    if not per_epoch:
        return series(facts.epochs, key)
    rows = sorted(
        (row for row in [*facts.steps, *facts.epochs] if number(row.get("step"))), key=lambda row: row["step"]
    )
    return _line([(row["step"] / per_epoch, value) for row in rows if (value := number(row.get(key))) is not None])


def _line(pairs: list[tuple[float, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y of a line, every few of more points than a plot can show, the last one always."""
    every = -(-len(pairs) // POINTS)
    kept = pairs[:: max(every, 1)]
    kept += [pairs[-1]] if pairs and kept[-1] is not pairs[-1] else []
    values = np.array(kept, dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]
