"""Samples and their targets: a split, its columns, a random share of it, its statistics. NumPy only."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from trainkit.data.spec import INPUT, TARGET, named, unwrap
from trainkit.randomness import numpy_generator

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
Arrays: TypeAlias = "Array | dict[str, Array]"  # of one input or target, or of several by name


class Stored(Protocol):
    """A column of samples that are read when a batch needs them; it has the shape and type of an array."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any) -> Stored:
        """The samples of these rows: chosen, not read."""

    def batches(self, indices: Sequence[Array]) -> Iterator[Array]:
        """The samples of each index array, in the order asked; it may read ahead. Good until the next is asked for."""


Column: TypeAlias = "Any"  # an array (N, …), or something stored: one input or target of all samples of a split
Columns: TypeAlias = "Any"  # a column, or several by name


@dataclasses.dataclass
class Split:
    """Samples and their targets: a column each, or several by name (of which one alone is the column itself).

    moments: of images, where known: int64 (N, C, 2), each one's sum of pixels and of squared pixels per channel.
    names: what samples are called where not by their rows: paths of their files, object (N,).
    """

    inputs: Columns
    targets: Columns
    moments: Array | None = None
    names: Array | None = None

    def __post_init__(self) -> None:
        self.inputs, self.targets = unwrap(self.inputs), unwrap(self.targets)

    def __len__(self) -> int:
        return len(next(iter(named(self.targets, TARGET).values())))

    @property
    def columns(self) -> dict[str, Column]:
        """All inputs, then all targets."""
        return {**named(self.inputs, INPUT), **named(self.targets, TARGET)}

    @property
    def hint(self) -> str | None:
        """What helps when reading takes long, where a column knows."""
        return next((hint for column in self.columns.values() if (hint := getattr(column, "hint", None))), None)

    def take(self, index: Array) -> Split:
        """The samples of these rows."""
        moments = None if self.moments is None else self.moments[index]
        names = None if self.names is None else self.names[index]
        return Split(_taken(self.inputs, index), _taken(self.targets, index), moments, names)

    def without_workers(self) -> Split:
        """The same samples, read in this process: for a few of them workers would take longer to start."""
        inputs = {name: getattr(c, "without_workers", lambda c=c: c)() for name, c in named(self.inputs, INPUT).items()}
        return Split(inputs, self.targets, self.moments, self.names)

    def batches(self, indices: Sequence[Array], seed: int = 0, epoch: int = 0) -> Iterator[tuple[Arrays, Arrays]]:
        """Inputs and targets of the samples of each index array, in the order asked.

        seed, epoch: what samples that are made when they are read may depend on, beside their row.
        """
        yield from zip(_batches(self.inputs, indices), _batches(self.targets, indices), strict=True)

    def digest(self) -> str:
        """SHA-256 of all samples and targets, in their order; images out of files count by their moments."""
        inputs, targets = named(self.inputs, INPUT), named(self.targets, TARGET)
        shapes = [(column.shape, str(column.dtype)) for column in inputs.values()]
        found = hashlib.sha256(repr((shapes, [column.shape for column in targets.values()])).encode())
        for column in targets.values():
            _add(found, column)
        if self.moments is not None:
            _add(found, self.moments)
        else:
            for column in inputs.values():
                _add(found, column)
        return found.hexdigest()


def _taken(columns: Columns, index: Array) -> Columns:
    if isinstance(columns, dict):
        return {name: column[index] for name, column in columns.items()}
    return columns[index]


def _batches(columns: Columns, indices: Sequence[Array]) -> Iterator[Arrays]:
    if isinstance(columns, dict):
        parts: dict[str, Any] = {name: _batches(column, indices) for name, column in columns.items()}
        for _ in indices:
            yield {name: next(part) for name, part in parts.items()}
    elif in_memory(columns):
        yield from (columns[index] for index in indices)
    else:
        yield from columns.batches(indices)


def _add(found: Any, column: Any) -> None:
    import numpy as np

    if in_memory(column):
        found.update(np.ascontiguousarray(column).data)
        return
    for start in range(0, len(column), _CHUNK):
        for part in column.batches([np.arange(start, min(start + _CHUNK, len(column)))]):
            found.update(np.ascontiguousarray(part).data)


_CHUNK = 256  # samples that are read at a time to be hashed


def in_memory(column: Any) -> bool:
    """Whether a column is an array, all of it in memory."""
    import numpy as np

    return isinstance(column, np.ndarray)


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


def input_stats(inputs: Array) -> tuple[Array, Array]:
    """Mean and standard deviation, float32, per channel of images or series (uint8: pixel / 255) or feature of a table.

    Pixels are counted, not summed in floating point, so the result does not depend on the order of summation.
    """
    import numpy as np

    if inputs.dtype == np.uint8:
        counts = np.stack([np.bincount(inputs[:, c].reshape(-1), minlength=256) for c in range(inputs.shape[1])])
        levels = np.arange(256)
        return _pixel_stats(np.stack([counts @ levels, counts @ levels**2], axis=1), inputs[:, 0].size)
    axes = (0, *range(2, inputs.ndim))
    mean, std = inputs.mean(axis=axes, dtype=np.float64), inputs.std(axis=axes, dtype=np.float64)
    return mean.astype(np.float32), std.astype(np.float32)


def target_stats(targets: Array) -> tuple[Array, Array]:
    """Mean and standard deviation per target, of the targets' type: what float64 holds far from 0 must survive."""
    import numpy as np

    if targets.dtype != np.float64:
        return input_stats(targets)
    first = targets[0]  # the sums are about it: exactly 0 for a constant target
    return first + (targets - first).mean(axis=0), (targets - first).std(axis=0)


def moment_stats(split: Split) -> tuple[Array, Array]:
    """`input_stats` of images whose moments are known, bit for bit, without looking at a pixel."""
    assert split.moments is not None
    (images,) = named(split.inputs, INPUT).values()
    return _pixel_stats(split.moments.sum(axis=0), len(split) * math.prod(images.shape[2:]))


def _pixel_stats(sums: Array, num_pixels: int) -> tuple[Array, Array]:
    """Mean and deviation per channel from exact sums of pixels and of their squares, int64 (C, 2)."""
    import numpy as np

    # Python's integers do not overflow, and the difference of large numbers is exact: a constant channel gives 0.
    totals = [(int(pixels), int(squares)) for pixels, squares in sums]
    mean = [pixels / (255 * num_pixels) for pixels, _ in totals]
    std = [math.sqrt(num_pixels * squares - pixels**2) / (255 * num_pixels) for pixels, squares in totals]
    return np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
