"""What a data set is: arrays in named splits, with the facts a model, a loss and a metric need. NumPy only."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from trainkit.errors import DataError
from trainkit.randomness import numpy_generator

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Task = Literal["classification", "soft", "multilabel", "regression"]


@dataclasses.dataclass
class Split:
    """Samples and their targets.

    inputs: images uint8 (N, C, H, W), or features float32 (N, F).
    targets: classification int64 (N,); regression float32 (N, T); multilabel (0 or 1) and soft (class
    probabilities, rows sum to 1) float32 (N, C).
    """

    inputs: Array
    targets: Array

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Array) -> Split:
        return Split(self.inputs[index], self.targets[index])


@dataclasses.dataclass
class Data:
    """A data set as its builder returns it.

    splits: `train`, and `val` and `test` where the data set has them.
    classes: names, for classification, soft and multilabel; None for regression.
    mean, std: of the inputs, float32, one value per channel or feature. Pixels count as value / 255. Left None, they
    are computed from the train split.
    standardise: regression only: train on targets standardised by `target_mean` and `target_std` (one value per target,
    computed from the train split), and report metrics in the original unit.
    notes: what the user should be told once (samples left out, classes missing in a split).
    """

    name: str
    task: Task
    splits: dict[str, Split]
    classes: list[str] | None = None
    mean: Array | None = None
    std: Array | None = None
    standardise: bool = False
    target_mean: Array | None = None
    target_std: Array | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(C, H, W) of images or (F,) of features."""
        return tuple(self.splits["train"].inputs.shape[1:])

    @property
    def num_outputs(self) -> int:
        """What the model must produce per sample: one logit per class, or one number per target."""
        return len(self.classes) if self.classes is not None else int(self.splits["train"].targets.shape[1])


def split_indices(
    strata: Array | None, num_samples: int, fraction: float, seed: int, purpose: str
) -> tuple[Array, Array]:
    """Indices (kept, held out) of a random split, both ascending: the same for the same arguments on every machine.

    With `strata` (N,) every stratum gives its share: floor or ceil of `fraction` of its samples, by largest remainder
    so that the total is right; a stratum of one sample stays in the kept part.
    """
    generator = numpy_generator(seed, "split", purpose)
    if strata is None:
        held = generator.permutation(num_samples)[: round(num_samples * fraction)]
    else:
        _, stratum_of, counts = np.unique(strata, return_inverse=True, return_counts=True)
        exact = counts * fraction
        take = np.floor(exact).astype(int)
        missing = round(num_samples * fraction) - int(take.sum())
        for stratum in np.argsort(take - exact, kind="stable")[: max(missing, 0)]:
            take[stratum] += 1
        take = np.minimum(take, counts - 1)
        shuffled = generator.permutation(num_samples)
        by_stratum = shuffled[np.argsort(stratum_of[shuffled], kind="stable")]
        starts = np.cumsum(counts) - counts
        held = np.concatenate([by_stratum[start : start + n] for start, n in zip(starts, take, strict=True)])
    kept = np.ones(num_samples, dtype=bool)
    kept[held] = False
    return np.flatnonzero(kept), np.sort(held)


def hold_out(data: Data, split: str, fraction: float, seed: int) -> None:
    """Move `fraction` of the train split to a new split, stratified by class where there are classes.

    Does nothing when the data set has that split already. Raises DataError when either part would be empty.
    """
    if split in data.splits or fraction == 0:
        return
    train = data.splits["train"]
    strata = train.targets if data.task == "classification" else None
    kept, held = split_indices(strata, len(train), fraction, seed, split)
    if not len(held) or not len(kept):
        raise DataError(f"dataset {data.name}: {len(train)} samples are too few to hold out {fraction:g} as {split}")
    data.splits[split] = train.take(held)
    data.splits["train"] = train.take(kept)


def input_stats(inputs: Array) -> tuple[Array, Array]:
    """Mean and standard deviation, float32, per channel of uint8 images (pixel / 255) or per feature of a table.

    Pixels are counted, not summed in floating point, so the result does not depend on the order of summation.
    """
    if inputs.dtype == np.uint8:
        levels = np.arange(256) / 255
        counts = np.stack([np.bincount(inputs[:, c].reshape(-1), minlength=256) for c in range(inputs.shape[1])])
        share = counts / counts.sum(axis=1, keepdims=True)
        mean = share @ levels
        std = np.sqrt(share @ levels**2 - mean**2)
    else:
        mean, std = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), std.astype(np.float32)
