"""The story of training: everything that changes what is computed happens in this file, in this order.

    fit          epochs: train, evaluate, judge, record, save, perhaps stop early
    train_epoch  one pass over the training split, in the order fixed by (seed, epoch)
    train_step   forward, backward, clip, step (`optimize`; as one CUDA graph where asked)
    evaluate     one pass over a split, nothing changed

What only observes (console, files) is a report sink; it gets facts and can give nothing back.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainkit.errors import NumericsError
from trainkit.metrics import Meter, Metrics
from trainkit.randomness import reseed

if TYPE_CHECKING:
    from trainkit.build import Checkpoints
    from trainkit.data.loaders import Loader
    from trainkit.report.sinks import Report
    from trainkit.speed import Forward


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
    """All that training needs, as `build.py` makes it. `epoch` and `step` count what is done."""

    model: nn.Module
    forward: Forward  # the model's forward pass in the chosen precision, memory format and compilation
    parameters: list[nn.Parameter]
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    update: Callable[..., Any]  # the optimizer's step
    scaler: torch.amp.GradScaler | None
    lr_factor: Callable[[int], float]
    train: Loader
    val: Loader | None
    device: torch.device
    meter: Callable[[bool], Meter]
    monitor: Monitor
    seed: int
    epochs: int
    patience: int | None
    clip: float | None
    accumulate: int
    log_every: int
    graphed: Callable[[torch.Tensor, torch.Tensor], Step] | None = None
    epoch: int = 0
    step: int = 0
    train_seconds: float = 0.0  # what the latest pass over the training split took
    data_wait: float = 0.0  # the share of it that was spent waiting for batches

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


def fit(run: Run, report: Report, checkpoints: Checkpoints) -> None:
    """Train until `epochs`, or until `patience` epochs brought nothing better.

    Raises NumericsError when a loss or a weight is not finite; the checkpoints then hold the last good epoch.
    """
    while run.epoch < run.epochs:
        train = train_epoch(run, report)
        run.epoch += 1
        val = evaluate(run.model, run.forward, run.loss_fn, run.val, run.meter(True)) if run.val else None
        refuse_non_finite(run, train, val)
        judged = val or train
        is_best = run.monitor.record(_number(judged, run.monitor.metric), _number(judged, "loss"), run.epoch)
        checkpoints.save(run, train, val, is_best)
        report.epoch(run, train, val, is_best)
        if run.patience is not None and run.epoch - run.monitor.best_epoch >= run.patience:
            report.note(f"stopped early: no better {run.monitor.metric} for {run.patience} epochs")
            break


def train_epoch(run: Run, report: Report) -> Metrics:
    """One pass over the training split; returns its loss and, for classes, its accuracy, as seen while training."""
    run.model.train()
    meter = run.meter(False)
    waited = 0.0
    started = asked = time.perf_counter()
    for inputs, targets in run.train.epoch(run.epoch, run.step):
        waited += time.perf_counter() - asked
        loss, outputs = train_step(run, inputs, targets)
        meter.add(loss, outputs, targets)
        run.step += 1
        if run.step % run.log_every == 0 or run.step == 1:
            report.step(run, float(loss))  # float(): waits for the device, hence only here
        asked = time.perf_counter()
    metrics = meter.read()  # waits for the device too
    run.train_seconds = time.perf_counter() - started
    run.data_wait = waited / run.train_seconds
    return metrics


def train_step(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> Step:
    """One optimizer step on a batch; returns its mean loss and its outputs, both detached."""
    reseed(run.device, run.seed, "step", run.step)  # dropout depends on the step alone, not on what ran before
    factor = run.lr_factor(run.step)
    for group in run.optimizer.param_groups:
        set_lr(group, group["initial_lr"] * factor)
    return run.graphed(inputs, targets) if run.graphed is not None else optimize(run, inputs, targets)


def optimize(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> Step:
    """Forward, backward, clip, step."""
    if isinstance(run.optimizer, torch.optim.LBFGS):  # which evaluates the loss several times in one step
        passes: list[Step] = []

        def closure() -> torch.Tensor:
            passes.append(forward_backward(run, inputs, targets))
            clip_gradients(run)
            return passes[-1][0]

        run.update(closure)
        return passes[0]
    result = forward_backward(run, inputs, targets)
    if run.scaler is None:
        clip_gradients(run)
        run.update()
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
    weight = getattr(loss_fn, "weight", None)
    if isinstance(weight, torch.Tensor) and whole.ndim == 1:
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
    model: nn.Module, forward: Forward, loss_fn: nn.Module, loader: Loader, meter: Meter, *, mirror: bool = False
) -> Metrics:
    """The metrics of a split: every sample once, in order, nothing dropped and nothing augmented.

    mirror: judge the mean of the outputs for each image and its left-right mirror image.
    """
    model.eval()
    for inputs, targets in loader:
        outputs = forward(inputs)
        if mirror:
            outputs = (outputs + forward(inputs.flip(-1))) / 2
        meter.add(loss_fn(outputs, targets), outputs, targets)
    return meter.read()


def refuse_non_finite(run: Run, train: Metrics, val: Metrics | None) -> None:
    """Raise NumericsError unless the losses of the epoch and all weights are finite."""
    for split, metrics in (("train", train), ("val", val)):
        if metrics is not None and not math.isfinite(_number(metrics, "loss")):
            raise NumericsError(f"the {split} loss is {metrics['loss']} in epoch {run.epoch} {_where(run)}")
    for name, tensor in run.model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise NumericsError(f"the weights {name} are not finite in epoch {run.epoch} {_where(run)}")


def _where(run: Run) -> str:
    return f"(by step {run.step}, lr {run.lr:g}); lower optim.lr, add warm-up (schedule.warmup=1), or set clip=1"


def _number(metrics: Metrics, name: str) -> float:
    value = metrics[name]
    assert isinstance(value, (int, float))
    return float(value)
