"""A few real steps and evaluation batches on the real data path, timed: what an epoch will take."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time

import torch

from trainkit import loop
from trainkit.tasks.meter import sum_terms
from trainkit.training.run import Run
from trainkit.training.speed import GraphedStep

ENOUGH_SECONDS, ENOUGH_STEPS = 2.0, 50  # timing ends with the first of these, but not before
LEAST_STEPS = 3
EVAL_BATCHES = 10


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What was measured. Seconds of one training step (its batch included) and of one evaluation batch.

    data_wait: share of a step that went by waiting for its batch. first_loss: of the untrained model. no_gradient:
    parameters that got none. bad_steps: steps whose loss or gradient was not finite.
    """

    steps: int
    step_seconds: float
    data_wait: float
    eval_batches: int
    eval_seconds: float
    first_loss: float
    no_gradient: list[str]
    bad_steps: int


def tolerate_bad_steps(run: Run) -> None:
    """Have steps with numbers that are not finite counted and left out, where a training run may stop at the first."""
    run.guard.policy, run.max_skipped = "skip", sys.maxsize


def rehearse(run: Run) -> Rehearsal:
    """Time a few real steps after others that warm up, then a few batches of evaluation. Trains the run's model."""
    tolerate_bad_steps(run)
    meter = run.meter(False)
    warm_up = GraphedStep.WARM_UP + 2 if run.graphed is not None else 2
    first_loss = 0.0
    waited, steps, started = 0.0, -warm_up, time.perf_counter()
    for done in loop.steps(run):
        if steps == 0:
            _wait(run.device)
            waited, started = 0.0, time.perf_counter()
        waited += done.waited
        weight = run.loss_fn.weight(done.batch)
        meter.add(done.loss, done.outputs, done.batch.targets, weight=weight, count=len(done.batch))
        if run.step == 1:
            first_loss = float(sum_terms(done.loss))
            no_gradient = [name for name, p in run.model.named_parameters() if p.requires_grad and p.grad is None]
        steps += 1
        if steps >= LEAST_STEPS and (steps >= ENOUGH_STEPS or time.perf_counter() - started > ENOUGH_SECONDS):
            break
    _wait(run.device)
    seconds = time.perf_counter() - started
    eval_batches, eval_seconds = _time_evaluation(run)
    return Rehearsal(
        steps,
        seconds / steps,
        waited / seconds,
        eval_batches,
        eval_seconds,
        first_loss,
        sorted(no_gradient),
        int(run.guard.bad),
    )


def _time_evaluation(run: Run) -> tuple[int, float]:
    """(batches, seconds of one), with one batch beforehand to warm up. Data without val are timed on train."""
    loader = run.val or run.train
    count = min(EVAL_BATCHES, -(-loader.num_samples // loader.batch_size))
    for number in (1, count):
        started = time.perf_counter()
        part = itertools.islice(iter(loader), number)
        meter = run.meter(True)
        loop.evaluate(run.judged, run.judged_forward, run.loss_fn, part, meter, run.seed)  # waits for the device
    return count, (time.perf_counter() - started) / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
