"""What a model must know of its data, and all that a checkpoint says of it: named inputs and named targets.

Most data sets have one input, `x`, and one target, `y`. A specification holds no samples; it is JSON in a checkpoint's
header, and model, loss, predict and export see nothing else of the data. Neither NumPy nor torch is needed to read it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from trainkit.errors import CheckpointError

Kind = Literal["image", "features", "tokens", "series", "array"]
Resize = Literal["squash", "crop", "pad"]  # how a photo of another shape becomes an image, see `images.fit`
INPUT, TARGET = "x", "y"  # the names of the one input and the one target of most data sets
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of a sample.

    kind: `image` (C, H, W), `features` (F,), `tokens` ids of a vocabulary (L,), `series` (C, L), or any other `array`.
    shape: of one sample, without the batch. dtype: as it is stored, in NumPy's words.
    normalize: whether the model gets it standardized by `mean` and `std`, one value per channel or feature, computed
    from the train split where they are None; pixels of uint8 images count as value / 255. Else it gets what is stored.
    names: of the columns of a table. vocabulary: how many ids there are.
    resize, crop_share: how an image file becomes an image of `shape`, see `images.fit`.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    normalize: bool = False
    mean: list[float] | None = None
    std: list[float] | None = None
    names: list[str] | None = None
    vocabulary: int | None = None
    resize: Resize = "squash"
    crop_share: float = 1.0

    @property
    def is_image(self) -> bool:
        return self.kind == "image"


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """One thing to be predicted.

    task: the name of a task. classes: names of the classes, for tasks that have some. width: numbers per sample, for
    tasks that have no classes. dtype: as it is stored, in NumPy's words.
    standardize: train on the target less `mean`, divided by `std`, one value per number, both of the train split;
    metrics and predictions are in the original unit. weight: how much it counts beside other targets. counts: the
    samples of each class in the train split, for tasks whose samples have one each.
    """

    task: str
    classes: list[str] | None = None
    width: int = 1
    dtype: str = "float32"
    standardize: bool = False
    mean: list[float] | None = None
    std: list[float] | None = None
    weight: float = 1.0
    counts: list[int] | None = None


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The inputs and the targets of a data set, by name."""

    inputs: dict[str, InputSpec]
    targets: dict[str, TargetSpec]

    @property
    def input(self) -> InputSpec:
        """The only input, or the first one of several."""
        return next(iter(self.inputs.values()))

    @property
    def target(self) -> TargetSpec:
        """The only target, or the first one of several."""
        return next(iter(self.targets.values()))

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of the first input: (C, H, W) of images, (F,) of features."""
        return self.input.shape

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint keeps it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any, path: Path) -> DataSpec:
        """What `to_json` has made. Raises CheckpointError, naming the file it is from, for anything else."""
        try:
            inputs = {str(name): _input(one) for name, one in value["inputs"].items()}
            targets = {str(name): _target(one) for name, one in value["targets"].items()}
            if not inputs or not targets:
                raise ValueError("no inputs or no targets")
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"'{path}' does not say what data its model was trained on ({error!r})") from error
        return cls(inputs, targets)


def _input(value: Any) -> InputSpec:
    shape = value["shape"]
    if not isinstance(shape, (list, tuple)) or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError("shape")
    found = InputSpec(**{**value, "shape": tuple(shape)})
    _refuse_types(found, dtype=str, normalize=bool, vocabulary=(int, type(None)), resize=str, crop_share=(int, float))
    if found.kind not in get_args(Kind) or (found.vocabulary is not None and found.vocabulary < 1):
        raise ValueError("kind or vocabulary")
    if found.resize not in get_args(Resize) or not 0 < found.crop_share <= 1:
        raise ValueError("resize or crop_share")
    per = [_numbers(found.mean), _numbers(found.std)]
    if found.normalize and (not found.shape or any(n != found.shape[0] for n in per)):
        raise ValueError("mean or std")
    if found.names is not None and (not _texts(found.names) or len(found.names) != found.shape[0]):
        raise ValueError("names")
    return found


def _target(value: Any) -> TargetSpec:
    found = TargetSpec(**value)
    _refuse_types(found, task=str, width=int, dtype=str, standardize=bool, weight=(int, float))
    if found.width < 1 or (found.classes is not None and not _texts(found.classes)):
        raise ValueError("width or classes")
    if found.counts is not None and (
        _numbers(found.counts) != len(found.classes or []) or any(type(n) is not int or n < 0 for n in found.counts)
    ):
        raise ValueError("counts")
    per = [_numbers(found.mean), _numbers(found.std)]
    if found.standardize and per != [found.width] * 2:
        raise ValueError("mean or std of the target")
    return found


def _refuse_types(found: Any, **types: Any) -> None:
    wrong = [name for name, kind in types.items() if not isinstance(getattr(found, name), kind)]
    if wrong:
        raise ValueError(", ".join(wrong))


def _numbers(values: Any) -> int:
    """How many numbers a list holds; 0 for None. Raises ValueError for anything else."""
    if values is not None and not (isinstance(values, list) and all(type(x) in (int, float) for x in values)):
        raise ValueError("a list of numbers is something else")
    return len(values or [])


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(name, str) for name in values)


def describe(spec: DataSpec) -> str:
    """A data set in a few words: `1x8x8, classification`."""
    inputs = " and ".join("x".join(map(str, one.shape)) or "1" for one in spec.inputs.values())
    return f"{inputs}, {' and '.join(one.task for one in spec.targets.values())}"


def unwrap(tree: Value | dict[str, Value]) -> Value | dict[str, Value]:
    """A dict of one as that one: a name tells it from others, and there are none."""
    return next(iter(tree.values())) if isinstance(tree, dict) and len(tree) == 1 else tree


def named(tree: Value | dict[str, Value], name: str) -> dict[str, Value]:
    """A value that may be several by name, as a mapping: the only one is called `name`."""
    return tree if isinstance(tree, dict) else {name: tree}
