"""The learning-rate range test: real training while the learning rate grows, and what the loss does.

Smith 2017 (arXiv:1506.01186), section 3.3, with lr growing by a constant factor from step to step instead of a
constant amount, so that every decade gets as many steps.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch

from trainkit import loop
from trainkit.errors import ConfigError, ResourceError
from trainkit.planning.rehearsal import tolerate_bad_steps
from trainkit.tasks.meter import sum_terms
from trainkit.training.run import Run

STEPS = 300
BELOW, ABOVE = 1e-4, 1e3  # the first and the last lr of the sweep, as factors on the one it is about
GIVE_UP = 4.0  # the sweep ends when the smoothed loss is so many times its smallest value
SMOOTH = 10  # steps on either side that a step's loss is averaged with
LEAST_FALL = 0.05  # share of the first loss that it must lose for a suggestion


@dataclasses.dataclass(frozen=True)
class LrRange:
    """lrs and losses of each step, and the losses averaged with their neighbors.

    falls: where a tenth of the whole fall is done. fastest: where the loss falls fastest over log lr. lowest: where it
    is lowest; above it the loss rises again. suggestion: where four fifths of the fall are done: past the fastest, well
    below where it ends. All None when no lr made the loss fall.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    falls: float | None
    fastest: float | None
    lowest: float | None
    suggestion: float | None


def sweep_lr(run: Run, center: float) -> LrRange:
    """Train while the lr grows from `BELOW` to `ABOVE` times `center`, until the loss blows up. Changes the model.

    With parameter groups of different lrs all are scaled by one factor, and the lr named is `optim.lr`. Raises
    ConfigError for L-BFGS, whose steps search for their own length.
    """
    if isinstance(run.optimizer, torch.optim.LBFGS):
        raise ConfigError("--lr-range is for optimizers that go one gradient a step; lbfgs chooses its own lengths")
    tolerate_bad_steps(run)  # the sweep itself ends at the first
    run.graphed = None  # each step reads its loss anyway
    base = run.base_lr
    growth = (ABOVE / BELOW) ** (1 / (STEPS - 1))
    run.lr_factor = lambda step: center / base * BELOW * growth**step
    lrs: list[float] = []
    losses: list[float] = []
    running, lowest = 0.0, math.inf
    for step, done in zip(range(STEPS), loop.steps(run), strict=False):
        loss = float(sum_terms(done.loss))
        if not math.isfinite(loss):
            break
        lrs.append(run.lr)
        losses.append(loss)
        running = 0.9 * running + 0.1 * loss
        average = running / (1 - 0.9 ** (step + 1))  # undoes that `running` began at 0
        lowest = min(lowest, average)
        if step >= 2 * SMOOTH and average > GIVE_UP * lowest:
            break
    return judge(lrs, losses)


def judge(lrs: list[float], losses: list[float]) -> LrRange:
    """What the losses of a sweep say about the lr."""
    smoothed = [_mean(losses[max(i - SMOOTH, 0) : i + SMOOTH + 1]) for i in range(len(losses))]
    nothing = LrRange(lrs, losses, smoothed, None, None, None, None)
    if len(losses) < 2 * SMOOTH + 2:
        return nothing
    bottom = min(range(len(smoothed)), key=smoothed.__getitem__)
    start = _mean(losses[:SMOOTH])
    if start - smoothed[bottom] < LEAST_FALL * abs(start):
        return nothing
    slopes = {i: smoothed[i + SMOOTH] - smoothed[i - SMOOTH] for i in range(SMOOTH, bottom) if i + SMOOTH < len(losses)}
    steepest = min(slopes, key=slopes.__getitem__) if slopes else bottom

    def done(share: float) -> float:
        level = start - share * (start - smoothed[bottom])
        return next(lr for lr, loss in zip(lrs, smoothed, strict=True) if loss <= level)

    return LrRange(lrs, losses, smoothed, done(0.1), lrs[steepest], lrs[bottom], done(0.8))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def draw(found: LrRange, file: Path) -> None:
    """A PNG of the sweep. Raises ResourceError when the file cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(found.lrs, found.losses, color="0.75", linewidth=1, label="each step")
    axes.plot(found.lrs, found.smoothed, color="#0072B2", linewidth=2, label=f"mean of {2 * SMOOTH + 1} steps")
    if found.suggestion is not None:
        axes.axvline(found.suggestion, color="#D55E00", linestyle="--", label=f"suggestion: {found.suggestion:.2g}")
    axes.set_xscale("log")
    low, high = min(found.smoothed), max(found.smoothed[: 2 * SMOOTH])
    axes.set_ylim(low - 0.1 * (high - low), high + 0.5 * (high - low) or None)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(file, format="png")
    except OSError as error:
        raise ResourceError(f"cannot write {file} ({error.strerror})") from error
