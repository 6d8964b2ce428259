"""What sinks are told of a run: facts, never the run itself, so that no observer can change it or make it wait."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

from trainkit.tasks.base import Metric

Metrics = dict[str, float]
Read = Callable[[], Metrics]  # the metrics of the epoch so far


@dataclasses.dataclass(frozen=True)
class Plan:
    """The run that begins, or goes on after `step` steps.

    epochs, steps_per_epoch, batch_size: its size. judged_by: the split whose `monitor` chooses the best epoch. metrics:
    what is measured. hint: what helps when the model waits for data.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    step: int
    judged_by: str
    monitor: str
    metrics: list[Metric]
    hint: str | None = None

    @functools.cached_property
    def words(self) -> dict[str, str]:
        """Of the metrics that an epoch's line shows, the short names by their own."""
        return {metric.name: metric.short for metric in self.metrics if metric.short is not None}


@dataclasses.dataclass(frozen=True, slots=True)
class StepFacts:
    """A logged step, 1 for the first, of an epoch, 1 for the first: the mean loss of its batch, and its lr.

    read: the device has been waited for, so that reading costs little; to be called before the sink returns.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    read: Read


@dataclasses.dataclass(frozen=True)
class EpochFacts:
    """An epoch, 1 for the first, that ended with `step`.

    val: None where there is no val split. train_seconds: of the pass over the training split, without evaluation and
    saving. data_wait: the share of it that was spent waiting for batches.
    """

    epoch: int
    step: int
    lr: float
    train: Metrics
    val: Metrics | None
    is_best: bool
    train_seconds: float
    data_wait: float

    @property
    def judged(self) -> Metrics:
        return self.val or self.train

    @property
    def numbers(self) -> dict[str, float]:
        """All metrics, as `train/loss` and `val/accuracy`."""
        found = {f"train/{name}": value for name, value in self.train.items()}
        return found | {f"val/{name}": value for name, value in (self.val or {}).items()}
