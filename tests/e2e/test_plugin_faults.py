"""What users' own components give is looked at before the first step: one line says what came and what is needed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from trainkit import registry
from trainkit.building import components
from trainkit.building.run import build_run
from trainkit.config.compose import check_jobs
from trainkit.config.frame import Choice, Train
from trainkit.training.signals import Stop
from writers import lay_out, npz, table

if TYPE_CHECKING:
    from conftest import CommandHere

FAST = ["device=cpu", "device.threads=1", "epochs=1", "plugins=[mine]"]
PLUGIN = """
from math import prod

import numpy as np
import torch
from torch import nn

from trainkit.data.dataset import Data, hold_out
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.registry import register


class Model(nn.Module):
    def __init__(self, features, num_outputs):
        super().__init__()
        self.out = nn.Linear(features, num_outputs)

    def forward(self, x):
        return self.answer(self.out(x.flatten(1)))


def model(answer):
    def build(in_shape, num_outputs):
        made = Model(prod(in_shape), num_outputs)
        made.answer = lambda outputs: answer(made, outputs)
        return made

    return build


register("model", "fine")(model(lambda made, outputs: outputs))
register("model", "pair")(model(lambda made, outputs: (outputs, None)))
register("model", "pair_in_eval")(model(lambda made, outputs: outputs if made.training else (outputs, None)))
register("model", "nothing")(model(lambda made, outputs: None))
register("model", "wide")(model(lambda made, outputs: torch.cat([outputs, outputs], 1)))
register("model", "whole")(model(lambda made, outputs: outputs.argmax(1)))
register("model", "cut")(model(lambda made, outputs: outputs.detach()))
register("model", "broken")(model(lambda made, outputs: outputs @ torch.zeros(7, 7)))
register("model", "four")(model(lambda made, outputs: outputs + 0 * outputs.topk(4, dim=0).values.sum()))
register("model", "not_a_module")(lambda in_shape, num_outputs: "a model")
register("model", "lazy")(lambda in_shape, num_outputs: nn.Sequential(nn.Flatten(), nn.LazyLinear(num_outputs)))
register("model", "empty")(lambda in_shape, num_outputs: nn.Flatten())


class Sum(Model):
    def forward(self, a, b):
        return self.out(a + b)


register("model", "sum")(lambda in_shape, num_outputs: Sum(*in_shape, num_outputs))


class Table(nn.Module):
    def __init__(self, num_outputs, rows):
        super().__init__()
        self.rows = nn.Embedding(rows, num_outputs)

    def forward(self, x):
        return self.rows(x[:, 0].round().long() + 1)


@register("model")
def lookup(in_shape, num_outputs, *, rows: int = 1):
    return Table(num_outputs, rows)


class Each(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, outputs, targets):
        return self.answer(nn.functional.cross_entropy(outputs, targets, reduction="none"))


def loss(name, answer):
    register("loss", name, serves=["classification"])(lambda num_outputs: Each(answer))


loss("each", lambda losses: losses)
loss("number", lambda losses: float(losses.mean()))
loss("no_gradient", lambda losses: losses.mean().detach())
loss("two_numbers", lambda losses: losses.mean()[None])
register("loss", "not_a_loss", serves=["classification"])(lambda num_outputs: nn.functional.cross_entropy)
register("optim", "not_an_optimizer")(lambda named_params: list(named_params))
register("augment", "not_an_augment")(lambda in_shape, num_outputs: lambda images: images)
register("schedule", "not_a_schedule")(lambda total_steps, steps_per_epoch: None)
register("sampler", "not_a_sampler")(lambda num_samples: range(num_samples))
register("sampler", "a_list")(lambda num_samples: lambda epoch: list(range(num_samples)))
register("sampler", "beyond")(lambda num_samples: lambda epoch: torch.arange(num_samples) + 1)
register("schedule", "tensors")(lambda total_steps, steps_per_epoch: lambda step: torch.ones(()))

