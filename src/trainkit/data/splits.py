"""What a data set is: arrays in named splits, with the facts a model, a loss and a metric need. NumPy only."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from trainkit.errors import DataError
from trainkit.randomness import numpy_generator

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from trainkit.data.files import Files

Array: TypeAlias = "NDArray[Any]"
Task = Literal["classification", "soft", "multilabel", "regression"]


@dataclasses.dataclass
class Split:
    """Samples and their targets.

    inputs: images uint8 (N, C, H, W), or features float32 (N, F); or image files that will be decoded to the former.
    targets: classification int64 (N,); regression float32 (N, T); multilabel (0 or 1) and soft (class
    probabilities, rows sum to 1) float32 (N, C).
    moments: of images, where known: int64 (N, C, 2), each one's sum of pixels and of squared pixels per channel.
    names: what samples are called where not by their rows: paths of their files, object (N,).
    """

    inputs: Array | Files
    targets: Array
    moments: Array | None = None
    names: Array | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, index: Array) -> Split:
        moments = None if self.moments is None else self.moments[index]
        names = None if self.names is None else self.names[index]
        return Split(self.inputs[index], self.targets[index], moments, names)

    def digest(self) -> str:
        """SHA-256 of all samples and targets, in their order; images out of files count by their moments."""
        import numpy as np

        found = hashlib.sha256(repr((self.inputs.shape, str(self.inputs.dtype), self.targets.shape)).encode())
        found.update(np.ascontiguousarray(self.targets).data)
        if self.moments is not None:
            found.update(np.ascontiguousarray(self.moments).data)
        else:
            found.update(np.ascontiguousarray(self.inputs).data)
        return found.hexdigest()


@dataclasses.dataclass(frozen=True)
class Loading:
    """How samples come to the model: `resident` on its device or `streaming`, why, and by how many processes."""

    kind: Literal["resident", "streaming"]
    why: str
    workers: int | None = None


@dataclasses.dataclass
class Data:
    """A data set as its builder returns it.

    splits: `train`, and `val` and `test` where the data set has them.
    classes: names, for classification, soft and multilabel; None for regression.
    mean, std: of the inputs, float32, one value per channel or feature. Pixels count as value / 255. Left None, they
    are computed from the train split.
    standardise: regression only: train on targets standardised by `target_mean` and `target_std` (one value per target,
    computed from the train split), and report metrics in the original unit.
    features: names of the columns of a table, in their order, where they have any.
    notes: what the user should be told once (samples left out, classes missing in a split).
    loading: set when it was decided where the samples live.
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
    features: list[str] | None = None
    notes: list[str] = dataclasses.field(default_factory=list)
    loading: Loading = Loading("resident", "")

    @property
    def in_shape(self) -> tuple[int, ...]:
        """(C, H, W) of images or (F,) of features."""
        return tuple(self.splits["train"].inputs.shape[1:])

    @property
    def num_outputs(self) -> int:
        """What the model must produce per sample: one logit per class, or one number per target."""
        return len(self.classes) if self.classes is not None else int(self.splits["train"].targets.shape[1])


class Source(Protocol):
    """A data set that is found but not read, so that its size can decide how to read it.

    task: of its samples. on_bad: what an unreadable file does, `fail` or `skip`.
    """

    task: Task
    on_bad: str

    @property
    def nbytes(self) -> int:
        """Bytes that all inputs take when decoded."""

    def decoded(self, workers: int | None = None) -> Data:
        """Read into memory by so many processes; None chooses."""

    def streamed(self, workers: int) -> Data:
        """With `Files` as inputs, to be decoded by so many processes while training."""

    def surveyed(self) -> tuple[Data, list[tuple[str, str]]]:
        """As `streamed`, but whatever `on_bad` says: without the unreadable files, which are listed: (path, reason)."""


def split_indices(
    strata: Array | None, num_samples: int, fraction: float, seed: int, purpose: str
) -> tuple[Array, Array]:
    """Indices (kept, held out) of a random split, both ascending: the same for the same arguments on every machine.

    With `strata` (N,) every stratum gives its share: floor or ceil of `fraction` of its samples, by largest remainder
    so that the total is right; a stratum of one sample stays in the kept part.
    """
    import numpy as np

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


def limit(data: Data, most: int, seed: int) -> None:
    """Keep at most so many samples of every split, drawn at random and in their order."""
    import numpy as np

    for name, split in data.splits.items():
        if len(split) > most:
            chosen = numpy_generator(seed, "limit", name).permutation(len(split))[:most]
            data.splits[name] = split.take(np.sort(chosen))


def input_stats(inputs: Array) -> tuple[Array, Array]:
    """Mean and standard deviation, float32, per channel of uint8 images (pixel / 255) or per feature of a table.

    Pixels are counted, not summed in floating point, so the result does not depend on the order of summation.
    """
    import numpy as np

    if inputs.dtype == np.uint8:
        counts = np.stack([np.bincount(inputs[:, c].reshape(-1), minlength=256) for c in range(inputs.shape[1])])
        levels = np.arange(256)
        return _pixel_stats(np.stack([counts @ levels, counts @ levels**2], axis=1), inputs[:, 0].size)
    mean, std = inputs.mean(axis=0, dtype=np.float64), inputs.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), std.astype(np.float32)


def moment_stats(split: Split) -> tuple[Array, Array]:
    """`input_stats` of images whose moments are known, bit for bit, without looking at a pixel."""
    assert split.moments is not None
    return _pixel_stats(split.moments.sum(axis=0), len(split) * math.prod(split.inputs.shape[2:]))


def _pixel_stats(sums: Array, num_pixels: int) -> tuple[Array, Array]:
    """Mean and deviation per channel from exact sums of pixels and of their squares, int64 (C, 2)."""
    import numpy as np

    # Python's integers do not overflow, and the difference of large numbers is exact: a constant channel gives 0.
    totals = [(int(pixels), int(squares)) for pixels, squares in sums]
    mean = [pixels / (255 * num_pixels) for pixels, _ in totals]
    std = [math.sqrt(num_pixels * squares - pixels**2) / (255 * num_pixels) for pixels, squares in totals]
    return np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
