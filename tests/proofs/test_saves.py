"""A save that dies, fails or loses power at any of its calls leaves the old state or the new one, never a part."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import power
import pytest
import saving
import struck
from digest import facts
from saving import CASES
from scenes import BUSY, only_run
from striking import ERRORS, intercepted

from trainkit import storage
from trainkit.checkpoints import checkpoint, record
from trainkit.checkpoints.state import log_lengths
from trainkit.cli import main

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_killed_at_every_call(case: saving.Case, tmp_path: Path, nursery: Nursery) -> None:
    assert saving.kill_at_every_call(case, tmp_path, nursery) > 60


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_failed_at_every_call(case: saving.Case, error: str, tmp_path: Path) -> None:
    tried, failures = saving.fail_at_every_call(case, error, tmp_path)
    assert tried >= 4 and (failures == 0) == (error == "short")


def test_power_lost_at_every_call(tmp_path: Path) -> None:
    assert saving.lose_power_at_every_call(tmp_path) > 500


def test_power_lost_in_a_training_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "outputs" / "train"
    root.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    watch = power.Watch(root)
    saves = [(0, 0)]
    commit = record.commit

    def commit_and_count(*arguments: Any, **options: Any) -> record.Record:
        saves.append((options["epoch"], options["step"]))
        done = commit(*arguments, **options)
        watch.saves += 1
        return done

    monkeypatch.setattr(record, "commit", commit_and_count)
    words = [*BUSY, "log_every=100", "batch_size=700", "epochs=2", "checkpoint_every=2steps"]
    with intercepted(watch):
        assert main(["train", *words]) == 0

    def number(found: Path) -> int:
        """How many saves a run folder holds, by the newest checkpoint that loads."""
        for path in found.glob("*/checkpoints"):
            for file in record.candidates(path):
                _, header = checkpoint.load(file)
                progress = header["progress"]
                lengths = log_lengths(path.parent, file, progress["epoch"], progress["step"])
                assert all(storage.size(path.parent / name) >= length for name, length in lengths.items())
                return saves.index((header["progress"]["epoch"], header["progress"]["step"]))
        return 0

    watch.check(tmp_path / "found", number)
    expected = facts(only_run(tmp_path))
    states = [state for state, _ in watch.found.values()]
    for index, state in enumerate(random.Random(0).sample(states, 10)):
        power.lay_out(state, tmp_path / str(index))
        for run in (tmp_path / str(index)).glob("*"):
            if (run / "config.yaml").exists():
                assert main(["resume", str(run)]) == 0
                assert facts(run) == expected


def test_a_training_run_struck_at_any_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: Nursery) -> None:
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    expected, calls = struck.calls(tmp_path / "whole")
    draw = random.Random(0)
    for kind in ("before", "within", "after", "ENOSPC", "EIO", "full"):
        number = draw.randrange(len(calls))
        struck.strike_and_go_on(number, kind, tmp_path / kind, nursery, expected)
    struck.strike_and_go_on(len(calls) - 1, "EIO", tmp_path / "last", nursery, expected)  # the lock is let go
