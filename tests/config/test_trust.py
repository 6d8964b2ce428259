"""No config file runs code: neither by Hydra's own settings nor by what a checkpoint says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import CommandHere

# A file that, loaded as code, leaves a trace; `./conf` and PYTHONPATH of whoever is attacked would both find it.
EVIL = "import pathlib\npathlib.Path(__file__).with_name('HACKED').touch()\ndef run(*args, **kw): return None\n"
START = """
defaults:
  - _self_
  - dataset: digits
  - model: linear
  - loss: auto
  - optim: sgd
  - schedule: constant
  - augment: none
  - device: cpu
  - experiment: null
  - override hydra/job_logging: trainkit
"""

# The name of the file under ./conf, what it holds, the words that would use it, what is said.
FILES = [
    ("train.yaml", "hydra: {searchpath: ['pkg://evil']}", "", "hydra.searchpath is refused; name a folder with"),
    ("train.yaml", "hydra: '${oc.create:{searchpath: [pkg://evil]}}'", "", "hydra.searchpath is refused"),
    ("train.yaml", "hydra: {callbacks: {a: {_target_: evil.run}}}", "", "`_target_` is refused"),
    ("train.yaml", "hydra: {job: {env_set: {LD_PRELOAD: evil.so}}}", "", "hydra.job.env_set is refused"),
    ("train.yaml", "hydra: {job: {name: ../../evil}}", "", "hydra.job.name names a file"),
    ("train.yaml", "hydra: {output_subdir: ../evil}", "", "hydra.output_subdir must be a plain name"),
    ("train.yaml", "hydra: {sweep: {subdir: ../evil}}", "", "hydra.sweep.subdir is set by trainkit"),
    ("train.yaml", "hydra: {overrides: {hydra: ['hydra.searchpath=[pkg://evil]']}}", "", "hydra.overrides is a record"),
    ("train.yaml", "hydra: {sweeper: {params: {hydra.job.name: x}}}", "", "hydra.sweeper.params sweeps the config"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {(): evil.run}}}}", "", "'(): evil.run' is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {class: evil.run}}}}", "", "'class: evil.run' is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {x: ext://evil.run}}}}", "", "'x: ext://evil.run' is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {filename: /tmp/x}}}}", "", "'filename: /tmp/x' is refused"),
    ("train.yaml", "hydra: {hydra_logging: {formatters: {a: {class: evil.run}}}}", "", "'class: evil.run' is refused"),
    ("hydra/launcher/evil.yaml", "_target_: evil.run", "-m hydra/launcher=evil", "evil.yaml: `_target_` is refused"),
    ("hydra/sweeper/evil.yaml", "_target_: evil.run", "-m hydra/sweeper=evil", "evil.yaml: `_target_` is refused"),
    ("hydra/callbacks/evil.yaml", "a: {_target_: evil.run}", "hydra/callbacks=evil", "`_target_` is refused"),
    ("hydra/job_logging/evil.yaml", "a: {(): evil.run}", "hydra/job_logging=evil", "'(): evil.run' is refused"),
    ("model/evil.yaml", "# @package hydra.job\nenv_set: {A: b}", "+model@hydra.job=evil", "env_set is refused"),
    ("experiment/evil.yaml", "# @package _global_\nhydra: {job: {env_set: {A: b}}}", "experiment=evil", "env_set is"),
    ("experiment/evil.yaml", "# @package hydra.job\nenv_set: {A: b}", "experiment=evil", "env_set is refused"),
    ("model/evil.yaml", "name: mlp\nhidden:\n- [{a: [{_target_: evil.run}]}]", "model=evil", "`_target_` is refused"),
    ("model/evil.yaml", "name: mlp\nhidden: ${oc.env:MY_TOKEN}", "model=evil", "$MY_TOKEN is called like a secret"),
    ("model/evil.yaml", "name: mlp\nactivation: ${evil:run}", "model=evil", "Unsupported interpolation type evil"),
]


@pytest.mark.parametrize(("name", "text", "words", "line"), FILES)
def test_a_file_is_refused_before_it_runs_anything(
    name: str,
    text: str,
    words: str,
    line: str,
    trainkit_here: CommandHere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    (tmp_path / "evil.py").write_text(EVIL)
    file = tmp_path / "conf" / name
    file.parent.mkdir(parents=True)
    file.write_text((START if name == "train.yaml" else "") + text)
    outcome = trainkit_here("train", "epochs=1", *shlex.split(words))
    assert (outcome.code, outcome.out) == (2, "")
    assert all(printed.startswith("trainkit: error: ") for printed in outcome.err.splitlines())
    assert line in outcome.err
    assert "hunter2" not in outcome.err
    assert not (tmp_path / "HACKED").exists()
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("hydra.searchpath=[pkg://evil]", "hydra.searchpath is refused"),
        ("+hydra.searchpath=[pkg://evil]", "hydra.searchpath is refused"),
        ("hydra.launcher._target_=evil.run", "`_target_: evil.run` is refused: no installed plugin"),
        ("+hydra.callbacks.a._target_=evil.run", "`_target_: evil.run` is refused: no installed plugin"),
        ("+hydra.callbacks.a='${oc.create:{a:1}}'", "text that becomes config"),
        ("hydra.sweeper=null", "hydra.sweeper: choose one with hydra/sweeper=NAME"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m"]])
def test_a_word_is_refused_before_it_runs_anything(
    word: str, line: str, flags: list[str], trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    outcome = trainkit_here("train", *flags, "epochs=1", word)
    assert (outcome.code, outcome.out) == (2, "")
    assert line in outcome.err
    assert not (tmp_path / "HACKED").exists()


def test_a_launcher_is_chosen_on_the_command_line_alone(trainkit_here: CommandHere, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(f"{START}  - override hydra/launcher: joblib\n")
    outcome = trainkit_here("train", "-m", "seed=0,1")
    assert outcome.code == 2
    assert "hydra/launcher=joblib in a config file is refused" in outcome.err


@pytest.mark.parametrize("option", ["default", "stdout", "none", "disabled"])
def test_hydras_own_logging_is_not_refused(option: str, trainkit_here: CommandHere) -> None:
    words = ["device=cpu", "device.threads=1", "model=linear", "epochs=1", f"hydra/job_logging={option}"]
    assert trainkit_here("train", *words).code == 0


def test_a_variable_that_is_no_secret_can_be_read(
    trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "here"))
    shown = trainkit_here("train", "data_dir=${oc.env:SCRATCH}", "--cfg", "job", "--resolve")
    assert f"data_dir: {tmp_path}/here\n" in shown.out
    shown = trainkit_here("train", "data_dir=${oc.env:NOT_SET,/else}", "--cfg", "job", "--resolve")
    assert "data_dir: /else\n" in shown.out
