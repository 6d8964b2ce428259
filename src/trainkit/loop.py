"""The story of training: everything that changes what is computed happens in this file, in this order.

    fit          epochs: train, evaluate, judge, record, save, perhaps stop early
    train_epoch  one pass over the training split, in the order fixed by (seed, epoch)
    train_step   forward, backward, guard, clip, step (`optimize`; as one CUDA graph where asked), moving average
    evaluate     one pass over a split, nothing changed

All that a later step depends on is in `Run`, and `state.py` saves it; all randomness is a function of (seed, epoch,
step). So a run may end between any two steps and go on in another process with the same bits. What only observes
(console, files) is a report sink; it gets facts and can give nothing back.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainkit.errors import Interrupted, NumericsError
from trainkit.losses import class_weight
from trainkit.metrics import Meter, Metrics
from trainkit.numerics import is_finite
from trainkit.randomness import reseed

if TYPE_CHECKING:
    from trainkit.averaging import Ema
    from trainkit.data.loaders import Loader
    from trainkit.numerics import Guard
    from trainkit.report.sinks import Report
    from trainkit.signals import Stop
    from trainkit.speed import Forward
    from trainkit.state import Checkpoints


log = logging.getLogger("trainkit")
ADVICE = "lower optim.lr, add warm-up (schedule.warmup=1) or set clip=1"
SMALLEST_SCALE = 2.0**-8  # of fp16's loss scale, which starts at 65,536 and is halved by every overflow
Step = tuple[torch.Tensor, torch.Tensor]  # the mean loss of a batch (0-dim), its outputs (N, C)


@dataclasses.dataclass
class Monitor:
    """The metric that chooses the best epoch; of equals, the one of lower loss. Not-a-number is never best."""

    metric: str
    mode: str  # "min" or "max"
    best: float | None = None
    best_loss: float = math.inf
    best_epoch: int = 0

    def record(self, value: float, loss: float, epoch: int) -> bool:
        """Take note of an epoch's value and loss; True when it is the best so far."""
        sign = -1 if self.mode == "max" else 1
        if math.isnan(value):
            return False
        if self.best is not None and (sign * value, loss) >= (sign * self.best, self.best_loss):
            return False
        self.best, self.best_loss, self.best_epoch = value, loss, epoch
        return True


@dataclasses.dataclass
class Run:
    """All that training needs, as `build.py` makes it. `epoch` and `step` count what is done.

    The first part is fixed; what changes from step to step is `model`, `ema`, `optimizer`, `scaler`, `guard` and the
    fields after `graphed`.
    """

    model: nn.Module
    forward: Forward  # the model's forward pass in the chosen precision, memory format and compilation
    parameters: list[nn.Parameter]
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    update: Callable[..., Any]  # the optimizer's step
    scaler: torch.amp.GradScaler | None
    guard: Guard
    ema: Ema | None
    judged: nn.Module  # what is evaluated: the moving average where one is kept, else the model
    judged_forward: Forward
    lr_factor: Callable[[int], float]
    train: Loader
    val: Loader | None
    device: torch.device
    meter: Callable[[bool], Meter]
    monitor: Monitor
    stop: Stop
    seed: int
    epochs: int
    patience: int | None
    clip: float | None
    accumulate: int
    max_skipped: int
    log_every: int
    graphed: Callable[[torch.Tensor, torch.Tensor], Step] | None = None
    epoch: int = 0
    step: int = 0
    sums: Meter | None = None  # of the epoch that has begun
    train_seconds: float = 0.0  # what the latest pass over the training split took
    data_wait: float = 0.0  # the share of it that was spent waiting for batches

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def steps_into_epoch(self) -> int:
        return self.step - self.epoch * self.train.steps_per_epoch

    @property
    def out_of_patience(self) -> bool:
        return self.patience is not None and self.epoch - self.monitor.best_epoch >= self.patience


def fit(run: Run, report: Report, checkpoints: Checkpoints) -> None:
    """Train until `epochs`, or until `patience` epochs brought nothing better; goes on from where `run` stands.

    Raises NumericsError when a loss, a gradient or a weight is not finite, and Interrupted, after saving, when a
    signal came; nothing that is not finite is ever saved.
    """
    try:
        while run.epoch < run.epochs and not run.out_of_patience:
            train = train_epoch(run, report, checkpoints)
            val = None
            if run.val is not None:
                meter = run.meter(True)
                val = evaluate(run.judged, run.judged_forward, run.loss_fn, run.val, meter, stop=run.stop)
            run.epoch += 1
            run.sums = None
            refuse_non_finite(run, train, val)
            judged = val or train
            is_best = run.monitor.record(_number(judged, run.monitor.metric), _number(judged, "loss"), run.epoch)
            report.epoch(run, train, val, is_best)
            checkpoints.end_epoch(run, {"train": train, "val": val}, is_best)
    except Interrupted:
        checkpoints.save(run)
        raise
    if run.epoch < run.epochs:
        report.note(f"stopped early: no better {run.monitor.metric} for {run.patience} epochs")
    if skipped := int(run.guard.bad):
        report.note(f"{skipped} of {run.step} steps skipped: the loss or a gradient was not finite")


