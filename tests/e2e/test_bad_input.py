"""What a user can get wrong, a row each: one line on stderr for each problem, the exit code, nothing left behind.

The ids begin with the number in the list of faults (tests/faults/fault_table.py); `x` rows came later.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from writers import Content, Link, alias_bomb, class_folders, image, lay_out, npz, png_header, table

if TYPE_CHECKING:
    from conftest import Command, CommandHere

MINE = "conf/model/mine.yaml"
FAST = "device=cpu device.threads=1 epochs=1"
SIDES = r"dataset.image_size=\[.*: expected one number, or two: \[height,width\]"
FOLDER = f"train {FAST} dataset=folder dataset.root=images dataset.image_size=8 model=linear"
NPZ = f"train {FAST} dataset=npz dataset.file=data.npz model=linear"
LINEAR = f"train {FAST} model=linear"


@dataclasses.dataclass(frozen=True)
class Row:
    """A command that must be refused: its words, exit code, a pattern for each line of stderr, the files it finds."""

    id: str
    words: str
    code: int
    lines: str | tuple[str, ...]
    files: dict[str, Content] = dataclasses.field(default_factory=dict)

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.lines,) if isinstance(self.lines, str) else self.lines


def rows(table_of_rows: list[Row]) -> list[Any]:
    return [pytest.param(row, id=row.id) for row in table_of_rows]


def assert_refused(row: Row, code: int, out: str, err: str) -> None:
    lines = err.splitlines()
    assert code == row.code, err
    assert len(lines) == len(row.patterns), err
    for line, pattern in zip(lines, row.patterns, strict=True):
        assert line.startswith("trainkit: error: ")
        assert re.search(pattern, line), f"{pattern!r} is not in {line!r}"
        assert len(line) < 2000
    assert "Traceback" not in out + err
    assert out == ""


def mine(text: str | bytes) -> dict[str, Content]:
    return {MINE: text}


PHOTOS: dict[str, Content] = {"my photos/cat/1.png": image(), "shots/cat/1.png": image()}
EXPERIMENT = (
    r"a config file is an experiment: save it as conf/experiment/my.yaml, with .* write experiment=my; .*--config-dir"
)
OWN = """# @package _global_
defaults:
  - override /optim: {optim}
epoch: 3
optim:
  lr: -1
model:
  hiden: [3]
  hidden: [4, x]
