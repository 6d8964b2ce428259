"""The list of faults: every number once, and every named test there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fault_table import FAULTS

from conftest import ROOT

if TYPE_CHECKING:
    from conftest import CommandHere


def test_every_number_is_there_once() -> None:
    assert Counter(row.number for row in FAULTS) == Counter(range(1, 86))
    assert [row.number for row in FAULTS] == sorted(row.number for row in FAULTS)


def test_every_fault_is_shown_or_says_why_not() -> None:
    for fault in FAULTS:
        assert fault.proof or fault.skip, fault.number


@pytest.mark.slow
def test_every_named_test_exists() -> None:
    """Pytest itself finds them: it fails when one of the names collects nothing."""
    names = sorted({name for row in FAULTS for name in row.proof})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_row_49_json_has_null_for_what_is_not_finite(trainkit_here: CommandHere, tmp_path: Path) -> None:
    """A loss that overflows in one epoch: every line of the log and the status stay JSON that any program reads."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    words = "train device=cpu device.threads=1 epochs=1 model=linear optim.lr=1e38"
    assert trainkit_here(*words.split()).code == 5
    (run,) = tmp_path.glob("outputs/train/*")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    json.loads((run / "status.json").read_text(), parse_constant=refuse)
