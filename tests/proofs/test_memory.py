"""A save or a load takes no second copy of the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import memory
import pytest

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow


def test_a_checkpoint_is_written_and_read_tensor_by_tensor(tmp_path: Path, nursery: Nursery) -> None:
    found = memory.extra_memory(tmp_path, nursery)
    assert set(found) == {"save of train", "load of resume", "load of eval"}
    assert all(ratio <= 1.2 for ratio in found.values()), found