"""


def own(optim: str) -> dict[str, Content]:
    return {"conf/experiment/my.yaml": OWN.format(optim=optim)}


# What is typed by those who come from another program, or have not read on.
STRANGERS = [
    Row("x-flag-for-key", "train --epochs 3", 2, r"unknown flag '--epochs' \(write epochs=3\)$"),
    Row(
        "x-flags-for-keys",
        "train --batch-size=64 --lr 0.1 --optim adam --val-fraction --jsn",
        2,
        (
            r"'--batch-size=64' \(write batch_size=64\)$",
            r"'--lr' \(write optim.lr=0.1\)$",
            r"'--optim' \(write optim=adam\)$",
            r"'--val-fraction' \(write 'val_fraction=…'\)$",
            r"'--jsn' \(did you mean --json\?\)$",
        ),
    ),
    Row("x-flag-of-predict", "predict --input a.png", 2, r"predict: unknown flag '--input' \(write input=a.png\)$"),
    Row("x-argument-alone", "train lr=0.1", 2, r"key 'lr' is not known \(did you mean optim.lr\?\)$"),
    Row("x-option-alone", "train cnn", 2, r"'cnn' alone: write model=cnn$"),
    Row("x-key-alone", "train epochs", 2, r"'epochs' has no value: write epochs=…$"),
    Row(
        "x-folder-for-dataset",
        "train 'dataset=my photos'",
        2,
        r"dataset=my photos: for images in folders write dataset=folder 'dataset.root=my photos'$",
        PHOTOS,
    ),
    Row("x-folder-for-name", "train dataset=shots", 2, r"dataset=folder dataset.root=shots$", PHOTOS),
    Row("x-folder-alone", "train ./shots", 2, r"'./shots' alone: .* dataset=folder dataset.root=./shots$", PHOTOS),
    Row("x-npz-for-dataset", "train dataset=./a.npz", 2, r"write dataset=npz dataset.file=./a.npz$", {"a.npz": npz()}),
    Row(
        "x-npz-alone",
        "train a.npz",
        2,
        r"'a.npz' alone: for arrays write dataset=npz dataset.file=a.npz$",
        {"a.npz": npz()},
    ),
    Row(
        "x-csv-for-dataset",
        "train dataset=a.csv",
        2,
        r"dataset=a.csv: no data set reads such a file: .*npz",
        {"a.csv": "1"},
    ),
    Row(
        "x-no-path-alone", "train /nope/x", 2, r"'/nope/x' alone: no such file or folder; a path is for dataset=folder"
    ),
    Row("x-no-path-for-dataset", "train dataset=/nope/x", 2, r"dataset=/nope/x: no such file or folder; a path is for"),
    Row("x-no-dataset", "train dataset=csv", 2, r"dataset=…: option 'csv' is not known; choose from: .*wine$"),
    Row("x-config-flag", "train --config my.yaml", 2, rf"unknown flag '--config' \({EXPERIMENT}"),
    Row("x-config-alone", "train my.yaml", 2, rf"'my.yaml': {EXPERIMENT}"),
    Row("x-config-as-cfg", "train --cfg my.yaml", 2, rf"--cfg: invalid choice: 'my.yaml' .*; {EXPERIMENT}"),
    Row(
        "x-values-in-an-experiment",
        "train experiment=my",
        2,
        (
            r"error: conf/experiment/my.yaml:4: key 'epoch' is not known \(did you mean epochs\?\)",
            r"error: conf/experiment/my.yaml:8: key 'model.hiden' is not known",
            r"error: conf/experiment/my.yaml:9: model.hidden\[1\]: expected an integer >= 1, got 'x'$",
            r"error: conf/experiment/my.yaml:6: optim.lr: expected a number > 0, got -1$",
        ),
        own("adam"),
    ),
    Row(
        "x-option-in-an-experiment",
        "train experiment=my",
        2,
        r"error: conf/experiment/my.yaml:3: optim=…: option 'adm' is not known \(did you mean adam\?\)",
        own("adm"),
    ),
    Row(
        "x-words-over-an-experiment",
        "train experiment=my optim.lr=-2 model.hidden=[x] ~epoch ~model.hiden",
        2,
        (r"error: model.hidden\[0\]: expected", r"error: optim.lr: expected a number > 0, got -2$"),
        own("sgd"),
    ),
    Row(
        "x-value-in-an-option",
        "train model=mine",
        2,
        r"error: conf/model/mine.yaml:2: model.norm: value 'x' is not",
        mine("name: mlp\nnorm: x\n"),
    ),
]

# Refused before anything starts: exit code 2, no run folder.
CONFIG = [
    Row(
        "r01-wrong-key",
        "train modle=cnn",
        2,
        r"key 'modle' is not known \(did you mean model\?\); --help lists all \d+$",
    ),
    Row(
        "r01-what-others-call-it",
        "train report=[tensorboard]",
        2,
        r"key 'report' is not known \(did you mean loggers\?\); --help lists all \d+",
    ),
    Row(
        "r02-wrong-option",
        "train model=cnnn",
        2,
        r"'cnnn' is not known .*cnn\?\); choose from: airbench, cnn, .*timm, torchvision$",
    ),
    Row(
        "r02-empty-option",
        "train model=",
        2,
        r"model=…: option '' is not known; choose from: airbench, cnn, .*timm, torchvision$",
    ),
    Row(
        "r03-wrong-argument",
        "train optim.lrr=1",
        2,
        r"optim=sgd: key 'optim.lrr' is not known \(did you mean optim.lr\?.* momentum",
    ),
    Row(
        "r04-several",
        "train seed=abc batch_size=3.5 epochs=-1",
        2,
        (
            r"seed: expected an integer, got 'abc'$",
            r"batch_size: expected an integer >= 1, got 3.5$",
            r"epochs: expected an integer >= 1, got -1$",
        ),
    ),
    Row("r04-bool", "train seed=true", 2, r"seed: expected an integer, got True$"),
    Row("r04-list", "train model.hidden=[4,x]", 2, r"model.hidden\[1\]: expected an integer >= 1, got 'x'$"),
    Row("r04-nested", "train device.cudnn.benchmark=1", 2, r"device.cudnn.benchmark: expected true or false, got 1$"),
    Row("r05-nan", "train optim.lr=nan", 2, r"optim.lr: expected a number > 0, got nan$"),
    Row("r05-inf", "train optim.lr=inf", 2, r"optim.lr: expected a number > 0, got inf$"),
    Row("r06-missing", "train dataset=folder", 2, r"dataset.root is required \(a path\): add dataset.root=…$"),
    Row(
        "r06-removed-group",
        "train ~model",
        2,
        r"model has no `name:`; choose one with model=…: airbench, cnn, .*timm, torchvision$",
    ),
    Row("r06-no-ckpt", "eval", 2, r"ckpt is required .*: add ckpt=…$"),
    Row("r06-no-name", "train model=mine", 2, r"model has no `name:`; choose one", mine("hidden: [8]\n")),
    Row("r06-empty-file", "train model=mine", 2, r"model has no `name:`; choose one", mine("")),
    Row("r07-cycle", "train 'monitor=${patience}' 'patience=${monitor}'", 2, r"monitor: .*runs in a circle$"),
    Row("r07-cycle-alone", "train 'monitor=${monitor}'", 2, r"monitor: .*runs in a circle$"),
    Row(
        "r07-cycle-in-file",
        "train model=mine",
        2,
        r"model.hidden: .*runs in a circle$",
        mine("name: mlp\nhidden: ${model.dropout}\ndropout: ${model.hidden}\n"),
    ),
    Row(
        "r08-alias-bomb",
        "train model=mine",
        2,
        r"mine.yaml: its aliases expand to more than 10,000",
        mine(alias_bomb()),
    ),
    Row("r08-endless-alias", "train model=mine", 2, r"mine.yaml: its aliases", mine("name: mlp\nhidden: &a [*a]\n")),
    Row("r08-huge-file", "train model=mine", 2, r"mine.yaml: larger than 1,000,000 bytes", mine("#" * 1_000_001)),
    Row("r08-deep-file", "train model=mine", 2, r"mine.yaml: nested too deep", mine("a: " + "[" * 1000 + "]" * 1000)),
    Row("r08-deep-value", f"train model.hidden={'[' * 500}{']' * 500}", 2, r"cannot read .*\[…': nested too deep"),
    Row(
        "r09-duplicate-key",
        "train model=mine",
        2,
        r"mine.yaml:3: found duplicate key name",
        mine("# x\nname: a\nname: b"),
    ),
    Row("r09-tab", "train model=mine", 2, r"mine.yaml:3: found character '\\t'", mine("name: mlp\nhidden:\n\t- 1\n")),
    Row("r09-not-utf-8", "train model=mine", 2, r"mine.yaml:2: not UTF-8 text", mine(b"name: mlp\n# caf\xe9\n")),
    Row(
        "r09-open-bracket", "train model=mine", 2, r"mine.yaml:3: expected ',' or ']'", mine("name: mlp\nhidden: [1\n")
    ),
    Row("r09-nul-byte", "train model=mine", 2, r"mine.yaml: unacceptable character", mine("name: mlp\0\n")),
    Row("r09-a-list", "train model=mine", 2, r"mine.yaml: holds a list, not", mine("- name: mlp\n")),
    Row("r09-bad-interpolation", "train model=mine", 2, r"mine.yaml: dropout: ", mine("name: mlp\ndropout: ${nope\n")),
    Row(
        "r10-octal-and-no",
        "train model=mine",
        2,
        (r"model.hidden: expected a list.*, got 8$", r"model.dropout: .*, got False$"),
        mine("name: mlp\nhidden: 010\ndropout: no\n"),
    ),
    Row("r10-clock", "train model=mine", 2, r"model.dropout: .*, got 45000$", mine("name: mlp\ndropout: 12:30:00\n")),
    Row("r11-two-equals", "train 'monitor=a b=c'", 2, r"cannot read the override 'monitor=a b=c': .*; write key=value"),
    Row("r11-space-in-key", "train 'a b=c'", 2, r"cannot read the override 'a b=c': .*' '"),
    Row("r11-open-quote", "train 'monitor=\"x'", 2, r"cannot read the override .*quote a value"),
    Row("r11-open-brace", "train 'model.hidden=[1,2'", 2, r"cannot read the override 'model.hidden=\[1,2': .*'\[1,2'"),
    Row(
        "r11-without-a-partner",
        "train 'monitor=\"x' 'model.hidden=[1,2'",
        2,
        (
            r"cannot read .*\(\" at character 9 is never closed: monitor=\^\"x\)",
            r"cannot read .*\(\[ at character 14 is never closed: model.hidden=\^\[1,2\)",
        ),
    ),
    Row("r11-no-equals", "train frog", 2, r"cannot read the override 'frog'"),
    Row(
        "r11-choice-without-m",
        "train seed=0,1",
        2,
        r"seed=0,1: several values need a sweep \(-m.*; for a list write seed=\[0,1\]$",
    ),
    Row("r13-name-with-path", "train model.name=../../x", 2, r"model.name: '../../x' is not known"),
    Row("r13-absolute-name", "train dataset.name=/x", 2, r"dataset.name: '/x' is not known"),
    Row("r13-option-with-path", "train model=../../model/mlp", 2, r"model=…: option '../../model/mlp' is not known"),
    Row("r13-no-such-key", "train run.name=../../x", 2, r"key 'run' is not known"),
    Row("r13-empty-folder-name", "train output_dir=", 2, r"output_dir: expected a path, got ''$"),
    Row(
        "r13-hydras-names",
        "train hydra.job.name=../../x hydra.output_subdir=../x output_dir=",
        2,
        (
            r"hydra.job.name=\.\./\.\./x is refused; it names a file",
            r"hydra.output_subdir=.* is refused; it must be a plain name",
            r"output_dir: expected a path",
        ),
    ),
    Row("r14-no-config-dir", "train --config-dir nope", 2, r"config folder '.*/nope' does not exist$"),
    Row("r14-config-dir-is-file", "train -cd nope", 2, r"config folder '.*/nope' does not exist$", {"nope": ""}),
    Row("r14-option-is-folder", "train model=mine", 2, r"option 'mine' is not known", {MINE: None}),
    Row(
        "r14-defaults",
        "train model=mine",
        2,
        r"'cnnn' is not known \(did you mean cnn",
        mine("defaults: [cnnn, _self_]"),
    ),
    Row(
        "r15-unknown-verb",
        "trian",
        2,
        r"command 'trian' is not known \(did you mean train\?\); choose from: train, eval",
    ),
    Row("r15-unknown-flag", "train --mulitrun", 2, r"unknown flag '--mulitrun' \(did you mean --multirun\?\)$"),
    Row("r15-hydras-pickle", "train --experimental-rerun x", 2, r"unknown flag '--experimental-rerun'"),
    Row("r15-flag-first", "--mutlirun", 2, r"flag '--mutlirun' is not known"),
    Row("r15-flag-value", "train --cfg jbo", 2, r"--cfg: invalid choice: 'jbo' \(choose from"),
    Row(
        "r15-sweeper-params",
        "train -m +hydra.sweeper.params={seed:1}",
        2,
        r"hydra.sweeper.params is refused; .*write seed=1",
    ),
    Row("r15-flag-without-value", "train --config-dir", 2, r"--config-dir.*: expected one argument$"),
    Row("r15-ls-group", "ls modl", 2, r"group 'modl' is not known \(did you mean model\?\)"),
    Row("r15-ls-flag", "ls --foo", 2, r"ls: unknown flag '--foo' \(see trainkit ls --help\)$"),
    Row("r15-resume-nothing", "resume", 2, r"resume: a run folder is needed: trainkit resume outputs/train/RUN$"),
    Row("r15-resume-flag", "resume RUN --jsn", 2, r"resume: unknown flag '--jsn' \(did you mean --json\?\)$"),
    Row("r15-reproduce-two", "reproduce A B", 2, r"reproduce: one run folder at a time, not also 'B': "),
    Row(
        "r16-newer-config",
        "train model=mine",
        2,
        r"key 'model.experts' is not known",
        mine("name: mlp\nexperts: 8\n"),
    ),
    Row("r17-plus-key", "train +epocs=1", 2, r"key 'epocs' is not known \(did you mean epochs\?\)"),
    Row("r17-plus-plus-key", "train ++epocs=1", 2, r"key 'epocs' is not known \(did you mean epochs\?\)"),
    Row(
        "r17-plus-argument", "train +model.hiden=[1]", 2, r"key 'model.hiden' is not known \(did you mean model.hidden"
    ),
    Row("r17-minus-key", "train ~modle", 2, r"~modle: there is no such key to remove"),
    Row(
        "r17-key-in-file",
        "train model=mine",
        2,
        r"'model.hiden' .*did you mean model.hidden",
        mine("name: mlp\nhiden: [1]"),
    ),
    Row("x-gpu", "train device=gpu", 2, r"device=…: option 'gpu' .*choose from: auto, cpu, cuda$"),
    Row(
        "r44-no-such-device",
        "train device=cpu:1 epochs=0",
        2,
        (r"device=cpu:1: the CPU has no index; use device=cpu", r"epochs: expected an integer >= 1"),
    ),
    Row(
        "x-target", "train model=mine", 2, r"mine.yaml: `_target_` is refused", mine("name: mlp\n_target_: os.system\n")
    ),
    Row("x-deep-target", "train model=mine", 2, r"`_target_` is refused", mine("name: mlp\nhidden: [{_target_: x}]\n")),
    Row("x-target-typed", "train +model._target_=os.system", 2, r"key 'model._target_' is not known"),
    Row(
        "x-python-tag",
        "train model=mine",
        2,
        r"mine.yaml:2: could not determine a constructor",
        mine("name: mlp\nhidden: !!python/object/apply:os.system ['touch hacked']\n"),
    ),
    Row(
        "x-name-not-registered",
        "train model=mine",
        2,
        r"model.name: 'cnm' .*mean cnn\?.*needs plugins=",
        mine("name: cnm\n"),
    ),
    Row("x-resolver", "train 'seed=${nope:1}'", 2, r"seed: Unsupported interpolation type nope$"),
    Row("x-plugin-missing", "train plugins=[nope.models]", 2, r"plugins: cannot import 'nope.models' \(ModuleNotFound"),
    Row(
        "x-plugin-syntax",
        "train plugins=[bad_a]",
        2,
        r"cannot import 'bad_a' \(SyntaxError: .*",
        {"bad_a.py": "def f(:"},
    ),
    Row("x-plugin-raises", "train plugins=[bad_b]", 2, r"import 'bad_b' \(ZeroDivisionError: ", {"bad_b.py": "1 / 0"}),
    Row(
        "x-plugin-exits",
        "train plugins=[bad_c]",
        2,
        r"import 'bad_c' \(SystemExit: 0\)",
        {"bad_c.py": "raise SystemExit(0)"},
    ),
    Row(
        "x-plugin-not-list",
        "train plugins=mod",
        2,
        r"plugins: expected a list of module names: plugins=\[my_package.mod",
    ),
    Row("x-empty-sweep", "train -m 'seed=range(0)'", 2, r"the sweep has no job"),
    Row("x-mode", "train hydra.mode=MULTIRUN", 2, r"hydra.mode is refused; trainkit sets it: add -m"),
    Row("x-launcher", "train -m hydra/launcher=nope seed=0,1", 2, r"hydra/launcher=…: option 'nope' is not known"),
    Row("x-config-name", "train --config-name nope", 2, r"nope"),
    Row(
        "x-several",
        "train optim.lrr=1 seed=x model=cnnn epochs=-3 modle=5 'a b=c' dataset=npz",
        2,
        (
            r"cannot read the override 'a b=c'",
            r"option 'cnnn' is not known",
            r"key 'modle' is not known",
            r"key 'optim.lrr' is not known",
            r"dataset.file is required",
            r"seed: expected an integer, got 'x'",
            r"epochs: expected an integer >= 1, got -3",
        ),
    ),
    Row(
        "x-several-in-a-sweep",
        "train -m model=mlp,cnnn optim=sgd,adm seed=0,x",
        2,
        (r"seed: expected an integer, got 'x'", r"optim=…: option 'adm'.*adam", r"model=…: option 'cnnn'.*cnn"),
    ),
    *STRANGERS,
]


SAMPLE = ("r01-wrong-key", "r08-alias-bomb", "r09-not-utf-8", "r11-open-quote", "r15-unknown-verb", "x-plugin-exits")


@pytest.mark.parametrize("row", rows([row for row in CONFIG if row.id in SAMPLE]))
def test_refused_by_the_command_itself(row: Row, trainkit: Command, tmp_path: Path) -> None:
    lay_out(tmp_path, row.files)
    done = trainkit(*shlex.split(row.words))
    assert_refused(row, done.returncode, done.stdout, done.stderr)


def test_no_argument_shows_the_usage(trainkit_here: CommandHere) -> None:
    nothing, asked = trainkit_here(), trainkit_here("--help")
    assert (nothing.code, asked.code) == (2, 0)
    assert asked.out.startswith("usage: trainkit COMMAND") and asked.err == ""
    assert "usage: trainkit COMMAND" in nothing.out + nothing.err


@pytest.mark.parametrize("value", ["données", "a b", "ü/ö", "日本"])
def test_r12_a_value_that_is_not_ascii_needs_no_quotes(value: str, trainkit: Command) -> None:
    done = trainkit("train", f"data_dir={value}", "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"data_dir: {value}\n" in done.stdout


def test_r10_cfg_shows_what_yaml_made_of_a_value(trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, mine("name: mlp\nhidden: 010\ndropout: 12:30:00\nnorm: no\n"))
    shown = trainkit_here("train", "model=mine", "--cfg", "job", "-p", "model")
    assert shown.code == 0
    assert "hidden: 8\n" in shown.out and "dropout: 45000\n" in shown.out and "norm: false\n" in shown.out


# Refused once data, device or model are known. The run folder stays and says why.
X, Y = table()["x"], table()["y"]


def changed(array: Any, row: int, value: Any) -> Any:
    array = np.array(array)
    array[row] = value
    return array


def data(**arrays: Any) -> dict[str, Content]:
    return {"data.npz": npz(**arrays)}


def cat(name: str, content: Content) -> dict[str, Content]:
    return class_folders() | {f"images/cat/{name}": content}


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


# Torch has no deterministic implementation of unpooling, on any device.
UNPOOL = """
from math import prod
from torch import nn
from trainkit.registry import register

