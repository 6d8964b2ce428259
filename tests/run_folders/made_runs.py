"""Real runs, made once for all tests of this folder, which load this module as a plugin of pytest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import clean_environment

ChangeStatus = Callable[..., None]
FAST = ("epochs=1", "device=cpu", "device.threads=1")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `outputs/`, to be copied: sweeps of wine and of diabetes, evaluations of jobs, a single run."""
    root = tmp_path_factory.mktemp("made")

    def run(*words: str) -> None:
        command = [sys.executable, "-m", "trainkit", *words]
        subprocess.run(command, cwd=root, env=clean_environment(), check=True, capture_output=True, timeout=120)

    run("train", "-m", "dataset=wine", "model=linear,mlp", "seed=0,1,2", *FAST)
    (sweep,) = (root / "outputs" / "sweeps").iterdir()
    run("train", "-m", "dataset=diabetes", "model=linear,mlp", *FAST)
    run("eval", "-m", "ckpt=" + ",".join(str(sweep / job) for job in "034"))
    run("train", "dataset=wine", "optim.lr=0.01", *FAST)
    return root


@pytest.fixture
def outputs(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `made`'s outputs, in the current folder."""
    shutil.copytree(made / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs"


@pytest.fixture
def sweep(outputs: Path) -> Path:
    """The sweep of wine: jobs 0 to 2 are `linear`, 3 to 5 `mlp`, each with seeds 0, 1, 2."""
    return sorted((outputs / "sweeps").iterdir())[0]


@pytest.fixture
def regression(outputs: Path) -> Path:
    """The sweep of diabetes: job 0 is `linear`, 1 `mlp`."""
    return sorted((outputs / "sweeps").iterdir())[1]


@pytest.fixture
def single(outputs: Path) -> Path:
    """The run that is no job of a sweep."""
    (run,) = (outputs / "train").iterdir()
    return run


@pytest.fixture
def change_status() -> ChangeStatus:
    """`change_status(run, parent=…)` changes fields of a run's status.json; None takes one out."""

    def change(run: Path, **facts: Any) -> None:
        file = run / "status.json"
        status = json.loads(file.read_text(encoding="utf-8")) | facts
        file.write_text(json.dumps({name: value for name, value in status.items() if value is not None}))

    return change
