"""What must not change the numbers, and what must stop a run. Real runs of the real command."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import process_restored
from trainkit import registry
from trainkit.checkpoints import checkpoint
from trainkit.cli import main
from trainkit.training.run import Monitor

QUICK = ["device=cpu", "device.threads=1", "epochs=2"]


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with process_restored():
        yield


def train(*words: str) -> Path:
    before = set(Path("outputs/train").glob("*"))
    assert main(["train", *QUICK, *words]) == 0
    (run,) = set(Path("outputs/train").glob("*")) - before
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / "last.safetensors")[0]


def result(run: Path) -> dict[str, Any]:
    status = json.loads((run / "status.json").read_text())
    assert status["state"] == "completed"
    return dict(status["result"])


def same(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


BUSY = ["model=cnn", "model.dropout=0.3", "model.norm=batch", "augment=flip_crop", "augment.padding=1", "optim=adam"]


def test_same_seed_same_bits_other_seed_other_bits() -> None:
    first = train(*BUSY)
    assert same(first, train(*BUSY))
    assert not same(first, train(*BUSY, "seed=1"))


def test_logging_and_validation_do_not_touch_the_numbers() -> None:
    assert same(train(*BUSY), train(*BUSY, "log_every=1", "monitor=loss", "topk=2"))


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    short, long = train(*BUSY), train(*BUSY, "epochs=3")
    rows = [(run / "results.csv").read_text().splitlines()[1:3] for run in (short, long)]
    times_apart = [[row.split(",")[:2] + row.split(",")[3:-1] for row in lines] for lines in rows]
    assert times_apart[0] == times_apart[1]


def test_eval_repeats_the_run_exactly() -> None:
    run = train(*BUSY)
    for split in ("val", "test"):
        assert main(["eval", f"ckpt={run}", f"split={split}"]) == 0
        (folder,) = Path("outputs/eval").glob("*")
        repeated = json.loads((folder / "status.json").read_text())["result"]["metrics"][split]
        assert repeated == result(run)["metrics"][split]
        folder.rename(f"done-{split}")


def test_early_stopping_and_the_best_checkpoint() -> None:
    run = train("epochs=40", "patience=2", "optim.lr=0.5", "monitor=loss")
    facts = result(run)
    assert facts["epochs"] == facts["best_epoch"] + 2 < 40
    _, best = checkpoint.load(run / "checkpoints" / "best.safetensors")
    _, last = checkpoint.load(run / "checkpoints" / "last.safetensors")
    assert best["progress"]["epoch"] == facts["best_epoch"]
    assert last["progress"]["epoch"] == facts["epochs"]
    losses = [float(row.split(",")[6]) for row in (run / "results.csv").read_text().splitlines()[1:]]
    assert min(losses) == losses[facts["best_epoch"] - 1]


def test_clip_bounds_the_first_update() -> None:
    words = ["epochs=1", "batch_size=2000", "optim.momentum=0", "optim.lr=1", "clip=0.01", "model=linear"]
    after = weights(train(*words))
    start = weights(train(*words[:3], "optim.lr=1e-30", "model=linear"))
    moved = torch.cat([(after[name] - start[name]).flatten() for name in after if name.startswith("model/")])
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *QUICK, "dataset=diabetes", "model=linear", "optim.lr=1e18", "epochs=30"]) == 5
    error = capfd.readouterr().err
    where = r"step \d+ \(epoch \d+, lr 1e\+18; train samples (\d+, ){7}\d+ and 120 more\)"
    assert re.match(rf"trainkit: error: the loss or a gradient is not finite in {where}", error), error
    assert "lower optim.lr" in error
    (run,) = Path("outputs/train").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    for file in (run / "checkpoints").glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in checkpoint.load(file)[0].values())


def test_no_val_monitors_the_training_split() -> None:
    facts = result(train("val_fraction=0"))
    assert facts["monitor"] == "train/accuracy"
    assert set(facts["metrics"]) == {"test"}


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [
        ("wine", "accuracy"),
        ("breast_cancer", "macro_f1"),
        ("iris", "accuracy"),
        ("diabetes", "r2"),
        ("synthetic", "rmse"),
    ],
)
def test_tables_train_with_the_loss_of_their_task(dataset: str, metric: str) -> None:
    facts = result(train(f"dataset={dataset}", "optim.lr=0.01"))
    assert metric in facts["metrics"]["test"]


WORDS = {"radam": ["optim.lr=0.01"], "lbfgs": ["optim.lr=0.5", "batch_size=2000"]}


@pytest.mark.parametrize("optim", registry.names("optim"))
def test_every_optimizer_trains(optim: str) -> None:
    facts = result(train(f"optim={optim}", "epochs=4", *WORDS.get(optim, [])))
    assert facts["metrics"]["test"]["accuracy"] > 0.6


TERMS = """
from torch import nn
from trainkit import register


@register("loss", serves=["classification"])
def terms():
    class Terms(nn.Module):
        def forward(self, outputs, targets):
            return {"fit": nn.functional.cross_entropy(outputs, targets), "size": 1e-3 * outputs.square().mean()}

    return Terms()
"""


def test_a_term_of_the_loss_can_choose_the_best_epoch() -> None:
    Path("with_terms.py").write_text(TERMS)
    run = train("epochs=3", "loss=terms", "monitor=size", "plugins=[with_terms]")
    facts = result(run)
    assert (facts["monitor"], facts["mode"], facts["best_epoch"]) == ("val/size", "min", 1)  # outputs grow in training
    assert facts["objective"] == facts["metrics"]["val"]["size"]
    assert {"fit", "size"} <= {row["name"] for row in facts["measured"]}
    assert result(train("loss=terms", "monitor=size:max", "plugins=[with_terms]", "val_fraction=0"))["mode"] == "max"


def test_monitor_breaks_ties_by_loss_and_never_takes_nan() -> None:
    monitor = Monitor("accuracy", "max")
    assert not monitor.record(float("nan"), 0.1, 1)
    assert monitor.record(0.5, 0.9, 2)
    assert not monitor.record(0.5, 0.9, 3)
    assert monitor.record(0.5, 0.8, 4)
    assert not monitor.record(0.4, 0.1, 5)
    assert not monitor.record(float("nan"), 0.1, 6)
    assert monitor.record(0.6, 2.0, 7)
    assert (monitor.best, monitor.best_epoch) == (0.6, 7)
    assert [Monitor("loss", "min", 1.0, 1.0, 1).record(value, value, 2) for value in (0.9, 1.1)] == [True, False]


def test_the_record_says_when_it_began_and_what_the_first_step_and_each_epoch_took() -> None:
    before = time.time()
    run = train("log_every=1000")
    start, first, *epochs, end = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert before - 0.001 <= start["at"] <= start["at"] + end["time"] <= time.time() + 0.002
    assert (first["event"], first["step"]) == ("step", 1) and 0 < first["time"] <= epochs[0]["time"]
    assert [row["event"] for row in epochs] == ["epoch", "epoch"]
    assert 0 < sum(row["train_seconds"] for row in epochs) <= end["time"]
