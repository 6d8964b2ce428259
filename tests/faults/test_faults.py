"""The table of faults, run: every number once, every command with its exit code and message, every named test there."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import checkpoint_rows
import config_rows
import data_rows
import device_rows
import process_rows
import pytest
from fault_table import FAST, Fault

from conftest import ROOT
from writers import lay_out

if TYPE_CHECKING:
    from conftest import CommandHere

ROWS: list[Fault] = [
    *config_rows.ROWS,
    *data_rows.ROWS,
    *device_rows.ROWS,
    *checkpoint_rows.ROWS,
    *process_rows.ROWS,
]


def test_every_number_is_there_once() -> None:
    assert Counter(row.number for row in ROWS) == Counter(range(1, 86))
    assert [row.number for row in ROWS] == sorted(row.number for row in ROWS)


def test_every_row_is_shown_or_says_why_not() -> None:
    for row in ROWS:
        assert row.words or row.proof or row.skip, row.id
        assert not row.words or row.shows, row.id


@pytest.mark.slow
def test_every_named_test_exists() -> None:
    """Pytest itself finds them: it fails when one of the names collects nothing."""
    names = sorted({name for row in ROWS for name in row.proof})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in ROWS if row.words])
def test_row(row: Fault, trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, row.files)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    outcome = trainkit_here(*shlex.split(row.words))
    assert outcome.code == row.code, outcome.err
    assert "Traceback" not in outcome.out + outcome.err
    if row.code == 0:
        assert outcome.err == ""
        assert re.search(row.patterns[0], outcome.out), outcome.out
    else:
        lines = outcome.err.splitlines()
        assert len(lines) == len(row.patterns), outcome.err
        for line, pattern in zip(lines, row.patterns, strict=True):
            assert line.startswith("trainkit: error: ")
            assert re.search(pattern, line), f"{pattern!r} is not in {line!r}"
    assert {path: path.read_bytes() for path in before} == before  # nothing of the user's is touched
    statuses = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/status.json")]
    if outcome.code:
        assert all((status["state"], status["exit_code"]) == ("failed", row.code) for status in statuses)
        assert not list(tmp_path.glob("outputs/*/*/.lock"))
        assert not (tmp_path / "HACKED").exists()


def test_row_49_json_has_null_for_what_is_not_finite(trainkit_here: CommandHere, tmp_path: Path) -> None:
    """A loss that overflows in one epoch: every line of the log and the status stay JSON that any program reads."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert trainkit_here("train", *FAST.split(), "model=linear", "optim.lr=1e38").code == 5
    (run,) = tmp_path.glob("outputs/train/*")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    json.loads((run / "status.json").read_text(), parse_constant=refuse)
