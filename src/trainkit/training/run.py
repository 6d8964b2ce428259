"""All that training needs and changes, in one place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from trainkit.data.batch import Batch
from trainkit.data.dataset import Data
from trainkit.data.loaders import Loader
from trainkit.errors import ConfigError
from trainkit.losses.base import Loss
from trainkit.optim.finetune import Frozen
from trainkit.tasks.base import Metric
from trainkit.tasks.meter import Meter, Terms
from trainkit.training.ema import Ema
from trainkit.training.guard import Guard
from trainkit.training.signals import Stop
from trainkit.training.speed import Forward

LAST = "last"  # the monitor that takes every epoch for the best so far
Step = tuple[Terms, torch.Tensor]  # the mean loss of a batch (0-dim), or its terms, and its outputs (N, …)


@dataclasses.dataclass
class Monitor:
    """The metric that chooses the best epoch; of equals, the one of lower loss. Not-a-number is never best."""

    metric: str = "loss"
    mode: str = "min"  # or "max"
    best: float | None = None
    best_loss: float = math.inf
    best_epoch: int = 0

    @classmethod
    def of(cls, asked: str, metrics: Sequence[Metric], usual: str) -> Monitor:
        """The metric and direction of `auto`, which is the usual one, `macro_f1`, `val/loss`, `loss:min`; or of `last`.

        Raises ConfigError for any other than these metrics.
        """
        name, _, mode = asked.partition(":")
        if asked == LAST:
            return cls(LAST, "max")
        name = usual if name in ("auto", "val/auto") else name.removeprefix("val/")
        known = {one.name: one for one in metrics if one.only is None}
        if name not in known or mode not in ("", "min", "max"):
            choices = ", ".join(["auto", *known, LAST])
            raise ConfigError(f"monitor={asked}: choose from: {choices}; with :min or :max if need be")
        return cls(name, mode or known[name].better)

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
    """All that training needs, as `building` makes it. `epoch` and `step` count what is done.

    The first part is fixed; what changes from step to step is `model`, `ema`, `optimizer`, `scaler`, `guard` and the
    fields after `graphed`.
    """

    model: nn.Module
    module: nn.Module  # what a step runs: the model, or its head on the features of a frozen backbone
    data: Data  # what a step reads: the samples, or those features
    forward: Forward  # the module's forward pass in the chosen precision, memory format and compilation
    parameters: list[nn.Parameter]
    loss_fn: Loss
    optimizer: torch.optim.Optimizer
    base_lr: float  # that the schedule's factors are on; a parameter group may have a multiple of it
    update: Callable[..., Any]  # the optimizer's step
    scaler: torch.amp.GradScaler | None
    guard: Guard
    ema: Ema | None
    judged: nn.Module  # what is evaluated: the moving average where one is kept, else the model
    judged_forward: Forward
    lr_factor: Callable[[int], float]  # of a step, and perhaps of `history` up to its epoch
    train: Loader
    val: Loader | None
    device: torch.device
    meter: Callable[[bool], Meter]
    stop: Stop
    seed: int
    epochs: int
    patience: int | None
    clip: float | None
    accumulate: int
    max_skipped: int
    log_every: int
    graphed: Callable[[Batch], Step] | None = None
    frozen: Frozen | None = None  # what `finetune` keeps from being trained, at first or for good
    origin: dict[str, Any] | None = None  # of the initial weights, where they are not the seed's
    metrics: list[Metric] = dataclasses.field(default_factory=list)  # of a full meter
    monitor: Monitor = dataclasses.field(default_factory=Monitor)
    epoch: int = 0
    step: int = 0
    history: list[float] = dataclasses.field(default_factory=list)  # the monitor's value of each epoch
    sums: Meter | None = None  # of the epoch that has begun
    train_seconds: float = 0.0  # what the latest pass over the training split took
    data_wait: float = 0.0  # the share of it that was spent waiting for batches

    def train_mode(self) -> None:
        """Put the model into training mode, and what is frozen in this epoch into evaluation mode."""
        self.model.train()
        if self.frozen is not None:
            self.frozen.enter(self.epoch)

    @property
    def lr(self) -> float:
        """The lr of the latest step."""
        return self.base_lr * self.lr_factor(max(self.step - 1, 0))

    @property
    def steps_into_epoch(self) -> int:
        return self.step - self.epoch * self.train.steps_per_epoch

    @property
    def out_of_patience(self) -> bool:
        return self.patience is not None and self.epoch - self.monitor.best_epoch >= self.patience

    @property
    def judged_by(self) -> str:
        """The split whose numbers choose the best epoch."""
        return "train" if self.val is None else "val"
