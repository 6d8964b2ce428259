"""The story of training: everything that changes what is computed happens in this file, in this order.

    fit          epochs: train, evaluate, judge, record, save, perhaps stop early
    train_epoch  one pass over the training split, in the order fixed by (seed, epoch)
    train_step   forward, backward, guard, clip, step (`optimize`; as one CUDA graph where asked), moving average
    evaluate     one pass over a split, nothing changed

All that a later step depends on is in `Run`, and `checkpoints/` saves it; all randomness is a function of (seed, epoch,
step). So a run may end between any two steps and go on in another process with the same bits. What only observes
(console, files) is a sink; it gets facts and can give nothing back.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from trainkit.data.batch import Batch, map_tree
from trainkit.errors import Interrupted, NumericsError
from trainkit.loggers.facts import EpochFacts, StepFacts
from trainkit.randomness import reseed
from trainkit.tasks.meter import Meter, Metrics, Terms, sum_terms
from trainkit.training.guard import is_finite
from trainkit.training.run import LAST, Run, Step

if TYPE_CHECKING:
    from trainkit.loggers.sinks import Report
    from trainkit.losses.base import Loss
    from trainkit.training.signals import Stop
    from trainkit.training.speed import Forward


log = logging.getLogger("trainkit")
ADVICE = "lower optim.lr, add warm-up (schedule.warmup=1) or set clip=1"
SMALLEST_SCALE = 2.0**-8  # of fp16's loss scale, which starts at 65,536 and is halved by every overflow


class Saver(Protocol):
    """What keeps the run; it decides when, and changes nothing."""

    def due(self, run: Run) -> bool: ...
    def save(self, run: Run) -> None: ...
    def end_epoch(self, run: Run, metrics: dict[str, Metrics | None], is_best: bool) -> None: ...


def fit(run: Run, report: Report, checkpoints: Saver) -> None:
    """Train until `epochs`, or until `patience` epochs brought nothing better; goes on from where `run` stands.

    Raises NumericsError when a loss, a gradient or a weight is not finite, and Interrupted, after saving, when a
    signal came; nothing that is not finite is ever saved.
    """
    try:
        while run.epoch < run.epochs and not run.out_of_patience:
            # train and evaluate
            train = train_epoch(run, report, checkpoints)
            val = None
            if run.val is not None:
                meter = run.meter(True)
                val = evaluate(run.judged, run.judged_forward, run.loss_fn, run.val, meter, run.seed, stop=run.stop)
            run.epoch += 1
            run.sums = None
            refuse_non_finite(run, train, val)

            # judge, record, save
            judged = train if val is None else val
            value = float(run.epoch) if run.monitor.metric == LAST else judged[run.monitor.metric]
            is_best = run.monitor.record(value, judged["loss"], run.epoch)
            run.history.append(value)
            facts = EpochFacts(run.epoch, run.step, run.lr, train, val, is_best, run.train_seconds, run.data_wait)
            report.epoch(facts)
            checkpoints.end_epoch(run, {"train": train, "val": val}, is_best)
    except Interrupted:
        checkpoints.save(run)
        raise
    if run.epoch < run.epochs:
        report.note(f"stopped early: no better {run.monitor.metric} for {run.patience} epochs")
    if skipped := int(run.guard.bad):
        report.note(f"{skipped} of {run.step} steps skipped: the loss or a gradient was not finite")


def train_epoch(run: Run, report: Report, checkpoints: Saver) -> Metrics:
    """The rest of an epoch, which is all of it unless the run was resumed within.

    Returns the metrics of the whole epoch that training can afford, as seen while training.
    """
    run.train_mode()
    run.sums = sums = run.sums or run.meter(False)
    # on a CPU observers may look at the sums whenever they like; elsewhere that would make the device wait
    look = sums.read if run.device.type == "cpu" else None
    waited = 0.0
    started = time.perf_counter()
    for batch, seconds in timed(run.train.epoch(run.epoch, run.steps_into_epoch)):
        waited += seconds
        loss, outputs = train_step(run, batch)
        weight, counted = run.loss_fn.weight(batch), run.guard.counted
        sums.add(loss, outputs, batch.targets, weight=weight, count=len(batch), counted=counted)
        if run.step % run.log_every == 0 or run.step == 1:
            refuse_bad_steps(run)
            mean = float(sum_terms(loss))  # waits for the device, hence only here
            report.step(StepFacts(run.step, run.epoch + 1, mean, run.lr, sums.read))
        report.tick(run.step, look)
        if checkpoints.due(run):
            checkpoints.save(run)
        run.stop.check()
    refuse_bad_steps(run)
    metrics = sums.read()  # waits for the device too
    run.train_seconds = time.perf_counter() - started
    run.data_wait = waited / run.train_seconds
    return metrics


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Batches, and the seconds that each was waited for."""
    asked = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - asked
        asked = time.perf_counter()


