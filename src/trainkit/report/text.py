"""Lines as wide as the terminal."""

from __future__ import annotations

import shutil
import textwrap

from trainkit.safety import visible


def terminal_width() -> int:
    """Columns to write in: those of the terminal (or $COLUMNS), within 40 and 120."""
    return max(min(shutil.get_terminal_size().columns, 120), 40)


def fitted(line: str, width: int) -> list[str]:
    """A line that a terminal only shows, or its parts where it is wider than `width`; words are never broken."""
    line = visible(line)
    if len(line) <= width:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)
