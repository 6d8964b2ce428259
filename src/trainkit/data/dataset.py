"""What a data set is: splits, with the facts that a model, a loss and a metric need. NumPy only."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Protocol, runtime_checkable

from trainkit.data.spec import INPUT, TARGET, DataSpec, InputSpec, Kind, TargetSpec, named, unwrap
from trainkit.data.splits import Array, Column, Split, in_memory, split_indices
from trainkit.errors import DataError, kind_of
from trainkit.randomness import numpy_generator
from trainkit.tasks.base import task_of


@dataclasses.dataclass(frozen=True)
class Loading:
    """How samples come to the model: `resident` on its device or `streaming`, why, and by how many processes."""

    kind: Literal["resident", "streaming"]
    why: str
    workers: int | None = None


@dataclasses.dataclass
class Data:
    """A data set as its builder returns it.

    splits: `train`, and `val` and `test` where the data set has them. A torch `Dataset` of (input, target) pairs may
    stand where a split does: it is read while training.
    target: what is predicted, or several of it by name, as the targets of the splits.
    inputs: what the samples are; None takes it from the type and shape of the train split's, see `describe_input`.
    notes: what the user should be told once (samples left out, classes missing in a split).
    loading: set when it was decided where the samples live.
    fold, held: of a data set whose samples are each held out once: which fold `val` is, and its rows of what was train.
    """

    name: str
    splits: dict[str, Split]
    target: dataclasses.InitVar[TargetSpec | dict[str, TargetSpec]]
    inputs: dataclasses.InitVar[InputSpec | dict[str, InputSpec] | None] = None
    notes: list[str] = dataclasses.field(default_factory=list)
    loading: Loading = Loading("resident", "")
    spec: DataSpec = dataclasses.field(init=False)
    fold: int | None = dataclasses.field(default=None, init=False)
    held: Array | None = dataclasses.field(default=None, init=False)

    def __post_init__(
        self, target: TargetSpec | dict[str, TargetSpec], inputs: InputSpec | dict[str, InputSpec] | None
    ) -> None:
        if not isinstance(self.splits, dict) or "train" not in self.splits:
            raise DataError(f"dataset {self.name}: it has no train split")
        targets = dict(named(unwrap(target), TARGET))
        self.splits = {
            name: _as_split(split, f"dataset {self.name}", name, targets) for name, split in self.splits.items()
        }
        if inputs is None:
            columns = named(self.splits["train"].inputs, INPUT)
            known = {name: column for name, column in columns.items() if hasattr(column, "dtype")}
            inputs = {name: describe_input(column, **self._known(column)) for name, column in known.items()}
        self.spec = DataSpec(dict(named(unwrap(inputs), INPUT)), targets)

    def _known(self, column: Column) -> dict[str, Any]:
        # what a torch Dataset gives as float32 is what its transforms have made for the model
        read_later = not in_memory(column) and self.splits["train"].moments is None
        return {"normalize": False} if read_later and str(column.dtype) == "float32" else {}


def _as_split(split: Any, where: str, name: str, targets: dict[str, TargetSpec]) -> Split:
    """A split, or a torch Dataset as one. Raises DataError for anything else."""
    if isinstance(split, Split):
        return split
    if isinstance(split, (tuple, list, dict)) or not (hasattr(split, "__getitem__") and hasattr(split, "__len__")):
        wanted = "a trainkit.data.splits.Split, or a torch Dataset with a length"
        raise DataError(f"{where}: its {name} split is {kind_of(split)}; it must be {wanted}")
    from trainkit.data.mapped import Mapped

    return Mapped(split, specs=targets, where=f"{where}, {name} split")


def describe_input(column: Column, **facts: Any) -> InputSpec:
    """What a column of samples is, by its type and shape; facts: fields of `InputSpec` that are known otherwise.

    uint8 (N, C, H, W) are images and float32 ones are too; float32 (N, F) are features, (N, C, L) series: all are
    normalized. Integers (N, L) are tokens. Anything else is an array, normalized where it is float32.
    """
    dtype, shape = str(column.dtype), tuple(map(int, column.shape[1:]))
    kinds: dict[tuple[str, int], Kind] = {
        ("uint8", 3): "image",
        ("float32", 3): "image",
        ("float32", 1): "features",
        ("float32", 2): "series",
        ("int64", 1): "tokens",
        ("int32", 1): "tokens",
    }
    kind = kinds.get((dtype, len(shape)), "array")
    normalize = bool(shape) and (dtype == "float32" or (dtype == "uint8" and kind == "image"))
    known: dict[str, Any] = {"kind": kind, "normalize": normalize}
    return InputSpec(shape=shape, dtype=dtype, **{**known, **facts})


@runtime_checkable
class Source(Protocol):
    """A data set that is found but not read, so that its size can decide how to read it.

    on_bad: what an unreadable file does, `fail` or `skip`.
    """

    on_bad: str

    @property
    def target(self) -> TargetSpec:
        """What is asked of a model."""

    @property
    def nbytes(self) -> int:
        """Bytes that all inputs take when decoded."""

    def decoded(self, workers: int | None = None) -> Data:
        """Read into memory by so many processes; None chooses."""

    def streamed(self, workers: int) -> Data:
        """With `Files` as inputs, to be decoded by so many processes while training."""

    def surveyed(self) -> tuple[Data, list[tuple[str, str]]]:
        """As `streamed`, but whatever `on_bad` says: without the unreadable files, which are listed: (path, reason)."""


def hold_out(data: Data, split: str, fraction: float, seed: int) -> None:
    """Move `fraction` of the train split to a new split, in the shares of the targets' strata where they have some.

    Does nothing when the data set has that split already. Raises DataError when either part would be empty.
    """
    if split in data.splits or fraction == 0:
        return
    train = data.splits["train"]
    _, held = split_indices(strata_of(train, data.spec), len(train), fraction, seed, split)
    set_apart(data, split, held, f"{fraction:g}")
    if split == "test" and "val" in data.splits:  # made by hand, so that one more may not be meant
        data.notes.append(f"it has a val split but no test: {fraction:g} of train is held out as test")


def set_apart(data: Data, split: str, held: Array, told: str) -> None:
    """Move these rows of the train split, ascending, to a new split.

    told: what they are, for the DataError that is raised when one of the two would be empty.
    """
    import numpy as np

    train = data.splits["train"]
    kept = np.setdiff1d(np.arange(len(train)), held)
    if not len(held) or not len(kept):
        raise DataError(f"dataset {data.name}: {len(train)} samples are too few to hold out {told} as {split}")
    data.splits[split], data.splits["train"] = train.take(held), train.take(kept)


def strata_of(split: Split, spec: DataSpec) -> Array | None:
    """What each sample (N,) is counted as, by its first target; None where all are alike or unread."""
    column: Any = next(iter(named(split.targets, TARGET).values()))
    return task_of(spec.target).strata(column) if in_memory(column) else None


def limit(data: Data, most: int, seed: int) -> None:
    """Keep at most so many samples of every split, drawn at random and in their order."""
    import numpy as np

    for name, split in data.splits.items():
        if len(split) > most:
            chosen = numpy_generator(seed, "limit", name).permutation(len(split))[:most]
            data.splits[name] = split.take(np.sort(chosen))
