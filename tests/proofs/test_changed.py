"""`kill -9` at the calls of a run that is made longer, and of one that goes on with another learning rate."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import changed
import pytest
from digest import facts

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow

Both = tuple[changed.Change, changed.Change]


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return changed.changes(tmp_path_factory.mktemp("changed"))


def drawn(calls: list[str], count: int) -> list[int]:
    """One call of each of `count` equal stretches."""
    draw = random.Random(0)
    edges = [len(calls) * index // count for index in range(count + 1)]
    return [draw.randrange(*pair) for pair in itertools.pairwise(edges)]


def test_a_longer_run_killed_at_any_call(changes: Both, tmp_path: Path, nursery: Nursery) -> None:
    longer, _ = changes
    outcomes: Counter[str] = Counter()
    for index, number in enumerate(drawn(longer.calls, 12)):
        kind = ("before", "after")[index % 2]
        outcomes[changed.lengthen_and_kill(longer, number, kind, tmp_path / str(number), nursery)] += 1
    assert outcomes["refused"] and outcomes["resumed"] > 5, outcomes


def test_another_lr_killed_at_any_call(changes: Both, tmp_path: Path, nursery: Nursery) -> None:
    longer, other = changes
    without = facts(longer.run)
    outcomes: Counter[str] = Counter()
    for index, number in enumerate(drawn(other.calls, 10)):
        kind = ("before", "after")[index % 2]
        scratch = tmp_path / str(number)
        outcomes[changed.override_and_kill(other, without, number, kind, scratch, nursery)] += 1
    assert outcomes["begun"] > 4 and outcomes["not begun"], outcomes
