"""The story of training: everything that changes what is computed happens in this file, in this order.

    fit          epochs: train, evaluate, judge, record, save, perhaps stop early
    train_epoch  one pass over the training split, in the order fixed by (seed, epoch)
    train_step   forward, backward, clip, step
    evaluate     one pass over a split, nothing changed

What only observes (console, files) is a report sink; it gets facts and can give nothing back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainkit.errors import NumericsError
from trainkit.metrics import Meter, Metrics
from trainkit.randomness import reseed

if TYPE_CHECKING:
    from trainkit.build import Checkpoints
    from trainkit.data.loaders import ResidentLoader
    from trainkit.report.sinks import Report


@dataclasses.dataclass
class Monitor:
    """The metric that chooses the best epoch. Not-a-number is never best."""

    metric: str
    mode: str  # "min" or "max"
    best: float | None = None
    best_epoch: int = 0

    def record(self, value: float, epoch: int) -> bool:
        """Take note of an epoch's value; True when it is the best so far."""
        sign = 1 if self.mode == "max" else -1
        if math.isnan(value) or (self.best is not None and sign * value <= sign * self.best):
            return False
        self.best, self.best_epoch = value, epoch
        return True


@dataclasses.dataclass
class Run:
    """All that training needs, as `build.py` makes it. `epoch` and `step` count what is done."""

    model: nn.Module
    loss_fn: nn.Module
    optimizer: torch.optim.Optimizer
    update: Callable[..., Any]  # the optimizer's step
    lr_factor: Callable[[int], float]
    train: ResidentLoader
    val: ResidentLoader | None
    device: torch.device
    meter: Callable[[bool], Meter]
    monitor: Monitor
    seed: int
    epochs: int
    patience: int | None
    clip: float | None
    log_every: int
    epoch: int = 0
    step: int = 0

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
        val = evaluate(run.model, run.loss_fn, run.val, run.meter(True)) if run.val else None
        refuse_non_finite(run, train, val)
        is_best = run.monitor.record(_number(val or train, run.monitor.metric), run.epoch)
        checkpoints.save(run, train, val, is_best)
        report.epoch(run, train, val, is_best)
        if run.patience is not None and run.epoch - run.monitor.best_epoch >= run.patience:
            report.note(f"stopped early: no better {run.monitor.metric} for {run.patience} epochs")
            break


def train_epoch(run: Run, report: Report) -> Metrics:
    """One pass over the training split; returns its loss and, for classes, its accuracy, as seen while training."""
    run.model.train()
    meter = run.meter(False)
    for inputs, targets in run.train.epoch(run.epoch, run.step):
        loss, outputs = train_step(run, inputs, targets)
        meter.add(loss, outputs, targets)
        run.step += 1
        if run.step % run.log_every == 0:
            report.step(run, float(loss))  # float(): waits for the device, hence only here
    return meter.read()


def train_step(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward, backward and one optimizer step; returns the batch's mean loss and its outputs, both detached."""
    reseed(run.device, run.seed, "step", run.step)  # dropout depends on the step alone, not on what ran before
    factor = run.lr_factor(run.step)
    for group in run.optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    if isinstance(run.optimizer, torch.optim.LBFGS):  # which evaluates the loss several times in one step
        passes: list[tuple[torch.Tensor, torch.Tensor]] = []

        def closure() -> torch.Tensor:
            passes.append(forward_backward(run, inputs, targets))
            return passes[-1][0]

        run.update(closure)
        return passes[0]
    result = forward_backward(run, inputs, targets)
    run.update()
    return result


def forward_backward(run: Run, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the gradients of a batch's mean loss, clipped, into the parameters; returns the loss and the outputs."""
    for parameter in run.model.parameters():
        parameter.grad = None
    outputs: torch.Tensor = run.model(inputs)
    loss: torch.Tensor = run.loss_fn(outputs, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    if run.clip is not None:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.clip)
    return loss.detach(), outputs.detach()


@torch.inference_mode()
def evaluate(
    model: nn.Module, loss_fn: nn.Module, loader: ResidentLoader, meter: Meter, *, mirror: bool = False
) -> Metrics:
    """The metrics of a split: every sample once, in order, nothing dropped and nothing augmented.

    mirror: judge the mean of the outputs for each image and its left-right mirror image.
    """
    model.eval()
    for inputs, targets in loader:
        outputs = model(inputs)
        if mirror:
            outputs = (outputs + model(inputs.flip(-1))) / 2
        meter.add(loss_fn(outputs, targets), outputs, targets)
    return meter.read()


def refuse_non_finite(run: Run, train: Metrics, val: Metrics | None) -> None:
    """Raise NumericsError unless the losses of the epoch and all weights are finite."""
    for split, metrics in (("train", train), ("val", val)):
        if metrics is not None and not math.isfinite(_number(metrics, "loss")):
            raise NumericsError(f"the {split} loss is {metrics['loss']} in epoch {run.epoch} (by {_where(run)})")
    for name, tensor in run.model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise NumericsError(f"the weights {name} are not finite in epoch {run.epoch} (by {_where(run)})")


def _where(run: Run) -> str:
    return f"step {run.step}, lr {run.lr:g}); lower optim.lr, add warm-up (schedule.warmup=1), or set clip=1"


def _number(metrics: Metrics, name: str) -> float:
    value = metrics[name]
    assert isinstance(value, (int, float))
    return float(value)
