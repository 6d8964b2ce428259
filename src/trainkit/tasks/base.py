"""The contract of a task, and of its metrics. Reading this file needs no torch.

A task has no state, no model and no step. It is found by its name in the registry, so that a plug-in's is as good as
ours, and everything but three methods has a default that leaves something out.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainkit import registry
from trainkit.data.spec import DataSpec, TargetSpec
from trainkit.errors import ConfigError, kind_of, unknown
from trainkit.text import written

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trainkit.plots.draw import Panel
    from trainkit.statistics import Difference

Numbers = dict[str, "NDArray[Any]"]  # the arrays that were kept of a pass, or the sums of one, by name


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of a split. better: which way. unit: a share of 1, shown in percent, or any other number.

    short: its word on an epoch's line; None: only in the result. title: how a person writes it, where that is not its
    name with spaces. only: the split that it means something of; None: any.
    """

    name: str
    better: Literal["max", "min"]
    unit: Literal["share", "number"] = "number"
    short: str | None = None
    title: str | None = None
    only: str | None = None


SMALL_VAL = 100  # samples, below which one of them moves a share by more than a percent
LOSS = Metric("loss", "min", short="loss")


class Sum:
    """Tensors that add up over batches (and over ranks), and the metrics that are read from their totals.

    metrics: what `read` gives. names: of the sums; they must be this sum's alone. kept: names of what `keep` gives, for
    metrics that need all samples at once.
    """

    metrics: Sequence[Metric] = ()
    kept: Sequence[str] = ()

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        """The sums of no sample. real: the type for sums of real numbers; counts are int64."""
        raise NotImplementedError

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Any) -> None:
        """Add a batch to the sums, in place and without waiting for the device.

        outputs: what the model gave. targets: as the loss gets them.
        """
        raise NotImplementedError

    def keep(self, outputs: Tensor, targets: Any) -> dict[str, Tensor]:
        """What is kept of every sample of a batch, (N, …) each, by the names in `kept`.

        Batches are joined, where sums add up. A batch that is left out is filled with -1. Of more than a meter keeps
        nothing is left: `read` then finds arrays of no sample.
        """
        return {}

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        """The metrics of `count` samples with these totals, and what was kept."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Mean(Sum):
    """The simplest sum: the mean over samples of what a function gives for each.

    values: (outputs, targets) -> (N,) of any real type.
    """

    metric: Metric
    values: Callable[[Tensor, Any], Tensor]

    @property
    def metrics(self) -> Sequence[Metric]:  # type: ignore[override]
        return (self.metric,)

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        import torch

        return {self.metric.name: torch.zeros((), dtype=real, device=device)}

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Any) -> None:
        total = sums[self.metric.name]
        total.add_(self.values(outputs, targets).sum(dtype=total.dtype))

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        return {self.metric.name: float(sums[self.metric.name]) / count}


@dataclasses.dataclass(frozen=True)
class Table:
    """heads: of the columns. rows: a cell for each of them. note: what else must be said."""

    heads: list[str]
    rows: list[list[Any]]
    title: str | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report. panels: by the name of their file. note: how they are read."""

    title: str
    panels: dict[str, list[Panel]] = dataclasses.field(default_factory=dict)
    tables: list[Table] = dataclasses.field(default_factory=list)
    note: str | None = None


