"""The largest batch that a training step can take on a CUDA device, tested by real steps: by doubling until the device
has no more memory, then halving the interval between."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable

import torch

from trainkit import loop
from trainkit.errors import ResourceError
from trainkit.planning.memory import peak_of
from trainkit.planning.rehearsal import tolerate_bad_steps
from trainkit.training.run import Run

FINE = 16  # the result is exact to one part in so many


@dataclasses.dataclass(frozen=True)
class Trial:
    """Real steps: the batch, whether it fitted, the bytes at its peak and its seconds (None where it did not)."""

    batch_size: int
    fits: bool
    peak: int | None
    seconds: float | None


@dataclasses.dataclass(frozen=True)
class MaxBatch:
    """largest: None when not even one sample fits. limit: bytes it was to stay below. bound: what stopped it."""

    largest: int | None
    limit: int
    bound: str
    trials: list[Trial]


def find_max_batch(run: Run, limit: int | None, say: Callable[[Trial], None]) -> MaxBatch:
    """The largest batch whose training step stays within `limit` bytes (None: what is free), up to the train split.

    Every candidate is a real step on the real data path: batch, augmentation, forward, backward, optimizer. Changes
    the model. `say` is told every trial. `accumulate` stays as it is.
    """
    tolerate_bad_steps(run)
    run.graphed = None  # a graph is captured for one batch size
    run.train.batch_size = min(2, run.train.num_samples)
    _steps(run)  # the optimizer's state is made by the first step, and is part of every later one
    free, total = torch.cuda.mem_get_info(run.device)
    ours = torch.cuda.memory_reserved(run.device)
    bound = min(free + ours, limit) if limit is not None else free + ours
    trials: list[Trial] = []

    def fits(batch_size: int) -> bool:
        trials.append(_try(run, batch_size))
        say(trials[-1])
        return trials[-1].fits

    torch.cuda.set_per_process_memory_fraction(min(bound / total, 1.0), run.device)
    try:
        largest = search(fits, run.train.num_samples)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, run.device)
    stopped_by = "the train split" if largest == run.train.num_samples else "memory"
    return MaxBatch(largest or None, bound, stopped_by, trials)


def search(fits: Callable[[int], bool], top: int) -> int:
    """The largest number up to `top` that fits, to one part in FINE; 0 when not even 1 does."""
    low, high = 0, 1
    while fits(high):
        low = high
        if high == top:
            return top
        high = min(2 * high, top)
    while high - low > max(low // FINE, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _steps(run: Run) -> None:
    """Two steps as `loop.train_epoch` makes them: while the second begins, what the first returned is still there."""
    run.epoch = run.step = 0
    for _kept in itertools.islice(loop.steps(run), 2):
        pass


def _try(run: Run, batch_size: int) -> Trial:
    run.train.batch_size = batch_size
    started = time.perf_counter()
    try:
        peak = peak_of(run, lambda: _steps(run))
        trial = Trial(batch_size, True, peak, time.perf_counter() - started)
    except (torch.OutOfMemoryError, ResourceError):
        trial = Trial(batch_size, False, None, None)
    for parameter in run.parameters:
        parameter.grad = None
    torch.cuda.empty_cache()
    return trial