X, Y = np.zeros((20, 3), np.float32), np.arange(20) % 2


def dataset(name, make):
    register("dataset", name)(lambda data_dir, split_seed: make())


AB = TargetSpec("classification", classes=["a", "b"])
dataset("two", lambda: Data("mine", {"train": Split({"a": X, "b": X}, Y)}, AB))
dataset("nothing", lambda: None)
dataset("pair", lambda: (X, Y))
dataset("tensors", lambda: Data("mine", {"train": Split(torch.zeros(20, 3), Y)}, AB))
dataset("lists", lambda: Data("mine", {"train": Split(X, Y.tolist())}, AB))
dataset("empty", lambda: Data("mine", {"train": Split({}, Y)}, AB))
dataset("bare", lambda: Data("mine", {"train": (X, Y)}, AB))
dataset("uneven", lambda: Data("mine", {"train": Split(X[:9], Y)}, AB))
dataset("no_train", lambda: Data("mine", {"test": Split(X, Y)}, AB))
dataset("no_classes", lambda: Data("mine", {"train": Split(X, Y)}, TargetSpec("classification")))
dataset("no_task", lambda: Data("mine", {"train": Split(X, Y)}, TargetSpec("ranking")))
"""


@pytest.fixture(autouse=True)
def _plugin(tmp_path: Path) -> None:
    files = {"mine.py": PLUGIN}
    for group in ("model", "loss", "optim", "augment", "sampler", "schedule", "dataset"):
        for name in re.findall(rf'(?:register\("{group}", |^{group}\()"(\w+)"', PLUGIN, re.M):
            files[f"conf/{group}/{name}.yaml"] = f"name: {name}\n"
    files["conf/model/lookup.yaml"] = "name: lookup\n"
    lay_out(tmp_path, files)


CASES = [
    ("model=pair", 2, r"model 'pair' gave a tuple in training for inputs \(2, 1, 8, 8\); .* float tensor .*\(2, 10\)$"),
    ("model=pair_in_eval", 2, "model 'pair_in_eval' gave a tuple in evaluation for inputs"),
    ("model=nothing", 2, "model 'nothing' gave None in training"),
    ("model=wide", 2, r"model 'wide' gave float32 \(2, 20\) in training .* shape \(2, 10\)$"),
    ("model=whole", 2, r"model 'whole' gave int64 \(2,\) in training"),
    ("model=cut", 2, "the loss has no gradient, .*: model 'cut' or loss 'auto' cuts it off"),
    (
        "model=broken",
        2,
        r"model 'broken' on train samples float32 \(128, 1, 8, 8\) failed with RuntimeError: mat1 and mat2 shapes .*"
        r"mine.py:\d+: register\(\"model\", \"broken\"\)",
    ),
    ("model=not_a_module", 2, "the builder of model 'not_a_module' returned a str; it must return a torch.nn.Module$"),
    ("model=lazy", 2, "model 'lazy' has lazy parameters"),
    ("model=empty", 2, "model 'empty' has no parameters to train$"),
    ("model=lookup", 2, r"'lookup' asks an embedding for a row that it does not have.*mine.py:\d+: return self.rows"),
    ("loss=each", 2, r"loss 'each' gave float32 \(2,\); it must give one number"),
    ("loss=number", 2, "loss 'number' gave a float; it must give one number"),
    ("loss=two_numbers", 2, r"loss 'two_numbers' gave float32 \(1,\); it must give one number"),
    ("loss=no_gradient", 2, "the loss has no gradient"),
    ("loss=not_a_loss", 2, "the builder of loss 'not_a_loss' returned a function; it must return a torch.nn.Module$"),
    (
        "optim=not_an_optimizer",
        2,
        "the builder of optim 'not_an_optimizer' returned a list; .* a torch.optim.Optimizer$",
    ),
    ("augment=not_an_augment", 2, r"the builder of augment 'not_an_augment' returned a function; .*\.Augment$"),
    (
        "schedule=not_a_schedule",
        2,
        "the builder of schedule 'not_a_schedule' returned None; .* a function of the step$",
    ),
    (
        "sampler=not_a_sampler",
        2,
        "the builder of sampler 'not_a_sampler' returned a range; .* a function of the epoch$",
    ),
    ("sampler=a_list", 2, r"sampler 'a_list' gave a list; it must give rows .*: an int64 tensor of shape \(N,\)$"),
    ("sampler=beyond", 2, "sampler 'beyond' gave row 1294; the train split has 1294$"),
    ("schedule=tensors", 2, "schedule 'tensors' gave Tensor for step 0; it must give a finite number$"),
    ("dataset=nothing", 3, "the builder of dataset 'nothing' returned None; .* trainkit.data.dataset.Data$"),
    ("dataset=pair", 3, "the builder of dataset 'pair' returned a tuple"),
    ("dataset=tensors", 3, "dataset mine, train split: inputs are a Tensor; they must be a NumPy array"),
    ("dataset=lists", 3, "dataset mine, train split: targets are a list; they must be a NumPy array"),
    ("dataset=empty", 3, "dataset mine, train split: inputs are an empty dict; they must be arrays by name$"),
    (
        "dataset=bare",
        3,
        "dataset mine: its train split is a tuple; it must be a trainkit.data.splits.Split, or a torch Dataset",
    ),
    ("dataset=uneven", 3, "dataset mine, train split: 9 inputs but 20 targets$"),
    ("dataset=no_train", 3, "dataset mine: it has no train split$"),
    ("dataset=no_task", 3, "dataset mine: its task is 'ranking'"),
    ("dataset=no_classes", 3, "dataset mine: classification needs at least two classes, found none$"),
]


@pytest.mark.parametrize(("words", "code", "pattern"), CASES, ids=[words for words, _, _ in CASES])
def test_it_is_one_line_before_the_first_step(
    words: str, code: int, pattern: str, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    done = trainkit_here("train", *FAST, words)
    (line,) = done.err.splitlines()
    assert done.code == code and re.match(f"trainkit: error: .*{pattern}", line), line
    assert done.out == ""  # nothing was announced
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/train/*/status.json")]
    assert len(kept) == (" failed with " in line or "asks an embedding" in line)  # for the traceback in its log
    assert all((status["state"], status["exit_code"]) == ("failed", code) for status in kept)


@pytest.mark.parametrize("words", [words for words, code, _ in CASES if code == 3])
def test_check_says_the_same(words: str, trainkit_here: CommandHere) -> None:
    done = trainkit_here("check", words, "plugins=[mine]")
    assert done.code == 3 and done.err == trainkit_here("train", *FAST, words).err


@pytest.mark.parametrize("words", ["model=pair", "model=lookup", "model=broken"])
def test_plan_says_the_same(words: str, trainkit_here: CommandHere) -> None:
    done = trainkit_here("plan", *FAST, words)
    assert done.code == 2 and done.err == trainkit_here("train", *FAST, words).err


def test_the_log_has_the_traceback_of_what_they_raised(trainkit_here: CommandHere, tmp_path: Path) -> None:
    trainkit_here("train", *FAST, "model=broken")
    (log,) = tmp_path.glob("outputs/train/*/train.log")
    assert "Traceback" in log.read_text() and "mine.py" in log.read_text()


def test_an_index_that_comes_later_is_one_line_too(trainkit_here: CommandHere, tmp_path: Path) -> None:
    """The first two samples are within the embedding."""
    x = np.zeros((60, 1), np.float32)
    x[::2] = 1e-3
    x[40:] = 2.0
    lay_out(tmp_path, {"data.npz": npz(x_train=x, y_train=np.arange(60) % 2, **held_out(x))})
    words = ["dataset=npz", "dataset.file=data.npz", "model=lookup", "batch_size=4"]
    done = trainkit_here("train", *FAST, *words, "model.rows=2")
    assert done.code == 2 and len(done.err.splitlines()) == 1 and "npz 1, classification" in done.out
    assert (
        "'lookup' asks an embedding for a row that it does not have; numbers of a table come standardized" in done.err
    )
    assert trainkit_here("train", *FAST, *words, "model.rows=3").code == 0


def held_out(x: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{axis}_{split}": array for split in ("val", "test") for axis, array in (("x", x), ("y", np.arange(60) % 2))
    }


def test_predict_is_for_one_input(trainkit_here: CommandHere) -> None:
    train = trainkit_here("train", *FAST, "dataset=two", "model=sum", "hydra.run.dir=run")
    assert train.code == 0, train.err
    done = trainkit_here("predict", "ckpt=run", "plugins=[mine]", "input=mine.py")
    assert (done.code, done.out) == (2, "")
    assert done.err == "trainkit: error: predict is for models of one input, this one takes a, b\n"


def test_lbfgs_with_channels_last_is_refused(trainkit_here: CommandHere) -> None:
    done = trainkit_here("train", *FAST, "model=cnn", "optim=lbfgs", "channels_last=true")
    assert done.code == 2 and "optim=lbfgs does not work with channels_last=true" in done.err


def test_a_model_that_needs_more_samples_at_once_trains(trainkit_here: CommandHere) -> None:
    assert trainkit_here("train", *FAST, "model=four", "batch_size=64", "val_fraction=0.2").code == 0


class Restless(torch.nn.Module):
    """Everything that a forward pass can change changes in it."""

    count: torch.Tensor
    passes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.table = torch.nn.Embedding(5, 2, max_norm=0.1)
        self.out = torch.nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("passes", torch.zeros(()), persistent=False)
        self.modes: list[bool] = []
        self.out.train(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        self.count += 1
        self.passes = self.passes + 1
        with torch.no_grad():
            self.out.weight.mul_(2)
        return self.out(torch.nn.functional.dropout(self.norm(x))) + self.table(torch.arange(len(x)) % 5)


def test_a_look_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    component = registry.Component("model", "restless", lambda in_shape, num_outputs: Restless())
    monkeypatch.setitem(registry._components, ("model", "restless"), component)
    (tmp_path / "data.npz").write_bytes(npz(**table()))
    (config,) = check_jobs("train", ["device=cpu", "dataset=npz", "dataset.file=data.npz", "model=linear"], False, [])
    assert isinstance(config, Train)
    config = dataclasses.replace(config, model=Choice("restless", {}))
    device = components.build_device(config)
    data = components.build_data(config, device)
    looked_at = build_run(config, data, device, Stop()).model
    fresh = components.build_model(config, data.spec, device)
    assert isinstance(looked_at, Restless) and looked_at.modes == [True, False]
    for (name, mine), (_, other) in zip(everything(looked_at), everything(fresh), strict=True):
        assert torch.equal(mine, other), name
    assert [part.training for part in looked_at.modules()] == [part.training for part in fresh.modules()]
    looked_at(torch.zeros(5, 3))
    assert not torch.equal(looked_at.out.weight, fresh.out.weight) and looked_at.count != fresh.count


def everything(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def test_a_metric_of_the_wrong_kind(trainkit_here: CommandHere, tmp_path: Path) -> None:
    lines = "@register('metric', serves=['classification'])\ndef odd(num_outputs):\n    return 3\n"
    lay_out(tmp_path, {"mine.py": f"from trainkit.registry import register\n\n\n{lines}"})
    outcome = trainkit_here("train", *FAST)
    told = "the builder of metric 'odd' returned a int; it must return a trainkit.tasks.base.Sum"
    assert (outcome.code, outcome.err) == (2, f"trainkit: error: {told}\n")
    assert not list(tmp_path.glob("outputs/train/*"))
