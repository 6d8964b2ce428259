"""The charts of what a model answered: confusion matrix, reliability, predicted against true. They know no run."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.plots.draw import BLUE, INK, MUTED, ORANGE, Panel
from trainkit.plots.markup import clean
from trainkit.text import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = 20  # up to so many classes the cells of a confusion matrix hold their numbers
POINTS = 2000  # more dots than this are one picture inside an SVG


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal bins of confidence: each (bins,), not-a-number where a bin is empty.

    error: the expected calibration error, eq. 3 of Guo et al. 2017 (arXiv:1706.04599), in 0..1.
    samples: how many were answered, each perhaps with several labels.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float
    samples: int


def confusion(matrix: NDArray[np.int64], classes: list[str], *, share: bool) -> Panel:
    """A confusion matrix (C, C), true by predicted, in counts, or each row as shares of its true class.

    The color of a cell is that share in both.
    """
    count = len(matrix)
    names = [clean(name if len(name) <= 16 else name[:15] + "…") for name in classes]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(3.0, 0.42 * count + 1.2), 9.0)

    def draw(axes: Axes) -> None:
        axes.grid(False)
        # of very many classes a picture as fine as the plot is enough
        smooth = "none" if count <= 200 else "antialiased"
        image = axes.imshow(shares, cmap=_fading(), vmin=0, vmax=1, interpolation=smooth)
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
            _write_cells(axes, matrix, shares, share)
        else:
            bar = axes.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
            bar.outline.set_visible(False)
            bar.set_label("share of the true class")

    correct = int(np.trace(matrix))
    what = "shares of each true class" if share else "counts"
    alt = f"confusion matrix of {count} classes, {what}: {correct} of {int(matrix.sum())} on the diagonal"
    title = "confusion in shares" if share else "confusion in samples"
    return Panel(title, alt, draw, (side, side * 0.96), wide=count > 12)


def _write_cells(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64], share: bool) -> None:
    for (row, column), value in np.ndenumerate(matrix):
        text = f"{shares[row, column]:.2f}".removeprefix("0") if share else f"{value:,}"
        if value and text != ".00":
            color = "white" if shares[row, column] > 0.85 else INK
            size = 8 if len(matrix) <= 12 else 6
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=size)


def _fading() -> Any:
    """From nothing to blue, so that an empty cell has the color of the page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    return LinearSegmentedColormap.from_list("fading", [to_rgba(BLUE, 0), to_rgba(BLUE, 1)], N=1024)


def reliability_diagram(found: Reliability, title: str) -> Panel:
    """Accuracy against confidence in bins (Guo et al. 2017), the size of a dot growing with its bin's samples."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (3, 3)), label="calibrated")
        filled = found.count > 0
        x, y = found.confidence[filled], found.accuracy[filled]
        axes.vlines(x, x, y, color=ORANGE, linewidth=3, alpha=0.6, label="gap")
        share = found.count[filled] / found.count.sum()
        axes.scatter(x, y, s=15 + 250 * share, color=BLUE, linewidths=0, zorder=3)
        axes.set(xlim=(0, 1.04), ylim=(-0.04, 1.06), ylabel="accuracy")
        axes.set_xlabel("confidence (area of a dot: its share of the samples)")
        axes.legend(loc="best")

    alt = f"accuracy against confidence in {len(found.count)} bins; expected calibration error {found.error:.2%}"
    return Panel(title, alt, draw, (4.2, 3.8))


def regression(targets: NDArray[Any], outputs: NDArray[Any]) -> list[Panel]:
    """Predicted against true, both (N, T), and the residuals; of several targets, each by its own spread."""
    true, answered = (np.asarray(x, dtype=float) for x in (targets, outputs))
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

    low, high, mean_of = (written(float(value)) for value in (residual.min(), residual.max(), residual.mean()))
    size = (4.2, 3.6)
    return [
        Panel("predicted against true", f"predicted against true for {len(x)} values", against, size),
        Panel("residuals", f"residuals from {low} to {high}, mean {mean_of}", residuals, size),
    ]
