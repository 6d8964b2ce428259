"""A run that fails before its first step leaves no folder; what is not said on the screen is never removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import CommandHere, Outcome

FAST = ("model=linear", "epochs=1", "device=cpu", "device.threads=1")
GONE = ("dataset=npz", "dataset.file=gone.npz")
BUG = """
from trainkit.registry import register


@register("model")
def buggy(in_shape, num_outputs):
    raise KeyError("a bug of mine")
"""


def folders(root: Path) -> list[Path]:
    return [path for path in root.glob("outputs/*/*") if path.is_dir()]


def refused(outcome: Outcome, code: int) -> bool:
    (line,) = outcome.err.splitlines()
    return outcome.code == code and line.startswith("trainkit: error: ")


def test_nothing_is_left(trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert refused(trainkit_here("train", *FAST, *GONE), 3)
    assert folders(tmp_path) == []
    assert trainkit_here("train", *FAST).code == 0
    (run,) = folders(tmp_path)
    assert refused(trainkit_here("eval", f"ckpt={run}", *GONE), 3)
    assert folders(tmp_path) == [run]


@pytest.mark.parametrize("words", [("resume", "epochs=+1"), ("reproduce",)], ids=" ".join)
def test_nothing_is_left_of_a_copy(words: tuple[str, ...], trainkit_here: CommandHere, tmp_path: Path) -> None:
    import numpy as np

    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 3)
    assert trainkit_here("train", *FAST, "dataset=npz", "dataset.file=data.npz").code == 0
    (tmp_path / "data.npz").rename(tmp_path / "moved.npz")
    (run,) = folders(tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    verb, *more = words
    assert refused(trainkit_here(verb, str(run), *more), 3)
    assert folders(tmp_path) == [run]
    if more:
        (run / "checkpoints" / "record.json").rename(run / "record.json")
        assert refused(trainkit_here(verb, str(run), *more), 4)
        (run / "record.json").rename(run / "checkpoints" / "record.json")
    assert folders(tmp_path) == [run]
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_traceback_of_a_bug_stays(
    trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bugs.py").write_text(BUG)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "buggy.yaml").write_text("name: buggy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert refused(trainkit_here("train", "plugins=[bugs]", "model=buggy", *FAST[1:]), 1)
    (run,) = folders(tmp_path)
    assert "raise KeyError" in (run / "train.log").read_text()
    assert json.loads((run / "status.json").read_text())["state"] == "failed"


def test_a_folder_that_the_user_has_named_stays(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    outcome = trainkit_here("train", *FAST, *GONE, "hydra.run.dir=mine")
    assert refused(outcome, 3)
    status = json.loads((tmp_path / "mine" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 3)
    assert outcome.err == f"trainkit: error: {status['error']}\n"
    assert (tmp_path / "mine" / "notes").exists() and not (tmp_path / "mine" / ".lock").exists()


def test_jobs_of_a_sweep_keep_their_rows(trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert trainkit_here("train", "-m", *FAST, *GONE, "seed=0,1").code == 1
    (sweep,) = folders(tmp_path)
    states = [json.loads((sweep / job / "status.json").read_text())["state"] for job in "01"]
    assert states == ["failed", "failed"]
    assert (sweep / "sweep.csv").read_text().count("no such file") == 2