@dataclasses.dataclass(slots=True)
class Done:
    """A training step that was made: its batch, mean loss and outputs, and the seconds that it waited for the batch."""

    batch: Batch
    loss: Terms
    outputs: torch.Tensor
    waited: float


def steps(run: Run) -> Iterator[Done]:
    """Make training steps, epoch after epoch, for who asks a question; nothing is evaluated, saved or reported."""
    while True:
        run.train_mode()
        for batch, waited in timed(run.train.epoch(run.epoch, run.steps_into_epoch)):
            loss, outputs = train_step(run, batch)
            yield Done(batch, loss, outputs, waited)
        run.epoch += 1


def train_step(run: Run, batch: Batch) -> Step:
    """One optimizer step on a batch; returns its mean loss and its outputs, both detached."""
    reseed(run.device, run.seed, "step", run.step)  # dropout depends on the step alone, not on what ran before
    factor = run.lr_factor(run.step)
    for group in run.optimizer.param_groups:
        set_lr(group, group["initial_lr"] * factor)
    result = run.graphed(batch) if run.graphed is not None else optimize(run, batch)
    if run.ema is not None:
        run.ema.update(run.step)
    run.step += 1
    return result


def optimize(run: Run, batch: Batch) -> Step:
    """Forward, backward, guard, clip, step."""
    if isinstance(run.optimizer, torch.optim.LBFGS):  # which evaluates the loss several times in one step
        return optimize_by_search(run, batch)
    run.guard.remember()
    result = forward_backward(run, batch)
    if run.scaler is None:
        if run.guard.passes(sum_terms(result[0]), run.parameters):
            clip_gradients(run)
            run.update()
        else:
            refuse_bad_steps(run)
    else:
        run.scaler.unscale_(run.optimizer)
        clip_gradients(run)
        run.scaler.step(run.optimizer)
        run.scaler.update()
    return result


def optimize_by_search(run: Run, batch: Batch) -> Step:
    """A step of L-BFGS, which asks for the loss and its gradients at as many points as it needs."""
    passes: list[Step] = []

    def closure() -> torch.Tensor:
        passes.append(forward_backward(run, batch))
        clip_gradients(run)
        return sum_terms(passes[-1][0])

    run.update(closure)
    if not run.guard.passes(sum_terms(passes[0][0]), run.parameters):
        refuse_bad_steps(run)
    return passes[0]


def forward_backward(run: Run, batch: Batch) -> Step:
    """Put the gradients of a batch's mean loss into the parameters, in `accumulate` passes over parts of the batch."""
    for parameter in run.parameters:
        parameter.grad = None
    if run.accumulate == 1:
        return backward_part(run, batch, 1.0)
    whole = run.loss_fn.weight(batch)
    parts = batch.chunk(run.accumulate)
    done = [backward_part(run, part, share(run.loss_fn.weight(part), whole, run.device)) for part in parts]
    return add_losses([loss for loss, _ in done]), torch.cat([outputs for _, outputs in done])


def share(part: float | torch.Tensor, whole: float | torch.Tensor, device: torch.device) -> float | torch.Tensor:
    """How much the mean of a part counts in the mean of its batch; a tensor where it may be 0, or 0 / 0."""
    return part / whole if isinstance(part, torch.Tensor) or part else torch.zeros((), device=device) / whole


