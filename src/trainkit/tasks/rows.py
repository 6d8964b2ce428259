"""What targets with a row of numbers for each sample have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_rows(targets: NDArray[Any], width: int, task: str, where: str, types: tuple[str, ...] = ("float32",)) -> None:
    """Raise DataError unless targets (N, width) are of one of these types, and finite."""
    import numpy as np

    from trainkit.data.values import check_finite

    if targets.ndim != 2 or str(targets.dtype) not in types or targets.shape[1] != width:
        wanted = f"{' or '.join(types)} (N, {width})"
        raise DataError(f"{where}: {task} targets are {targets.dtype} {targets.shape}; they must be {wanted}")
    with np.errstate(over="ignore"):  # what is beyond float32, in which the model answers, counts as infinite
        check_finite(targets.astype(np.float32, copy=False), f"{where}: targets")
