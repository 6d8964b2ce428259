"""The plots of one run: learning curves, confusion matrix, reliability, and predicted against true."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainkit.plots.draw import BLUE, INK, MUTED, ORANGE, Panel
from trainkit.plots.markup import clean
from trainkit.report.analysis import BINS, reliability
from trainkit.report.answers import Predictions
from trainkit.report.facts import Facts, Row, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = 20  # up to so many classes the cells of a confusion matrix hold their numbers
POINTS = 2000  # of a line; more dots than this are one picture inside an SVG


def panels(facts: Facts) -> dict[str, list[Panel]]:
    """All plots that the run has data for, by the name of their file."""
    found = {"curves": curves(facts)}
    if facts.confusion is not None:
        found["confusion"] = [confusion(facts, share=False)]
        found["confusion_normalized"] = [confusion(facts, share=True)]
    if facts.predictions is not None:
        if facts.task == "regression":
            found["regression"] = regression(facts.predictions)
        else:
            found["reliability"] = [reliability_diagram(facts.predictions)]
    return {name: drawn for name, drawn in found.items() if drawn}


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
    ends = ", ".join(f"{split} ends at {line[1][-1]:.4g}" for split, line in lines.items())
    best = facts.best_epoch

    def draw(axes: Axes) -> None:
        few = len(facts.epochs) < 3
        if few and name == "loss" and len(facts.steps) > 1:  # too few epochs for a curve: the logged steps are one
            x, y = step_series(facts, "loss")
            axes.plot(x, y, color=ORANGE, alpha=0.35, linewidth=1, label="train, single batches")
        for split, colour in (("train", ORANGE), ("val", BLUE)):
            if split in lines:
                axes.plot(*lines[split], color=colour, label=split, marker="o" if len(lines[split][0]) < 16 else None)
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
    return Panel("learning rate", f"learning rate over the epochs, from {low:.3g} to {high:.3g}", draw)


def log_axis(axes: Axes, name: Literal["x", "y"]) -> None:
    """Make an axis logarithmic; it says 0.001, not a formula."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(**{f"{name}scale": "log"})
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
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


def confusion(facts: Facts, *, share: bool) -> Panel:
    """The confusion matrix in counts, or each row as shares of its true class. Small cells keep a visible colour."""
    matrix = facts.confusion
    assert matrix is not None
    count = len(matrix)
    names = [clean(name if len(name) <= 16 else name[:15] + "…") for name in facts.classes]
    values = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1) if share else matrix.astype(float)
    side = min(max(3.6, 0.42 * count + 1.2), 9.0)

    def draw(axes: Axes) -> None:
        from matplotlib.colors import PowerNorm

        axes.grid(False)
        norm = PowerNorm(0.4, 0, max(values.max(), 1e-9))  # a plain scale shows nothing beside the diagonal
        # of very many classes a picture as fine as the plot is enough
        image = axes.imshow(values, cmap=_fading(), norm=norm, interpolation="none" if count <= 200 else "antialiased")
        cell = (side - 1.6) * 72 / count  # in points
        every = math.ceil(5 / cell)  # of more classes than have room for a name, every few are named
        ticks = np.arange(0, count, every)
        size = min(8, 0.95 * cell * every)
        upright = 0.65 * size * max(map(len, names)) > cell
        axes.set_xticks(ticks, [names[i] for i in ticks], fontsize=size, rotation=90 if upright else 0)
        axes.set_yticks(ticks, [names[i] for i in ticks], fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if count <= NUMBERS:
            _write_cells(axes, values, norm(values), share)
        else:
            bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
            bar.outline.set_visible(False)

    correct = int(np.trace(matrix))
    what = "shares of each true class" if share else "counts"
    alt = f"confusion matrix of {count} classes, {what}: {correct} of {int(matrix.sum())} on the diagonal"
    title = "confusion, share of the true class" if share else "confusion, samples"
    return Panel(title, alt, draw, (side, side * 0.96), wide=count > 12)


def _write_cells(axes: Axes, values: NDArray[Any], shade: NDArray[Any], share: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.2f}".removeprefix("0") if share else f"{value:.0f}"
        if text not in (".00", "0"):
            colour = "white" if shade[row, column] > 0.6 else INK
            size = 8 if len(values) <= 12 else 6
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)


def _fading() -> Any:
    """From nothing to blue, so that an empty cell has the colour of the page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    # the step at the lower end lets a single sample be seen
    stops = [(0.0, to_rgba(BLUE, 0)), (0.001, to_rgba(BLUE, 0.12)), (1.0, to_rgba(BLUE, 1))]
    return LinearSegmentedColormap.from_list("fading", stops, N=1024)


def reliability_diagram(predictions: Predictions) -> Panel:
    """Accuracy against confidence in bins (Guo et al. 2017), the size of a dot growing with its bin's samples."""
    found = reliability(predictions)
    assert found is not None

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label="calibrated")
        filled = found.count > 0
        x, y = found.confidence[filled], found.accuracy[filled]
        axes.vlines(x, x, y, color=ORANGE, linewidth=3, alpha=0.6, label="gap")
        share = found.count[filled] / found.count.sum()
        axes.scatter(x, y, s=15 + 250 * share, color=BLUE, linewidths=0, zorder=3)
        axes.set(xlim=(0, 1.04), ylim=(-0.04, 1.06), ylabel="accuracy")
        axes.set_xlabel("confidence (area of a dot: its share of the samples)")
        axes.legend(loc="upper left")
        axes.text(0.98, 0.04, f"ECE {found.error:.1%}", transform=axes.transAxes, ha="right", size=11, weight="bold")

    title = "reliability of labels" if predictions.task == "multilabel" else "reliability"
    alt = f"accuracy against confidence in {BINS} bins; expected calibration error {found.error:.2%}"
    return Panel(title, alt, draw, (4.2, 3.8))


def regression(predictions: Predictions) -> list[Panel]:
    """Predicted against true, and the residuals; of several targets, each by its own spread."""
    assert predictions.outputs is not None
    true, answered = (np.asarray(x, dtype=float) for x in (predictions.targets, predictions.outputs))
    unit = ""
    if true.shape[1] > 1:  # targets of different units share the axes
        mean, spread = true.mean(axis=0), np.maximum(true.std(axis=0), 1e-12)
        true, answered, unit = (true - mean) / spread, (answered - mean) / spread, ", in standard deviations"
    x, y = true.reshape(-1), answered.reshape(-1)
    many = len(x) > POINTS
    alpha = float(np.clip(300 / len(x), 0.08, 0.7))
    residual = x - y

    def against(axes: Axes) -> None:
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label="exact")
        axes.scatter(x, y, s=14, color=BLUE, alpha=alpha, linewidths=0, rasterized=many)
        axes.set(xlabel=f"true{unit}", ylabel=f"predicted{unit}")
        axes.legend(loc="upper left")

    def residuals(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.scatter(y, residual, s=14, color=BLUE, alpha=alpha, linewidths=0, rasterized=many)
        axes.set(xlabel=f"predicted{unit}", ylabel="true - predicted")

    spread_of = f"residuals from {residual.min():.4g} to {residual.max():.4g}, mean {residual.mean():.4g}"
    size = (4.2, 3.6)
    return [
        Panel("predicted against true", f"predicted against true for {len(x)} values", against, size),
        Panel("residuals", spread_of, residuals, size),
    ]