def train_epoch(run: Run, report: Report, checkpoints: Checkpoints) -> Metrics:
    """The rest of an epoch, which is all of it unless the run was resumed within.

    Returns the loss and, for classes, the accuracy of the whole epoch, as seen while training.
    """
    run.model.train()
    run.sums = run.sums or run.meter(False)
    waited = 0.0
    started = asked = time.perf_counter()
    for inputs, targets in run.train.epoch(run.epoch, run.steps_into_epoch):
        waited += time.perf_counter() - asked
        loss, outputs = train_step(run, inputs, targets)
        run.sums.add(loss, outputs, targets, counted=run.guard.counted)
        run.step += 1
        if run.step % run.log_every == 0 or run.step == 1:
            refuse_bad_steps(run)
            report.step(run, float(loss))  # float(): waits for the device, hence only here
        report.tick(run)
        if checkpoints.due(run):
            checkpoints.save(run)
        run.stop.check()
        asked = time.perf_counter()
    refuse_bad_steps(run)
    metrics = run.sums.read()  # waits for the device too
    run.train_seconds = time.perf_counter() - started
    run.data_wait = waited / run.train_seconds
    return metrics


def train_step(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> Step:
    """One optimizer step on a batch; returns its mean loss and its outputs, both detached."""
    reseed(run.device, run.seed, "step", run.step)  # dropout depends on the step alone, not on what ran before
    factor = run.lr_factor(run.step)
    for group in run.optimizer.param_groups:
        set_lr(group, group["initial_lr"] * factor)
    result = run.graphed(inputs, targets) if run.graphed is not None else optimize(run, inputs, targets)
    if run.ema is not None:
        run.ema.update(run.step)
    return result


def optimize(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> Step:
    """Forward, backward, guard, clip, step."""
    if isinstance(run.optimizer, torch.optim.LBFGS):  # which evaluates the loss several times in one step
        passes: list[Step] = []

        def closure() -> torch.Tensor:
            passes.append(forward_backward(run, inputs, targets))
            clip_gradients(run)
            return passes[-1][0]

        run.update(closure)
        if not run.guard.passes(passes[0][0], run.parameters):
            refuse_bad_steps(run)
        return passes[0]
    run.guard.remember()
    result = forward_backward(run, inputs, targets)
    if run.scaler is None:
        if run.guard.passes(result[0], run.parameters):
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


def forward_backward(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> Step:
    """Put the gradients of a batch's mean loss into the parameters, in `accumulate` passes over parts of the batch."""
    for parameter in run.parameters:
        parameter.grad = None
    if run.accumulate == 1:
        return backward_part(run, inputs, targets, 1.0)
    parts = zip(inputs.chunk(run.accumulate), targets.chunk(run.accumulate), strict=True)
    steps = [backward_part(run, part, labels, share(run.loss_fn, labels, targets)) for part, labels in parts]
    return torch.stack([loss for loss, _ in steps]).sum(), torch.cat([outputs for _, outputs in steps])


def backward_part(run: Run, inputs: torch.Tensor, targets: torch.Tensor, weight: float | torch.Tensor) -> Step:
    """Add the gradients of `weight` times the mean loss of these samples; returns that and the outputs."""
    outputs = run.forward(inputs)
    loss: torch.Tensor = run.loss_fn(outputs, targets)
    if not (isinstance(weight, float) and weight == 1.0):
        loss = loss * weight
    scaled = loss if run.scaler is None else run.scaler.scale(loss)
    scaled.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), outputs.detach()


def share(loss_fn: nn.Module, part: torch.Tensor, whole: torch.Tensor) -> float | torch.Tensor:
    """How much the mean loss of a part counts in the mean loss of the batch: by samples, or by their class weights."""
    weight = class_weight(loss_fn)
    if weight is not None and whole.ndim == 1:
        return weight[part].sum() / weight[whole].sum()
    return len(part) / len(whole)


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
    loss_fn: nn.Module,
    loader: Loader,
    meter: Meter,
    *,
    mirror: bool = False,
    stop: Stop | None = None,
    collect: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> Metrics:
    """The metrics of a split: every sample once, in order, nothing dropped and nothing augmented.

    mirror: judge the mean of the outputs for each image and its left-right mirror image. collect: is given the outputs
    and the targets of each batch.
    """
    model.eval()
    for inputs, targets in loader:
        if stop is not None:
            stop.check()
        outputs = forward(inputs)
        if mirror:
            outputs = (outputs + forward(inputs.flip(-1))) / 2
        meter.add(loss_fn(outputs, targets), outputs, targets)
        if collect is not None:
            collect(outputs, targets)
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
    lr = run.lr if run.step == first else run.optimizer.param_groups[0]["initial_lr"] * run.lr_factor(first)
    samples = run.train.samples(epoch, into)
    shown = ", ".join(samples[:8]) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
    where = f"step {first + 1} (epoch {epoch + 1}, lr {lr:g}; train samples {shown})"
    count = "" if bad == 1 else f", the first of {bad} such steps"
    log.error("step %d trained on these train samples: %s", first + 1, ", ".join(samples))
    return f"the loss or a gradient is not finite in {where}{count}; {ADVICE}, or on_nonfinite=skip"


def refuse_non_finite(run: Run, train: Metrics, val: Metrics | None) -> None:
    """Raise NumericsError unless the losses of the epoch and all weights are finite."""
    where = f"by step {run.step}, lr {run.lr:g}"
    for split, metrics in (("train", train), ("val", val)):
        if metrics is not None and not math.isfinite(_number(metrics, "loss")):
            raise NumericsError(f"the {split} loss is {metrics['loss']} in epoch {run.epoch} ({where}); {ADVICE}")
    for name, tensor in run.judged.state_dict().items():
        if not is_finite(tensor):
            raise NumericsError(f"the weights {name} are not finite in epoch {run.epoch} ({where}); {ADVICE}")


def _number(metrics: Metrics, name: str) -> float:
    value = metrics[name]
    assert isinstance(value, (int, float))
    return float(value)