class Unpool(nn.Module):
    def __init__(self, features, num_outputs):
        super().__init__()
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.out = nn.Linear(features, num_outputs)

    def forward(self, x):
        return self.out(self.unpool(*self.pool(x)).flatten(1))

@register("model")
def unpool(in_shape, num_outputs):
    return Unpool(prod(in_shape), num_outputs)
"""

START = [
    Row("r13-long-name", f"train output_dir={'x' * 300}", 6, r"cannot make the run folder .*File name too long"),
    Row("x-output-is-file", "train output_dir=here", 6, r"cannot make the run folder .*here", {"here": "a file"}),
    Row("x-output-is-file-deep", "train output_dir=a", 6, r"cannot make the run folder .*a/train", {"a/train": ""}),
    Row("x-sweep-output-is-file", "train -m output_dir=a seed=0,1", 6, r"cannot make the run folder", {"a": ""}),
]

DATA = [
    Row("r18-no-root", FOLDER, 3, r"dataset.root=.*/images: no such folder$"),
    Row("r18-empty-root", FOLDER, 3, r"dataset.root=.*/images: no folders in it; expected", {"images": None}),
    Row(
        "r18-empty-train",
        FOLDER,
        3,
        r"images/train: no class folders in it",
        {"images/train": None, "images/val": None},
    ),
    Row(
        "r18-empty-val",
        FOLDER,
        3,
        r"images/val: no class folders",
        class_folders("images/train") | {"images/val": None},
    ),
    Row("r18-empty-array", NPZ, 3, r"data.npz: x \(0, 3\) and y \(0,\) .*are empty", data(x=X[:0], y=Y[:0])),
    Row("r18-empty-test", NPZ, 3, r"data.npz: .*_test.*empty", data(x_train=X, y_train=Y, x_test=X[:0], y_test=Y[:0])),
    Row("r18-nothing-to-hold-out", NPZ, 3, r"2 samples are too few to hold out", data(x=X[:2], y=Y[:2])),
    Row("r21-label-minus-one", NPZ, 3, r"data.npz.*row 4 is -1, outside 0", data(x=X, y=changed(Y, 4, -1))),
    Row("r21-label-too-large", NPZ, 3, r"data.npz: the label in row 4 is 99", data(x=X, y=changed(Y, 4, 99))),
    Row(
        "r21-label-without-name",
        f"{NPZ} dataset.classes=[a,b]",
        3,
        r"row 4 is 2, outside 0..1",
        data(x=X, y=changed(Y, 4, 2)),
    ),
    Row("r22-class-without-image", FOLDER, 3, r"images/bird: no image in this class folder", class_folders(bird=None)),
    Row(
        "r22-class-not-in-train",
        FOLDER,
        3,
        r"images/val/bird: class 'bird' is not known.*cat, dog",
        class_folders("images/train") | {"images/val/bird/0.png": image()},
    ),
    Row(
        "r23-cut-jpeg",
        FOLDER,
        3,
        r"images/cat/a.jpg: .*[Tt]runcated.*on_bad=skip",
        cat("a.jpg", image("JPEG", size=64)[:500]),
    ),
    Row(
        "r23-cut-png",
        FOLDER,
        3,
        r"images/cat/a.png: not a readable image .*(truncated|broken).*remove it or set dataset.on_bad=skip",
        cat("a.png", image(size=64)[:500]),
    ),
    Row(
        "r24-flipped-png",
        FOLDER,
        3,
        r"images/cat/a.png: not a readable image",
        cat("a.png", flipped(image(size=64), 2000)),
    ),
    Row("r22-one-side", f"{FOLDER} dataset.image_size=[8]", 2, SIDES, class_folders()),
    Row("r22-three-sides", f"{FOLDER} dataset.image_size=[8,8,3]", 2, SIDES, class_folders()),
    Row(
        "r22-no-size",
        f"{FOLDER} dataset.image_size=[8,0]",
        2,
        r"dataset.image_size: expected an integer >= 1 or a list",
    ),
    Row("r22-resize", f"{FOLDER} dataset.resize=padd", 2, r"dataset.resize: value 'padd' .*did you mean pad"),
    Row(
        "r22-share",
        f"{FOLDER} dataset.crop_share=1.5",
        2,
        r"dataset.crop_share: expected a number > 0 and <= 1",
    ),
    Row("r22-crop", f"{FOLDER} augment=photo augment.crop_scale=0", 2, r"augment.crop_scale: expected a number > 0"),
    Row("r22-policy", f"{FOLDER} augment=photo augment.policy=randd", 2, r"augment.policy: .*did you mean rand"),
    Row("r22-share-of-none", f"{FOLDER} dataset.crop_share=0.5", 2, r"crop_share=0.5 is for dataset.resize=crop"),
    Row("r25-text", FOLDER, 3, r"images/cat/a.jpg: not a readable image \(cannot identify", cat("a.jpg", "some text")),
    Row("r25-empty-file", FOLDER, 3, r"images/cat/a.jpg: not a readable image", cat("a.jpg", "")),
    Row("r27-bomb", FOLDER, 3, r"images/cat/a.png: .*decompression bomb", cat("a.png", png_header(20000, 20000))),
    Row("r27-small-bomb", FOLDER, 3, r"images/cat/a.png: .*decompression bomb", cat("a.png", png_header(10000, 10000))),
    Row("r28-dangling-image", FOLDER, 3, r"images/cat/a.png: .*No such file", cat("a.png", Link("gone"))),
    Row("r28-dangling-folder", FOLDER, 3, r"images/bird: a link that leads nowhere", class_folders(bird=Link("gone"))),
    Row("r28-loop", FOLDER, 3, r"images/cat/a.png: .*symbolic links", cat("a.png", Link("a.png"))),
    Row("r28-no-file", NPZ, 3, r"dataset.file=.*/data.npz: no such file$"),
    Row("r31-missing-array", NPZ, 3, r"data.npz: it has x, but not y$", data(x=X)),
    Row("r31-wrong-names", NPZ, 3, r"data.npz: neither x, y nor x_train, y_train; it holds a, b$", data(a=X, b=Y)),
    Row(
        "r31-nan-feature",
        NPZ,
        3,
        r"data.npz.*: inputs: row 7, column 0 is nan",
        data(x=changed(X, (7, 0), np.nan), y=Y),
    ),
    Row(
        "r31-unknown-text-label",
        NPZ,
        3,
        r"data.npz \(test\): the label in row 1 is 'owl', which is none of \['cat', 'dog'\]",
        data(x_train=X, y_train=np.where(Y, "cat", "dog"), x_test=X[:2], y_test=np.array(["cat", "owl"])),
    ),
    Row("r31-objects", NPZ, 3, r"data.npz: cannot be read .*objects", data(x=X, y=np.array([{}] * 20, dtype=object))),
    Row("r31-not-npz", NPZ, 3, r"data.npz: cannot be read", {"data.npz": "x,y\n1,2\n"}),
    Row("r31-cut-npz", NPZ, 3, r"data.npz: cannot be read", {"data.npz": npz(**table())[:200]}),
    Row("r32-mean-nan", NPZ, 3, r"inputs: row 0, column 2 is inf", data(x=changed(X, (0, 2), np.inf), y=Y)),
]

OTHERS = safetensors.numpy.save({"a.weight": np.zeros((3, 2), np.float32)})
VGG = f"train {FAST} model=torchvision model.arch=vgg11"
WEIGHTS = [
    Row("x-init-missing", f"{LINEAR} init=w.pth", 3, r"init: .*w.pth cannot be read \(No such file"),
    Row(
        "x-init-of-another-model",
        f"{LINEAR} init=w.safetensors",
        3,
        r"does not fit the model beyond its head: 0 of 2 tensors match; a.weight is not in the model; init.allow=",
        {"w.safetensors": OTHERS},
    ),
    Row(
        "x-init-cut",
        f"{LINEAR} init=w.safetensors",
        3,
        r"w.safetensors is not a whole safetensors file",
        {"w.safetensors": OTHERS[:-4]},
    ),
    Row(
        "x-init-code",
        f"{LINEAR} init=w.pth",
        3,
        r"w.pth (holds more than tensors, which could run code|is no file of weights)",
        {"w.pth": b"cos\nsystem\n(S'touch HACKED'\ntR."},
    ),
    Row("x-init-not-a-run", f"{LINEAR} init=some/", 4, r"some holds no checkpoints/best", {"some/a": "b"}),
    Row("x-init-mean-alone", f"{LINEAR} init=w.safetensors init.mean=[0]", 2, r"belong", {"w.safetensors": OTHERS}),
    Row("x-init-of-none", f"{LINEAR} init=pretrained", 2, r"init=pretrained is for model=torchvision and model=timm"),
    Row("x-image-too-small", VGG, 2, r"vgg11 cannot take images of 8x8 .*; dataset.image_size=32 fits$"),
    Row(
        "x-freeze-nothing",
        f"{LINEAR} finetune=groups finetune.freeze=[layer4.*]",
        2,
        r"finetune.freeze: 'layer4.\*' matches no parameter; they are called 1.weight",
    ),
    Row("x-freeze-all", f"{LINEAR} finetune=groups finetune.freeze=['*']", 2, r"leaves no parameter to train"),
]

KFOLD = f"{LINEAR} holdout=kfold"
GROUPED = f"{FOLDER} dataset.test_fraction=0 holdout=grouped"
HELD = [
    Row("x-fold-out-of-range", f"{KFOLD} holdout.fold=5", 2, r"holdout.fold=5: of holdout.folds=5 the last one is 4$"),
    Row("x-one-fold", f"{KFOLD} holdout.folds=1", 2, r"holdout.folds: expected an integer >= 2, got 1"),
    Row("x-more-folds-than-samples", f"{KFOLD} holdout.folds=5000", 3, r"holdout.folds=5000: there are only 1438"),
    Row(
        "x-kfold-with-val",
        f"{NPZ} holdout=kfold",
        3,
        r"dataset npz has a val split of its own: use holdout=given",
        data(x_train=X, y_train=Y, x_val=X, y_val=Y, x_test=X, y_test=Y),
    ),
    Row(
        "x-class-of-one-image",
        f"{FOLDER} dataset.test_fraction=0 holdout=kfold",
        3,
        r"holdout=kfold: 1 class has a single sample, which a fold would hold out",
        class_folders() | {"images/owl/0.png": image()},
    ),
    Row("x-no-pattern", f"{LINEAR} holdout=grouped", 2, r"holdout.pattern is required"),
    Row("x-pattern-syntax", f"{LINEAR} holdout=grouped 'holdout.pattern=\"(a\"'", 2, r"not a regular expression"),
    Row(
        "x-pattern-without-files",
        f"{LINEAR} holdout=time holdout.pattern=a",
        3,
        r"looks into the names of files, and these samples",
    ),
    Row(
        "x-pattern-finds-nothing",
        f"{GROUPED} holdout.pattern=patient",
        3,
        r"holdout.pattern=patient finds nothing in cat/0.png",
        class_folders(),
    ),
    Row(
        "x-one-group",
        f"{GROUPED} holdout.pattern=png",
        3,
        r"the pattern finds 1 groups \(png\), 2 are needed",
        class_folders(),
    ),
]

FIT = [
    Row("r40-ignored-labels", NPZ, 3, r"the label in row 0 is -100; classes count from 0$", data(x=X, y=[-100] * 20)),
    Row("r41-fp16", f"{LINEAR} precision=fp16", 2, r"precision=fp16"),
    Row("r53-no-checkpoint", "eval ckpt=gone", 4, r"checkpoint '.*/gone' does not exist; name a run folder"),
    Row(
        "r55-pickle",
        "eval ckpt=evil.pt",
        4,
        r"is not a whole trainkit checkpoint$",
        {"evil.pt": b"cos\nsystem\n(S'touch HACKED'\ntR."},
    ),
    Row(
        "x-loss-regression",
        f"train {FAST} loss=mse",
        2,
        r"loss 'mse' cannot train dataset 'digits', which is classification; choose from: auto, cross_ent",
    ),
    Row(
        "x-loss-classes",
        f"train {FAST} dataset=diabetes loss=cross_entropy",
        2,
        r"cannot train dataset .*: auto, huber, l1, mse$",
    ),
    Row("x-loss-weights", f"train {FAST} loss=cross_entropy loss.weight=[1,2]", 2, r"loss.weight: "),
    Row(
        "x-cnn-on-table",
        f"train {FAST} dataset=wine model=cnn",
        2,
        r"model cnn needs images.*13 features: use model=mlp$",
    ),
    Row(
        "x-cnn-too-deep", f"train {FAST} model=cnn model.channels=[4,4,4,4]", 2, r"model.channels: 4 stages .*at most 3"
    ),
    Row(
        "x-augment-on-table",
        f"train {FAST} dataset=wine augment=flip_crop",
        2,
        r"augment is for images, dataset wine has none: use augment=none",
    ),
    Row(
        "r47-memory",
        f"train {FAST} 'model.hidden=[1000000,1000000]'",
        6,
        r"out of memory with batch_size=128 \(4000000000000 bytes .*try accumulate=2 .*, a smaller batch_size",
    ),
    Row("x-monitor", f"train {FAST} monitor=acc", 2, r"monitor=acc: choose from: auto, loss, accuracy, top5_accuracy"),
    Row("x-monitor-mode", f"train {FAST} monitor=loss:up", 2, r"monitor=loss:up: choose from: .*:min or :max"),
    Row(
        "x-monitor-without-val",
        f"train {FAST} val_fraction=0 monitor=macro_f1",
        2,
        r"choose from: auto, loss, accuracy, last;",
    ),
]


# Refused by the first steps: a run has begun, and its folder says why it failed.
BEGUN = [
    Row(
        "x-batch-norm-of-one-sample",
        f"train {FAST} model.norm=batch batch_size=1",
        2,
        r"batch norm cannot train on one sample: raise batch_size, lower accumulate, or take .* norm$",
    ),
    Row(
        "r48-no-deterministic-form",
        f"train {FAST} plugins=[unpooling] model=unpool device.deterministic=true",
        2,
        r"device.deterministic=true: max_unpooling2d_\w+ has no deterministic implementation here",
        {"unpooling.py": UNPOOL, "conf/model/unpool.yaml": "name: unpool\n"},
    ),
    Row("r38-not-finite", f"{LINEAR} optim.lr=1e38", 5, r"not finite|loss is (nan|inf)"),
]


def assert_recorded(row: Row, outputs: Path, err: str) -> None:
    (status,) = [json.loads(path.read_text()) for path in outputs.glob("*/*/status.json")]
    assert (status["state"], status["exit_code"]) == ("failed", row.code)
    assert err == f"trainkit: error: {status['error']}\n"
    assert not list(outputs.glob("*/*/.lock"))


def contents(folder: Path) -> dict[Path, bytes]:
    """What lies in a folder, its own folders and links included, but for what Python compiled."""
    paths = [path for path in folder.rglob("*") if "__pycache__" not in path.parts]
    return {path: path.read_bytes() if path.is_file() else b"" for path in paths}


@pytest.mark.parametrize("row", rows(CONFIG + START + DATA + WEIGHTS + HELD + FIT + BEGUN))
def test_refused(row: Row, trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, row.files)
    before, outputs = contents(tmp_path), tmp_path / "outputs"
    outcome = trainkit_here(*shlex.split(row.words))
    after = contents(tmp_path)
    begun = row in BEGUN
    assert_refused(row, outcome.code, "" if begun else outcome.out, outcome.err)
    assert "Traceback" not in outcome.out
    if begun:
        assert_recorded(row, outputs, outcome.err)
        assert after.items() >= before.items()
        assert {path for path in after if not path.is_relative_to(outputs)} == before.keys()
        return
    assert not list(outputs.glob("*/*"))  # nothing has begun
    if row in CONFIG:
        assert not outputs.exists()
    empty = {outputs, *(path for path in outputs.glob("*") if path.is_dir())}  # made before the data is read
    assert {path: content for path, content in after.items() if path not in empty} == before


def no_cuda() -> bool:
    import torch

    return not torch.cuda.is_available()


@pytest.mark.parametrize("words", ["device=cuda", "device=cuda:7", "device=cuda device.index=7"])
def test_cuda_without_one(words: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    if not no_cuda():
        pytest.skip("this machine has a CUDA device")
    row = Row(
        "cuda", f"train {words}", 2, r"device=cuda: there is no CUDA device here .*use device=cpu or device=auto$"
    )
    outcome = trainkit_here(*shlex.split(row.words))
    assert_refused(row, outcome.code, outcome.out, outcome.err)
    assert not list((tmp_path / "outputs").glob("*/*"))  # nothing has begun


@pytest.mark.parametrize(
    ("name", "files"),
    [("mnist", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]), ("cifar10", ["cifar-10-binary.tar.gz"])],
)
def test_r29_no_network(
    name: str, files: list[str], trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # where nothing listens: every connection is refused at once
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    folder = tmp_path / "downloads"
    row = Row("r29", f"train {FAST} dataset={name} data_dir=downloads", 3, re.escape(str(folder)))
    outcome = trainkit_here(*shlex.split(row.words))
    assert_refused(row, outcome.code, outcome.out, outcome.err)
    assert all(file in outcome.err for file in files)
    assert "by hand" in outcome.err
    assert list(folder.rglob("*")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder; data/test_datasets_folder.py changes the user")
@pytest.mark.parametrize("place", ["images", "images/cat", "images/cat/0.png"])
def test_r28_forbidden(place: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, class_folders())
    mode = (tmp_path / place).stat().st_mode
    (tmp_path / place).chmod(0)
    outcome = trainkit_here(*shlex.split(FOLDER))
    (tmp_path / place).chmod(mode)
    row = Row("r28", FOLDER, 3, re.escape(str(tmp_path / place)))
    assert_refused(row, outcome.code, outcome.out, outcome.err)


# Not refused: what must go well although it looks odd, with what is said about it (a pattern each).
FINE = [
    Row("r17-minus-key", f"train {FAST} ~seed", 0, r"run folder: "),
    Row(
        "r19-batch-larger-than-data",
        f"{NPZ} batch_size=5000",
        0,
        (
            r" 1 x 1 steps of 5000 ",
            r"note: batch_size=5000 is larger than the train split \(36\): a step is an epoch\n",
        ),
        data(**table(50)),
    ),
    Row(
        "r20-lone-sample",
        f"train {FAST} dataset=npz dataset.file=data.npz model=mlp model.norm=batch batch_size=8",
        0,
        (r" 1 x 3 steps of 8 ", r"note: the last batch would hold one sample; it joins the batch before it"),
        data(x_train=table(25)["x"], y_train=table(25)["y"], x_val=X, y_val=Y, x_test=X[:1], y_test=Y[:1]),
    ),
    Row(
        "r22-hidden-folder", FOLDER, 0, r"folder 3x8x8, classification: ", class_folders(**{".ipynb_checkpoints": None})
    ),
    Row(
        "r23-skip",
        f"{FOLDER} dataset.on_bad=skip",
        0,
        r"note: train: 1 of 21 images could not be read and were left out; the first is .*images/cat/a.jpg",
        cat("a.jpg", image("JPEG", size=64)[:500]),
    ),
    Row(
        "r25-no-images",
        FOLDER,
        0,
        r"note: .*what is no image was left out: 1 folders",
        cat("x.png", None) | {"images/cat/Thumbs.db": "x", "images/dog/.DS_Store": "x"},
    ),
    Row(
        "r26-color-modes",
        FOLDER,
        0,
        r"train 19, .*\btest 5\b.* samples",
        class_folders(each=10)
        | {
            f"images/cat/m{mode}.{kind.lower()}": image(kind, mode)
            for kind, mode in [
                *(("PNG", m) for m in ("L", "LA", "RGBA", "P", "1", "I;16")),
            ]
        },
    ),
    Row("r26-cmyk", FOLDER, 0, r"classification: ", cat("cmyk.jpg", image("JPEG", "CMYK"))),
    Row(
        "x-patience-without-val",
        f"{NPZ} val_fraction=0 patience=2",
        0,
        r"note: patience=2 watches the accuracy of train: there is no val split\n",
        data(**table()),
    ),
    Row(
        "x-val-without-test",
        FOLDER,
        0,
        (
            r"train 16, val 20, test 4 samples",
            r"note: it has a val split but no test: 0.2 of train is held out as test\n",
        ),
        class_folders("images/train") | class_folders("images/val"),
    ),
    Row(
        "x-classes-as-floats",
        NPZ,
        0,
        (
            r"npz 3, regression: ",
            r"note: .*data.npz: y has 2 different values and is read as regression; save classes as",
        ),
        data(x=X, y=Y.astype(np.float32)),
    ),
    Row(
        "r45-cudnn-on-cpu",
        f"{LINEAR} device.cudnn.benchmark=true",
        0,
        r"note: the flags of device.cudnn have no effect on the CPU",
    ),
    Row("r31-text-labels", NPZ, 0, r"classification: ", data(x=X, y=np.where(Y, "cat", "dog"))),
    Row(
        "r32-constant-feature",
        NPZ,
        0,
        r"note: 1 constant feature \(std 0\): centered, not scaled",
        data(x=np.hstack([X, np.full((20, 1), 7.0, dtype=np.float32)]), y=Y),
    ),
]


@pytest.mark.parametrize("row", rows(FINE))
def test_fine(row: Row, trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, row.files)
    before = contents(tmp_path)
    outcome = trainkit_here(*shlex.split(row.words))
    assert contents(tmp_path).items() >= before.items()  # nothing of the user's is touched
    assert (outcome.code, outcome.err) == (0, "")
    for pattern in row.patterns:
        assert re.search(pattern, outcome.out), outcome.out
    assert "nan" not in outcome.out
