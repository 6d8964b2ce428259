"""`trainkit plan`: says what `train` then does, warns, writes nothing but the picture that was named."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Command, CommandHere

pytestmark = pytest.mark.slow

FAST = ("device=cpu", "device.threads=1")


def planned(trainkit_here: CommandHere, *words: str) -> Any:
    done = trainkit_here("plan", *FAST, *words, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_the_plan_is_what_train_does(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("model=cnn", "optim=adam", "schedule=onecycle", "epochs=2", "batch_size=100")
    facts = planned(trainkit_here, *words)
    assert not (tmp_path / "outputs").exists() and list(tmp_path.iterdir()) == []
    done = trainkit_here("train", *FAST, *words, "log_every=1", "--json")
    result = json.loads(done.out)
    assert facts["steps"] == {"epochs": 2, "per_epoch": 13, "total": result["steps"], "batch": 100}
    rows = [json.loads(line) for line in Path(result["run"], "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["event"] == "step"]
    assert facts["schedule"]["lrs"] == pytest.approx([row["lr"] for row in steps])
    assert facts["first_loss"] == pytest.approx(steps[0]["loss"])
    assert f"cnn {facts['model']['parameters']:,} parameters" in done.err


def test_memory_is_counted_exactly(trainkit_here: CommandHere) -> None:
    facts = planned(trainkit_here, "dataset=wine", "model=linear", "optim=adam", "batch_size=50")
    parameters = 13 * 3 + 3
    memory = facts["memory"]
    assert (memory["weights"], memory["gradients"]) == (4 * parameters, 4 * parameters)
    assert memory["optimizer"] == 2 * 4 * parameters + 2 * 4  # two moments, and a step count for each of two tensors
    assert memory["activations"] >= 4 * 50 * 13
    assert memory["peak"] >= memory["weights"] + memory["gradients"] + memory["optimizer"]
    halves = planned(trainkit_here, "dataset=wine", "model=linear", "batch_size=50", "accumulate=2")["memory"]
    assert halves["activations_of"] == 25 and halves["activations"] < memory["activations"]


def test_time_adds_up(trainkit_here: CommandHere) -> None:
    time = planned(trainkit_here, "epochs=7")["time"]
    assert time["timed_steps"] >= 3 and time["step_seconds"] > 0
    assert time["train_epoch_seconds"] == pytest.approx(11 * time["step_seconds"])
    epochs = 7 * (time["train_epoch_seconds"] + time["eval_epoch_seconds"])
    assert time["total_seconds"] == pytest.approx(epochs + time["final_eval_seconds"])


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ("optim=adam optim.lr=0.5", "the lr reaches 0.5, above what is usual for adam"),
        ("optim.lr=1e-6", "below what is usual for sgd"),
        ("patience=10 epochs=10", "patience=10 can never stop a run of 10 epochs"),
        ("batch_size=5000", "note: batch_size=5000 is larger than the train split (1294): a step is an epoch"),
        ("dataset=iris", "val has only 12 samples"),
        ("val_fraction=0", "there is no val split"),
        ("dataset.test_fraction=0", "there is no test split"),
        ("schedule=step", "schedule=step never changes the lr in 10 epochs"),
        ("schedule=multistep schedule.milestones=[3,30]", "schedule.milestones: 30 never come in 10 epochs"),
        ("schedule=cosine schedule.warmup=6", "the warm-up takes 66 of 110 steps"),
        ("optim=adam optim.weight_decay=0.1", "optim=adamw decays weights"),
        ("model=cnn model.norm=batch batch_size=2 accumulate=2", "batch norm would see a part of one sample"),
        ("dataset=wine channels_last=true", "channels_last=true does nothing"),
        ("batch_size=1293", "note: the last batch would hold one sample; it joins the batch before it"),
    ],
)
def test_warnings(trainkit_here: CommandHere, words: str, warning: str) -> None:
    facts = planned(trainkit_here, *words.split())
    said = [f"note: {text}" for text in facts["notes"]] + facts["warnings"]
    assert any(warning in text for text in said), said


def test_a_plain_plan_warns_of_nothing(trainkit_here: CommandHere) -> None:
    assert planned(trainkit_here)["warnings"] == []


def test_parameters_without_gradient_are_named(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text(
        "from torch import nn\nfrom trainkit import register\n"
        "class Half(nn.Module):\n"
        "    def __init__(self, inputs, outputs):\n        super().__init__()\n"
        "        self.used, self.unused = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)\n"
        "    def forward(self, x):\n        return self.used(x)\n"
        "@register('model')\ndef half(in_shape, num_outputs):\n    return Half(in_shape[0], num_outputs)\n"
    )
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "half.yaml").write_text("name: half\n")
    facts = planned(trainkit_here, "dataset=wine", "model=half", "plugins=[lazy]")
    assert any("2 parameters get no gradient" in text and "unused.bias" in text for text in facts["warnings"])


def test_lr_range_suggests_an_lr_that_learns(trainkit_here: CommandHere, tmp_path: Path) -> None:
    found = planned(trainkit_here, "--lr-range", "--plot", "lr.png")["lr_range"]
    lrs = found["lrs"]
    assert lrs[0] == pytest.approx(1e-5) and all(a < b for a, b in itertools.pairwise(lrs))
    assert found["falls"] < found["suggestion"] <= found["lowest"]
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    results = {}
    for lr in (found["suggestion"], lrs[0]):
        done = trainkit_here("train", *FAST, "epochs=3", f"optim.lr={lr:.3g}", "--json")
        results[lr] = json.loads(done.out)["metrics"]["test"]["accuracy"]
    assert results[found["suggestion"]] > 0.85 > results[lrs[0]]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_output_fits_the_terminal(trainkit: Command, columns: int) -> None:
    words = ("plan", *FAST, "model=cnn", "schedule=cosine", "optim=adam", "optim.lr=0.2")
    done = trainkit(*words, env={"COLUMNS": str(columns), "PYTHONIOENCODING": "utf-8" if columns > 40 else "ascii"})
    assert done.returncode == 0, done.stderr
    assert all(len(line) <= columns for line in done.stdout.splitlines())
    assert done.stdout.isascii() == (columns == 40)
    assert "warning: the lr reaches 0.2" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("modl=cnn", 2, "did you mean model?"),
        ("monitor=val/f1", 2, "monitor=val/f1: choose from"),
        ("schedule=cosine schedule.warmup=50", 2, "longer than the run"),
        ("device=cpu --max-batch", 2, "--max-batch searches on CUDA devices, and this run is on cpu"),
        ("--memory 2GB", 2, "add --max-batch"),
        ("--max-batch --memory lots", 2, "expected a size such as 2GB"),
        ("--plot x.png", 2, "add --lr-range"),
        ("--lr-range --plot no/where.png", 2, "there is no folder"),
        ("--lr-rnge", 2, "did you mean --lr-range?"),
        ("-m model=mlp,cnn", 2, "unknown flag '-m'"),
        ("model.norm=batch batch_size=1", 2, "batch norm cannot train on one sample: raise batch_size, lower accum"),
        ("model=mlp,cnn", 2, "several values"),
        ("dataset=npz dataset.file=nope.npz", 3, "no such file"),
        ("optim=lbfgs --lr-range", 2, "one gradient a step"),
    ],
)
def test_mistakes_are_one_line(trainkit_here: CommandHere, words: str, code: int, line: str) -> None:
    done = trainkit_here("plan", *FAST, *words.split())
    assert done.code == code and done.out == ""
    assert len(done.err.splitlines()) == 1 and line in done.err, done.err


def test_the_numbers_are_finite_json(trainkit_here: CommandHere) -> None:
    facts = planned(trainkit_here, "dataset=diabetes", "optim.lr=1e9")
    assert facts["first_loss"] is not None and math.isfinite(facts["first_loss"])
