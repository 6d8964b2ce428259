"""One line for any width: what is left out, what is long, and what the pieces look like."""

from __future__ import annotations

import itertools
import math

import pytest

from trainkit.console.line import ASCII, BLOCKS, Part, duration, fit, fold, sparkline

NAN = math.nan


def parts() -> list[Part]:
    return [Part(0, "a" * 6), Part(3, "b" * 4, long="b" * 9), Part(1, "c" * 5, long="c" * 7), Part(2, "d" * 3)]


@pytest.mark.parametrize("width", range(40))
def test_parts_fit_and_leave_in_the_order_of_rank(width: int) -> None:
    kept = fit(parts(), width)
    assert len(" ".join(part.text for part in kept)) <= width
    assert sorted(part.rank for part in kept) == list(range(len(kept)))
    assert [part.text[0] for part in kept] == [name for name in "abcd" if name in {part.text[0] for part in kept}]


def test_room_is_used_for_ever_more() -> None:
    lines = [" ".join(part.text for part in fit(parts(), width)) for width in range(40)]
    lengths = [len(line) for line in lines]
    assert all(before <= after for before, after in itertools.pairwise(lengths))
    assert lines[5] == "" and lines[6] == "aaaaaa" and lines[12] == "aaaaaa ccccc" and lines[14] == "aaaaaa ccccccc"
    assert lines[16] == "aaaaaa ccccc ddd"  # a part of lower rank before the long form of another
    assert lines[39] == "aaaaaa bbbbbbbbb ccccccc ddd"


def test_fold() -> None:
    groups = ["one two", "three", "four"]
    assert fold(groups, 100) == ["one two | three | four"]
    assert fold(groups, 22) == ["one two | three | four"]
    assert fold(groups, 21) == ["one two | three", "  four"]
    assert fold(groups, 14) == ["one two", "  three | four"]
    assert fold(groups, 1) == ["one two", "  three", "  four"]


@pytest.mark.parametrize("levels", [BLOCKS.levels, ASCII.levels])
def test_sparkline(levels: str) -> None:
    assert len(set(levels)) == 8
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], levels, 30) == levels
    assert sparkline([9, -9, 0.0, 1.0], levels, 2) == levels[0] + levels[-1]  # the scale is that of what is shown
    assert sparkline([0.5, 0.5], levels, 5) == levels[0] * 2
    assert sparkline([1.0, NAN, 2.0, math.inf], levels, 5) == f"{levels[0]} {levels[-1]} "
    assert sparkline([NAN], levels, 5) == " "
    assert sparkline([], levels, 5) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (86399.7, "1d 00h")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
