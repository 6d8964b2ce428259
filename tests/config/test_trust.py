"""No config file runs code: neither by Hydra's own settings nor by what a checkpoint says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from omegaconf import OmegaConf

from trainkit.config import folders
from trainkit.config.compose import check_jobs
from trainkit.config.frame import Train

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

LOGGING = "# @package hydra.job_logging\nhandlers: {a: {(): evil.run}}\nroot: {handlers: [a]}"
PACKAGED = (folders.packaged_conf() / "train.yaml").read_text().partition("hydra:\n")[0]

# The name of the file under ./conf, what it holds, the words that would use it, what is said.
FILES = [
    ("train.yaml", "hydra: {searchpath: ['pkg://evil']}", "", "hydra.searchpath is refused; name a folder with"),
    ("train.yaml", "hydra: '${oc.create:{searchpath: [pkg://evil]}}'", "", "hydra.searchpath is refused"),
    ("train.yaml", "hydra: {callbacks: {a: {_target_: evil.run}}}", "", "`_target_` is refused"),
    ("train.yaml", "hydra: {job: {env_set: {LD_PRELOAD: evil.so}}}", "", "hydra.job.env_set is refused"),
    ("train.yaml", "hydra: {job: {name: ../../evil}}", "", "hydra.job.name=../../evil is refused; it names a file"),
    ("train.yaml", "hydra: {output_subdir: ../evil}", "", "hydra.output_subdir=../evil is refused; it must be"),
    ("train.yaml", "hydra: {sweep: {subdir: ../evil}}", "", "hydra.sweep.subdir=../evil is refused"),
    ("train.yaml", "hydra: {overrides: {hydra: ['hydra.searchpath=[pkg://evil]']}}", "", "hydra.overrides.hydra.0 is"),
    ("train.yaml", "hydra: {sweeper: {params: {hydra.job.name: x}}}", "", "hydra.sweeper.params is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {(): evil.run}}}}", "", "handlers.a.() is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {class: evil.run}}}}", "", "a.class=evil.run is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {x: ext://evil.run}}}}", "", "handlers.a.x is refused"),
    ("train.yaml", "hydra: {job_logging: {handlers: {a: {filename: /tmp/x}}}}", "", "filename=/tmp/x is refused"),
    ("train.yaml", "hydra: {hydra_logging: {formatters: {a: {class: evil.run}}}}", "", "a.class=evil.run is refused"),
    ("hydra/launcher/evil.yaml", "_target_: evil.run", "-m hydra/launcher=evil", "evil.yaml: `_target_` is refused"),
    ("hydra/sweeper/evil.yaml", "_target_: evil.run", "-m hydra/sweeper=evil", "evil.yaml: `_target_` is refused"),
    ("hydra/callbacks/evil.yaml", "a: {_target_: evil.run}", "hydra/callbacks=evil", "`_target_` is refused"),
    ("hydra/job_logging/evil.yaml", "a: {(): evil.run}", "hydra/job_logging=evil", "job_logging.a.() is refused"),
    ("model/evil.yaml", "# @package hydra.job\nenv_set: {A: b}", "+model@hydra.job=evil", "=evil is refused"),
    ("experiment/evil.yaml", "# @package _global_\nhydra: {job: {env_set: {A: b}}}", "experiment=evil", "env_set is"),
    ("experiment/evil.yaml", "# @package hydra.job\nenv_set: {A: b}", "experiment=evil", "env_set is refused"),
    ("train.yaml", '"\\x68ydra": {job: {env_set: {A: b}}}', "", "hydra.job.env_set is refused"),
    ("train.yaml", "hydra: {sweeper: {max_batch_size: '${oc.${loss.name}:1}'}}", "", "size=${oc.${loss.name}:1} is"),
    ("train.yaml", "hydra: {verbose: '${oc.decode:x}'}", "", "hydra.verbose=${oc.decode:x} is refused"),
    ("train.yaml", "hydra: {job: {chdir: true}}", "", "train.yaml: hydra.job.chdir is refused; as a word"),
    ("hydra/env/default.yaml", "# @package hydra.job\nenv_set: {A: b}", "", "hydra.job.env_set is refused"),
    (
        "model/evil.yaml",
        "defaults: [/dataset@_global_.hydra.job.env_set: digits]",
        "model=evil",
        "dataset=digits in a config",
    ),
    ("model/evil.yaml", "defaults: [/hydra/env/default@_global_.hydra.job]", "model=evil", "hydra/env=default in a co"),
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
        ("hydra.launcher._target_=evil.run", "hydra.launcher._target_=evil.run is refused"),
        ("+hydra.callbacks.a._target_=evil.run", "hydra.callbacks.a._target_=evil.run is refused"),
        ("+hydra.callbacks.a='${oc.create:{a:1}}'", "hydra.callbacks.a is refused"),
        ("hydra.sweeper=null", "hydra.sweeper is refused; choose one with hydra/sweeper=NAME"),
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


def test_a_file_may_set_up_a_launcher_that_a_word_chooses(trainkit_here: CommandHere, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    file = tmp_path / "conf" / "hydra" / "launcher" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("defaults: [joblib, _self_]\nn_jobs: 1\n")
    words = ["device=cpu", "device.threads=1", "model=linear", "epochs=1", "seed=0,1"]
    assert trainkit_here("train", "-m", "hydra/launcher=mine", *words).code == 0


# A file and a word may say this.
SETTINGS = [
    "hydra.run.dir=here",
    "hydra.sweep.dir=${oc.env:HOME}/${now:%Y}",
    "hydra.verbose=true",
    "hydra.verbose=[a,b]",
    "hydra.job.name=mine",
    "hydra.output_subdir=said",
    "hydra.sweeper.max_batch_size=2",
    "hydra.job_logging.root.level=DEBUG",
    "hydra.job_logging.handlers.file.class=logging.FileHandler",
    "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/mine.log'",
]


@pytest.mark.parametrize("word", [*SETTINGS, "hydra.job.chdir=true", "hydra.help.header=x"])
def test_what_a_word_may_set(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders.install([])
    check_jobs("train", [word], True, [])


@pytest.mark.parametrize("word", SETTINGS)
def test_what_a_file_may_set(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    key, _, value = word.partition("=")
    node = OmegaConf.create({"hydra": {"output_subdir": None}})
    OmegaConf.update(node, key, OmegaConf.create(f"x: {value}")._get_node("x"))
    (tmp_path / "train.yaml").write_text(PACKAGED + OmegaConf.to_yaml(node))
    folders.install([tmp_path])
    check_jobs("train", [], True, [])


def sweeping(params: str) -> str:
    """A `train.yaml` that sweeps these keys."""
    return f"{PACKAGED}hydra:\n  sweeper: {{params: {{{params}}}}}\n  output_subdir: null\n"


@pytest.mark.parametrize(
    ("param", "line"),
    [
        ("model: 'linear,evil'", "evil.yaml: hydra.job_logging.handlers.a.() is refused"),
        ("seed: '0,x'", "seed: expected"),
        ("plugins: '[evil]'", "hydra.sweeper.params is refused"),
    ],
)
def test_the_jobs_that_a_file_sweeps_are_checked_too(
    param: str, line: str, trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "evil.yaml").write_text(LOGGING)
    (tmp_path / "conf" / "train.yaml").write_text(sweeping(param))
    outcome = trainkit_here("train", "-m", "epochs=1")
    assert (outcome.code, outcome.out) == (2, "")
    assert line in outcome.err
    assert not (tmp_path / "HACKED").exists()


def test_a_word_goes_before_what_a_file_sweeps(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(sweeping("seed: '0,x', epochs: '1,2'"))
    folders.install([tmp_path])
    assert [job.seed for job in check_jobs("train", ["seed=3"], True, []) if isinstance(job, Train)] == [3, 3]


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
