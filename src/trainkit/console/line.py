"""One line out of many facts, for a terminal of any width: what matters least is left out, nothing wraps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Glyphs:
    """What a bar and a sparkline are made of."""

    done: str
    todo: str
    levels: str


BLOCKS = Glyphs("━", "─", "▁▂▃▄▅▆▇█")
ASCII = Glyphs("#", ".", "_.-:=+*#")


@dataclasses.dataclass
class Part:
    """A piece of the line. The lowest ranks are what a narrow terminal shows; `long` is taken where there is room."""

    rank: int
    text: str
    style: str = ""
    long: str = ""


def fit(parts: Sequence[Part], width: int) -> list[Part]:
    """The parts that go into `width` places with a space between them, in their order.

    When one does not fit, those behind it in rank go too, so that a line does not change its look from one number to
    the next.
    """
    room = width + 1
    kept: set[int] = set()
    ranked = sorted(parts, key=lambda part: part.rank)
    for part in ranked:
        if len(part.text) >= room:
            break
        room -= len(part.text) + 1
        kept.add(part.rank)
    for part in ranked:
        more = len(part.long) - len(part.text)
        if part.rank in kept and 0 < more <= room:
            part.text = part.long
            room -= more
    return [part for part in parts if part.rank in kept]


def fold(groups: Sequence[str], width: int) -> list[str]:
    """Groups of words joined by bars, in as many lines as it takes; the later ones are indented."""
    lines = [groups[0]]
    for group in groups[1:]:
        joined = f"{lines[-1]} | {group}"
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(f"  {group}")
    return lines


def sparkline(values: Sequence[float], levels: str, width: int) -> str:
    """The last `width` values as characters from the lowest to the highest of them; a gap for not-a-number."""
    last = values[-width:]
    finite = [value for value in last if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((value - low) * scale)] if math.isfinite(value) else " " for value in last)


def duration(seconds: float) -> str:
    """`0:07`, `12:34`, `1:02:03`, `3d 04h`."""
    total = round(seconds)
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if days:
        return f"{days}d {hours % 24:02}h"
    return f"{hours}:{minutes % 60:02}:{total % 60:02}" if hours else f"{minutes}:{total % 60:02}"
