"""Whether numbers are finite, and where not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_finite(values: NDArray[Any], where: str) -> None:
    """Raise DataError beginning with `where`, and naming the row, for floating-point values that are not finite."""
    import numpy as np

    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    places = np.argwhere(~np.isfinite(values))
    row, *column = (int(i) for i in places[0])
    at = f"row {row}" + (f", column {column[0]}" if len(column) == 1 else "")
    value = values[(row, *column)]
    raise DataError(f"{where}: {at} is {value}{_others(places)}; remove the sample or replace the value")


def _others(places: NDArray[Any]) -> str:
    """How many values more are like the first, and in which columns of a table."""
    import numpy as np

    if len(places) == 1:
        return ""
    rows = f", as are {len(places) - 1:,} more values in {len(np.unique(places[:, 0])):,} rows"
    if places.shape[1] != 2:
        return rows
    columns = np.unique(places[:, 1])
    return f"{rows}, columns {', '.join(map(str, columns[:10]))}{', …' if len(columns) > 10 else ''}"
