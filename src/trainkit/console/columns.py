"""Plain lines and tables of text for any width: no color, no box, nothing of a name that a terminal would obey."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence

from trainkit.errors import ResourceError
from trainkit.text import say, visible

GAP = "  "
UNLIMITED = 1_000_000


def terminal_width() -> int:
    """The characters of a table's line: the terminal's or $COLUMNS; without either, as in a pipe, nothing is cut."""
    return shutil.get_terminal_size((UNLIMITED, 24)).columns


def prose_width() -> int:
    """The characters of a line that is read: those of the terminal (or $COLUMNS), within 40 and 120."""
    return max(min(shutil.get_terminal_size().columns, 120), 40)


def fitted(line: str, width: int) -> list[str]:
    """A line that a terminal only shows, or its parts where it is wider than `width`; words are never broken."""
    line = visible(line)
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def width_of(text: str) -> int:
    """The places that a text takes on a terminal: two for each wide character of East Asian scripts, none for marks."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def cut(text: str, width: int) -> str:
    """The beginning of a text that fits, with `…` where something is missing."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text + "…" if width > 0 else ""


def lines_of(rows: Sequence[Sequence[str]], left: Sequence[bool], width: int) -> list[str]:
    """Rows of cells as lines with aligned columns; `left` says which are aligned to the left. The last may be cut."""
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    room = width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    lines = []
    for row in cells:
        row[-1] = cut(row[-1], max(room, 1))
        parts = []
        for cell, size, to_left in zip(row, widths, left, strict=True):
            space = " " * (size - width_of(cell))
            parts.append(cell + space if to_left else space + cell)
        lines.append(cut(GAP.join(parts).rstrip(), width))
    return lines


def total_width(columns: Sequence[Sequence[str]]) -> int:
    """The places that columns of cells take together."""
    return sum(max(width_of(visible(cell)) for cell in column) for column in columns) + len(GAP) * (len(columns) - 1)


def emit(lines: Iterable[str]) -> None:
    """Print lines to stdout. Raises ResourceError when they cannot be written, BrokenPipeError when nobody reads."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        for line in lines:  # one at a time: of thousands of runs as JSON, all would fill the memory
            say(line.encode(encoding, "replace").decode(encoding))
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again when it ends
        raise ResourceError(f"cannot write the output ({error.strerror})") from error
