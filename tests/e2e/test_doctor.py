"""`trainkit doctor`: real facts of this installation, no secrets, and exit code 1 where something is broken."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from conftest import Command

pytestmark = pytest.mark.slow


def test_says_what_is_installed_and_tries_every_device(trainkit: Command, tmp_path: Path) -> None:
    cache = tmp_path / "a cache"
    cache.mkdir()
    (cache / "file").write_bytes(b"x" * 1234)
    secret = {"AWS_SECRET_ACCESS_KEY": "hunter2", "TRAINKIT_CACHE": str(cache), "HOME": str(tmp_path)}
    done = trainkit("doctor", "--json", env=secret)
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert facts["torch"]["version"] == torch.__version__
    assert facts["packages"]["hydra-core"] == importlib.metadata.version("hydra-core")
    assert [device["works"] for device in facts["devices"]] == [True] * (1 + torch.cuda.device_count())
    assert facts["folders"]["cache"]["bytes"] == 1234
    assert facts["folders"]["cache"]["path"] == os.path.join("~", "a cache")
    assert {"BasicLauncher", "BasicSweeper"} <= set(facts["hydra_plugins"])
    assert "pytest" in facts["extras"]["dev"]
    assert facts["problems"] == []
    assert "hunter2" not in done.stdout and str(tmp_path) not in done.stdout


def test_a_broken_torch_and_a_wrong_setting_are_problems(trainkit: Command, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: cannot open shared object file')\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = trainkit("doctor", env={"PYTHONPATH": path, "TRAINKIT_CACHE_GB": "lots"})
    assert done.returncode == 1
    assert "problem: torch does not import (ImportError: libtorch.so" in " ".join(done.stdout.split())
    assert "problem: TRAINKIT_CACHE_GB=lots: expected a number" in done.stdout
    assert f"python {sys.version.split()[0]}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_writes_nothing_and_knows_its_flags(trainkit: Command, tmp_path: Path) -> None:
    assert trainkit("doctor").returncode == 0
    assert list(tmp_path.iterdir()) == []
    wrong = trainkit("doctor", "--jason")
    assert wrong.returncode == 2 and "did you mean --json?" in wrong.stderr
    assert trainkit("doctor", "now").returncode == 2