def backward_part(run: Run, batch: Batch, share: float | torch.Tensor) -> Step:
    """Add the gradients of the mean loss of these samples, times their share; returns that and the outputs."""
    outputs = run.forward(batch.inputs)
    loss = run.loss_fn(outputs, batch)
    if isinstance(share, torch.Tensor):
        nothing = share == 0  # the mean over samples that all weigh nothing is 0 / 0, and so are its gradients
        outputs.register_hook(lambda gradient: gradient.masked_fill(nothing, 0))  # type: ignore[no-untyped-call]
        loss = map_tree(lambda term: (term * share).masked_fill(nothing, 0), loss)
    elif share != 1.0:
        loss = map_tree(lambda term: term * share, loss)
    total = sum_terms(loss)
    scaled = total if run.scaler is None else run.scaler.scale(total)
    scaled.backward()  # type: ignore[no-untyped-call]
    return map_tree(torch.Tensor.detach, loss), outputs.detach()


def add_losses(parts: list[Terms]) -> Terms:
    """The sum of the losses of parts, term by term."""
    first = parts[0]
    if isinstance(first, dict):
        return {name: torch.stack([part[name] for part in parts]).sum() for name in first}  # type: ignore[index]
    return torch.stack(parts).sum()  # type: ignore[arg-type]


def clip_gradients(run: Run) -> None:
    """Scale the gradients down to a norm of at most `clip`."""
    if run.clip is not None:
        nn.utils.clip_grad_norm_(run.parameters, run.clip)


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Set a parameter group's learning rate; in place where a CUDA graph reads it from the device."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    forward: Forward,
    loss_fn: Loss,
    batches: Iterable[Batch],
    meter: Meter,
    seed: int,
    *,
    stop: Stop | None = None,
    collect: Callable[[torch.Tensor, Batch], None] | None = None,
) -> Metrics:
    """The metrics of a split: every sample once, in order, nothing dropped and nothing augmented.

    seed: what a model draws in its forward pass is a function of it and of the batch's number, not of what ran before.
    collect: is given the outputs of each batch, and the batch.
    """
    model.eval()
    for number, batch in enumerate(batches):
        if stop is not None:
            stop.check()
        reseed(meter.device, seed, "eval", number)
        outputs = forward(batch.inputs)
        loss = loss_fn(outputs, batch)
        meter.add(loss, outputs, batch.targets, weight=loss_fn.weight(batch), count=len(batch))
        if collect is not None:
            collect(outputs, batch)
    return meter.read()


def refuse_bad_steps(run: Run) -> None:
    """Raise NumericsError when the guard saw a bad step, or more than may be skipped. Waits for the device."""
    if run.scaler is not None and run.scaler.get_scale() < SMALLEST_SCALE:
        raise NumericsError(f"precision=fp16: hardly any step had finite gradients up to step {run.step}; {ADVICE}")
    bad, first = int(run.guard.bad), int(run.guard.first)
    if bad > (run.max_skipped if run.guard.policy == "skip" else 0):
        raise NumericsError(describe_bad_step(run, bad, first))


def describe_bad_step(run: Run, bad: int, first: int) -> str:
    """Which step first had a loss or gradient that is not finite, at which lr, on which samples."""
    epoch, into = divmod(first, run.train.steps_per_epoch)
    samples = run.train.samples(epoch, into)
    shown = ", ".join(samples[:8]) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
    where = f"step {first + 1} (epoch {epoch + 1}, lr {run.base_lr * run.lr_factor(first):g}; train samples {shown})"
    count = "" if bad == 1 else f", the first of {bad} such steps"
    log.error("step %d trained on these train samples: %s", first + 1, ", ".join(samples))
    return f"the loss or a gradient is not finite in {where}{count}; {ADVICE}, or on_nonfinite=skip"


def refuse_non_finite(run: Run, train: Metrics, val: Metrics | None) -> None:
    """Raise NumericsError unless the losses of the epoch and all weights are finite."""
    where = f"by step {run.step}, lr {run.lr:g}"
    for split, metrics in (("train", train), ("val", val)):
        if metrics is not None and not math.isfinite(metrics["loss"]):
            raise NumericsError(f"the {split} loss is {metrics['loss']} in epoch {run.epoch} ({where}); {ADVICE}")
    for name, tensor in run.judged.state_dict().items():
        if not is_finite(tensor):
            raise NumericsError(f"the weights {name} are not finite in epoch {run.epoch} ({where}); {ADVICE}")
