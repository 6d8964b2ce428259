"""A registered component is an option, with a YAML file or without."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import ROOT, clean_environment
from writers import lay_out

if TYPE_CHECKING:
    from conftest import CommandHere

PLUGIN = '''
from trainkit.registry import register
from trainkit.schema import Count

@register("model")
def wide(in_shape, num_outputs, *, width: Count = 64):
    """A linear model plus one hidden layer."""
    from trainkit.models.mlp import mlp
    return mlp(in_shape, num_outputs, hidden=[width])
'''
PLUGINS = "plugins=[wide_model]"
FAST = ["device=cpu", "device.threads=1", "epochs=1"]


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    lay_out(tmp_path, {"wide_model.py": PLUGIN})
    return tmp_path


@pytest.mark.slow
def test_a_plugin_needs_no_file(beside: Path, trainkit_here: CommandHere) -> None:
    unnamed = trainkit_here("train", "model=wide")
    assert unnamed.code == 2 and "model=…: option 'wide' is not known; choose from: airbench" in unnamed.err
    done = trainkit_here("train", "model=wide", "model.width=8", PLUGINS, *FAST)
    assert done.code == 0, done.err
    assert "wide 610 parameters" in done.out
    (run,) = (beside / "outputs" / "train").iterdir()
    assert trainkit_here("eval", f"ckpt={run}", PLUGINS, *FAST[:2]).code == 0
    swept = trainkit_here("train", "-m", "model=linear,wide", PLUGINS, *FAST)
    assert swept.code == 0 and "2 jobs, 0 failed" in swept.out
    wrong = trainkit_here("train", "model=wide", "model.widht=8", PLUGINS)
    assert wrong.code == 2 and "key 'model.widht' is not known (did you mean model.width?)" in wrong.err


def test_a_plugin_is_told_of(beside: Path, trainkit_here: CommandHere) -> None:
    found = json.loads(trainkit_here("ls", "model", "--plugins", "wide_model", "--json").out)["model"]["wide"]
    assert found == {"summary": "A linear model plus one hidden layer.", "arguments": {"width": 64}}
    shown = trainkit_here("explain", "model", "model=wide", PLUGINS).out
    assert "model = wide: A linear model plus one hidden layer." in shown and "model.width=64" in shown
    assert "default of model wide" in trainkit_here("explain", "model.width", "model=wide", PLUGINS).out
    assert re.search(r"torchvision,\s+wide", trainkit_here("train", "--help", PLUGINS).out)
    assert trainkit_here("train", "model=wide", PLUGINS, "--cfg", "job", "-p", "model").out.endswith("width: 64\n")


@pytest.mark.parametrize(
    ("line", "answers"),
    [
        (f"trainkit train {PLUGINS} model=w", "model=wide\n"),
        (f"trainkit train {PLUGINS} model=wide model.", "model.width=\n"),
        ("trainkit train model=w", ""),
        ("trainkit train plugins=[nowhere] model=cn", "model=cnn\n"),
        ("trainkit train plugins=[noisy] model=cn", "model=cnn\n"),
    ],
)
def test_a_plugin_that_the_line_names_is_offered(
    line: str, answers: str, beside: Path, trainkit_here: CommandHere
) -> None:
    lay_out(beside, {"noisy.py": "print('hello')\nraise ValueError\n"})
    done = trainkit_here("completion", "--answer", line)
    assert (done.code, done.out, done.err) == (0, answers, "")


def test_a_file_sets_other_defaults(beside: Path, trainkit_here: CommandHere) -> None:
    lay_out(beside, {"conf/model/wide.yaml": "# ours\nname: wide\nwidth: 3\n", "conf/model/slim.yaml": "name: wide\n"})
    for option, width in (("wide", 3), ("slim", 64)):
        shown = trainkit_here("train", f"model={option}", PLUGINS, "--cfg", "job", "-p", "model")
        assert shown.out.endswith(f"name: wide\nwidth: {width}\n")
    assert "wide         ours\n             width=3" in trainkit_here("ls", "model", "--plugins", "wide_model").out


@pytest.mark.slow
def test_nor_does_a_component_of_ours(tmp_path: Path) -> None:
    """A copy of trainkit without its files of models and optimizers."""
    shutil.copytree(ROOT / "src" / "trainkit", tmp_path / "src" / "trainkit")
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for file in [*(tmp_path / "conf" / "model").iterdir(), *(tmp_path / "conf" / "optim").iterdir()]:
        file.unlink()
    env = clean_environment() | {"PYTHONPATH": str(tmp_path / "src"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "trainkit", "train", "model=linear", "optim=adam", "optim.lr=0.01", *FAST]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "linear 650 parameters, adam lr 0.01" in done.stdout