class Task:
    """What a target means. The bare class leaves out all that may be left out: it stands for tasks that are not known.

    losses: names of the losses that can train it, the usual one first; a plug-in's loss says so itself, by `serves`.
    monitor: the metric that chooses the best epoch where the user says nothing.
    mixed: the task whose targets the mixing of samples makes of these; None: they cannot be mixed.
    headline: the metric that a report calls the result; None: see `tasks.metrics.headline`.
    labeled: whether `check` lets only targets pass that are the number of a class, (N,), so that no loss ignores one.
    output: what a model's outputs are called. ranks: whether `topk` of its classes can be told, the likeliest first.
    """

    name: ClassVar[str] = ""
    losses: ClassVar[tuple[str, ...]] = ()
    monitor: ClassVar[str] = "loss"
    mixed: ClassVar[str | None] = None
    headline: ClassVar[str | None] = None
    labeled: ClassVar[bool] = False
    output: ClassVar[str] = "outputs"
    ranks: ClassVar[bool] = False

    # data, in NumPy ----------------------------------------------------------------------------------------------

    def check_target(self, target: TargetSpec, where: str) -> None:
        """Raise DataError beginning with `where` for a target that no samples can have: it has too few classes."""

    def check(self, targets: NDArray[Any], target: TargetSpec, where: str) -> None:
        """Raise DataError beginning with `where`, and naming the row, for targets that are not this task's."""
        raise NotImplementedError

    def num_outputs(self, target: TargetSpec) -> int:
        """How many numbers a model must give per sample."""
        raise NotImplementedError

    def output_shape(self, target: TargetSpec) -> tuple[int, ...] | None:
        """The shape of a model's outputs for one sample, where only one will do."""
        return None

    def strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        """What each sample (N,) is counted as when a random share of each kind is held out; None: all are alike."""
        return None

    def reorder(self, targets: Any, order: NDArray[Any]) -> Any:
        """The targets with their classes in another order: class i becomes class order[i]."""
        raise NotImplementedError

    def summary(self, targets: NDArray[Any], target: TargetSpec) -> dict[str, Any]:
        """What `check` says of a split's targets, as JSON."""
        return {}

    def table(self, summaries: dict[str, dict[str, Any]], target: TargetSpec) -> Table | None:
        """The summaries of all splits, for a person."""
        return None

    def warnings(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        """What makes results mean less than they seem to, from the targets of each split."""
        return []

    def advice(self, targets: dict[str, NDArray[Any]], target: TargetSpec, monitor: str) -> list[str]:
        """What people usually did not mean, for `plan`, from the targets of each split and the metric that judges."""
        val = targets.get("val")
        if val is None or len(val) >= SMALL_VAL:
            return []
        return [f"val has only {len(val)} samples, and chooses the best epoch; raise val_fraction, or average seeds"]

    def chance(self, target: TargetSpec) -> float | None:
        """The usual loss of a model that knows nothing but the number of classes; None where there is none."""
        return None

    def notes(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        """What a user should be told before training, from the targets of each split."""
        return []

    # training, torch inside ---------------------------------------------------------------------------------------

    def sums(self, target: TargetSpec, *, full: bool, topk: int) -> list[Sum]:
        """What is measured: everything where `full`, as in evaluation, else what every training step can afford.

        topk: the k of metrics that count a hit among the k likeliest.
        """
        raise NotImplementedError

    def counts(self, targets: NDArray[Any], target: TargetSpec) -> list[int] | None:
        """The samples of each class, by which a loss may weigh them; None where a sample has no class."""
        return None

    # answers ------------------------------------------------------------------------------------------------------

    def head(self, target: TargetSpec) -> nn.Module | None:
        """Logits to what they mean, probabilities say; None where the outputs are it already."""
        return None

    def fields(self, target: TargetSpec, *, topk: int) -> dict[str, type]:
        """The columns that `predict` writes for a sample, with their types: str, int, float, Double or list."""
        return dict.fromkeys(numbered("output", self.num_outputs(target)), float)

    def rows(self, told: Tensor, target: TargetSpec, *, topk: int) -> list[dict[str, Any]]:
        """A row for each sample, with these columns. told: (N, …) on the host, what `head` makes of the outputs."""
        names = list(self.fields(target, topk=topk))
        return [dict(zip(names, values, strict=True)) for values in told.flatten(1).tolist()]

    def rows_by_threshold(
        self, told: Tensor, target: TargetSpec, *, topk: int, threshold: float
    ) -> list[dict[str, Any]]:
        """As `rows`, but of two classes the second is the answer from this probability on."""
        return self.rows(told, target, topk=topk)

    def keep(self, outputs: Tensor, targets: Any, target: TargetSpec) -> dict[str, Tensor]:
        """What is kept of a batch for whoever looks at the run later, by name: (N, …) each, on the device.

        `targets` must be there, or nothing is. What is too large is left out.
        """
        return {}

    # reading a run, in NumPy; kept: what `keep` kept of a split, (N, …) each ---------------------------------------

    def check_kept(self, kept: Numbers, target: TargetSpec) -> None:
        """Raise ValueError, saying what is wrong with them, for arrays that `keep` cannot have kept."""

    def right(self, kept: Numbers, metric: str) -> NDArray[Any] | None:
        """Which samples are right (N,), if that is what this metric is the share of."""
        return None

    def difference(self, ours: Numbers, theirs: Numbers, metric: str) -> tuple[str, Difference] | None:
        """What a paired test is called, and theirs - ours, of a metric that is no share of the samples."""
        return None

    def worst(self, kept: Numbers, most: int) -> dict[str, NDArray[Any]]:
        """Places of the worst samples, worst first, by what makes them so; at most so many of each kind."""
        return {}

    def best(self, kept: Numbers, most: int) -> NDArray[Any]:
        """Places of at most so many of the samples that are answered best; none where there is nothing to tell."""
        import numpy as np

        return np.empty(0, np.int64)

    def answer(self, kept: Numbers, place: int, target: TargetSpec) -> dict[str, str]:
        """What one sample is and what the model said of it, in words."""
        return {}

    def words(self, value: NDArray[Any], target: TargetSpec) -> str:
        """The target of one training sample, which may be mixed, in words."""
        return ", ".join(written(float(number)) for number in value.reshape(-1)[:4])

    def sections(self, kept: Numbers, target: TargetSpec) -> list[Section]:
        """What a report shows of the answers, the most telling first."""
        return []

    def details(self, kept: Numbers, target: TargetSpec) -> Table | None:
        """What a terminal shows of the answers on a split, beside its metrics."""
        return None

    def sentences(self, measured: dict[str, float], kept: Numbers, target: TargetSpec) -> list[str]:
        """How good the result is, and beside what one gets without a model. kept: empty where it is lost."""
        return []

    def calibration(self, kept: Numbers) -> list[str]:
        """Whether the model is as sure as it may be."""
        return []

    def accepts(self, loss: str, serves: Sequence[str]) -> bool:
        """Whether a loss of this name, which says itself that it serves these tasks, can train this one."""
        return loss in self.losses or self.name in serves


class Double(float):
    """The type of a column of numbers with more digits than float32 holds."""


def listed(items: Sequence[Any]) -> str:
    """The first ten of them in words."""
    return ", ".join(map(str, items[:10])) + (", …" if len(items) > 10 else "")


def numbered(name: str, count: int) -> list[str]:
    """Names of columns: the name itself for one, else with their numbers from 0."""
    return [name] if count == 1 else [f"{name}_{index}" for index in range(count)]


def find_task(name: str) -> Task | None:
    """The task of that name; None where no module that registers it has been imported."""
    component = registry.find("task", name)
    return None if component is None else _made(component.build)


def reading_task(name: str) -> Task:
    """The task of a run that is read: one that says nothing where its code has not been imported."""
    return find_task(name) or Task()


def task_of(target: TargetSpec) -> Task:
    """The task of a target. Raises ConfigError for one that nobody has registered."""
    task = find_task(target.task)
    if task is None:
        raise ConfigError(unknown("task", target.task, registry.names("task")))
    return task


@functools.cache
def _made(build: Callable[[], Task]) -> Task:
    return build()


def num_outputs(spec: DataSpec) -> int:
    """How many numbers a model must give per sample, for all targets together."""
    return sum(task_of(target).num_outputs(target) for target in spec.targets.values())


def sums_of(target: TargetSpec, *, full: bool, topk: int) -> list[Sum]:
    """What the task measures, see `Task.sums`, and where `full` the metrics that plug-ins have registered for it.

    Raises ConfigError when one of these is something else.
    """
    task = task_of(target)
    known = {"target": target, "num_outputs": task.num_outputs(target)}
    found = [registry.get("metric", name) for name in registry.names("metric") if full]
    more = {one.name: one.make(known) for one in found if task.name in one.serves}
    for name, made in more.items():
        if not isinstance(made, Sum):
            wanted = f"it must return a {Sum.__module__}.Sum"
            raise ConfigError(f"the builder of metric '{name}' returned {kind_of(made)}; {wanted}")
    return [*task.sums(target, full=full, topk=topk), *more.values()]
