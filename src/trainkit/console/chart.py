"""A curve drawn with characters: Braille dots, or ASCII where the output knows no more."""

from __future__ import annotations

import math
from collections.abc import Sequence

# The bits of a Braille character, U+2800 on, by row and column of its eight dots.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def curve(
    values: Sequence[float], *, width: int, height: int = 8, left: str = "", right: str = "", braille: bool = True
) -> list[str]:
    """Lines that show `values` from left to right, at most `width` columns wide and `height` rows and an axis high.

    The largest and the smallest value stand beside the first and the last row, `left` and `right` below the ends.
    Values that are not finite are left out. Raises ValueError without a finite value.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        raise ValueError("a chart needs a finite value")
    low, high = min(finite), max(finite)
    labels = [f"{high:.3g}", f"{low:.3g}"]
    margin = max(map(len, labels))
    columns = max(width - margin - 2, 8)
    across, down = (2, 4) if braille else (1, 1)
    dots = _dots(values, columns * across, height * down, low, high)
    lines = []
    for row in range(height):
        label = labels[0] if row == 0 else labels[1] if row == height - 1 and low < high else ""
        cells = (_cell(dots, column, row, braille) for column in range(columns))
        lines.append(f"{label:>{margin}} {'│' if braille else '|'}{''.join(cells)}".rstrip())
    gap = " " * max(columns - len(left) - len(right), 1)
    return [*lines, f"{' ' * margin}  {left}{gap}{right}".rstrip()]


def _dots(values: Sequence[float], columns: int, rows: int, low: float, high: float) -> set[tuple[int, int]]:
    """(column, row) of every dot: in each column from the smallest to the largest value that falls there."""
    spread = high - low or 1.0
    count = len(values)
    dots: set[tuple[int, int]] = set()
    before: int | None = None
    for column in range(columns):
        start = min(column * count // columns, count - 1)
        part = values[start : max((column + 1) * count // columns, start + 1)]
        heights = [round((high - value) / spread * (rows - 1)) for value in part if math.isfinite(value)]
        if not heights:
            before = None
            continue
        top, bottom = min(heights), max(heights)
        if before is not None:  # joined to the column before
            top, bottom = min(top, before + (before < top)), max(bottom, before - (before > bottom))
        dots |= {(column, row) for row in range(top, bottom + 1)}
        before = heights[-1]
    return dots


def _cell(dots: set[tuple[int, int]], column: int, row: int, braille: bool) -> str:
    if not braille:
        return "*" if (column, row) in dots else " "
    bits = sum(
        bit for y, pair in enumerate(_DOTS) for x, bit in enumerate(pair) if (2 * column + x, 4 * row + y) in dots
    )
    return chr(0x2800 + bits) if bits else " "
