"""The largest batch that a training step can take, tested by real steps.

On CUDA by doubling until the device has no more memory, and halving the interval between. On the CPU running out of
memory would take the machine down, so the peak of small batches is measured, a line drawn through it, and larger
batches tried only where the line and the steps before say that they fit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch

from trainkit import loop
from trainkit.errors import ResourceError
from trainkit.machine import free_host_memory
from trainkit.planning.memory import peak_of, process_bytes
from trainkit.planning.rehearsal import tolerate_bad_steps
from trainkit.train.run import Run

SAFE = 0.8  # share of the CPU's free memory that is used at most
FINE = 16  # the result is exact to one part in so many
SMALL = (2, 16)  # the batches that the line is drawn through
ATTEMPTS = 6
QUIET, LONGEST = 2, 10  # on the CPU a trial ends when so many steps left the peak where it was, or after so many


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
    _warm_up(run)
    if run.device.type == "cuda":
        return _on_cuda(run, limit, say)
    return _on_cpu(run, limit, say)


def _warm_up(run: Run) -> None:
    # The optimizer's state is made by the first step, and is part of every later one.
    run.train.batch_size = min(SMALL[0], run.train.num_samples)
    _steps(run)


def _steps(run: Run) -> None:
    """Steps as `loop.train_epoch` makes them: while the next begins, what the last returned is still there.

    Two show the peak of torch's allocator on CUDA. On the CPU each step cuts the C library's heap up anew, and for some
    steps that makes the process grow.
    """
    run.epoch = run.step = quiet = highest = 0
    for step, _kept in zip(range(1, LONGEST + 1), loop.steps(run), strict=False):
        before, highest = highest, process_bytes("VmHWM")
        quiet = quiet + 1 if highest == before else 0
        if step >= 2 and (run.device.type == "cuda" or quiet >= QUIET):
            break
    del _kept


def _try(run: Run, batch_size: int, limit: int | None, say: Callable[[Trial], None]) -> Trial:
    run.train.batch_size = batch_size
    started = time.perf_counter()
    try:
        peak = peak_of(run, lambda: _steps(run))
        trial = Trial(batch_size, limit is None or peak <= limit, peak, time.perf_counter() - started)
    except (torch.OutOfMemoryError, ResourceError):
        trial = Trial(batch_size, False, None, None)
    if run.device.type == "cuda":
        for parameter in run.parameters:
            parameter.grad = None
        torch.cuda.empty_cache()
    say(trial)
    return trial


def _on_cuda(run: Run, limit: int | None, say: Callable[[Trial], None]) -> MaxBatch:
    free, total = torch.cuda.mem_get_info(run.device)
    ours = torch.cuda.memory_reserved(run.device)
    bound = min(free + ours, limit) if limit is not None else free + ours
    torch.cuda.set_per_process_memory_fraction(min(bound / total, 1.0), run.device)
    trials: list[Trial] = []

    def fits(batch_size: int) -> bool:
        trials.append(_try(run, batch_size, None, say))
        return trials[-1].fits

    try:
        top = run.train.num_samples
        low, high = 0, 1
        while fits(high):
            low = high
            if high == top:
                return MaxBatch(top, bound, "the train split", trials)
            high = min(2 * high, top)
        while high - low > max(low // FINE, 1):
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return MaxBatch(low or None, bound, "memory", trials)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, run.device)


def _on_cpu(run: Run, limit: int | None, say: Callable[[Trial], None]) -> MaxBatch:
    free = int(SAFE * free_host_memory())
    bound = free if limit is None else min(limit, free)
    top = run.train.num_samples
    trials = [_try(run, min(size, top), bound, say) for size in SMALL]
    if not trials[0].fits:
        return MaxBatch(None, bound, "memory", trials)
    best = max((trial for trial in trials if trial.fits), key=lambda trial: trial.batch_size)
    for _ in range(ATTEMPTS):
        failed = min((trial.batch_size for trial in trials if not trial.fits), default=None)
        candidate = min(_extrapolated(trials, bound), top) if failed is None else (best.batch_size + failed) // 2
        if candidate <= best.batch_size + best.batch_size // FINE:
            break
        trials.append(_try(run, candidate, bound, say))
        best = trials[-1] if trials[-1].fits else best
    return MaxBatch(best.batch_size, bound, "the train split" if best.batch_size == top else "memory", trials)


def _extrapolated(trials: list[Trial], bound: int) -> int:
    """The batch at which the line through the two largest trials meets the bound, at most 8 times the largest."""
    measured = sorted({trial.batch_size: trial.peak for trial in trials if trial.peak is not None}.items())
    size, peak = measured[-1]
    if len(measured) < 2:
        return size
    before, peak_before = measured[-2]
    # A peak that grows less than samples do is mostly what does not depend on the batch; noise must not mislead.
    slope = max((peak - peak_before) / (size - before), peak / size / 4)
    return min(int(size + 0.95 * (bound - peak) / slope), 8 * size)
