"""Thousands of classes: trained, saved, evaluated, resumed, reported and predicted, with nothing of their square."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from trainkit.checkpoints import checkpoint
from trainkit.report.facts import read_facts
from trainkit.run_folders.predictions import read
from trainkit.tasks import confusion
from writers import lay_out, npz

if TYPE_CHECKING:
    from conftest import CommandHere

pytestmark = pytest.mark.slow

FAST = ("device=cpu", "device.threads=1", "hydra.run.dir=run", "model=linear", "dataset=npz", "dataset.file=data.npz")


def samples(classes: int, each: int) -> dict[str, bytes]:
    """A file of so many samples of each class."""
    labels = np.repeat(np.arange(classes), each)
    return {"data.npz": npz(x=np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32), y=labels)}


@pytest.mark.parametrize("classes", [10_000, 50_000])
def test_from_training_to_prediction(classes: int, trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, samples(classes, 2) | {"new.npz": npz(x=np.zeros((3, 4), np.float32))})
    done = trainkit_here("train", *FAST, "epochs=2", "batch_size=64", "limit_batches=2")
    assert done.code == 0, done.err
    run = tmp_path / "run"
    measured = json.loads((run / "status.json").read_text())["result"]["metrics"]["test"]
    macro = {"macro_f1", "macro_precision", "macro_recall", "balanced_accuracy"}
    assert set(measured) == {"loss", "accuracy", "top5_accuracy", "log_loss", *macro}  # and no areas under curves
    header = checkpoint.read_header(checkpoint.locate(run))
    assert "confusion" not in header["metrics"]["val"] and len(header["spec"]["targets"]["y"]["classes"]) == classes
    assert max(path.stat().st_size for path in run.iterdir() if path.suffix in (".jsonl", ".log", ".json")) < 10_000
    done = trainkit_here("eval", "ckpt=run", "--json", "split=val", "hydra.run.dir=judged", "batch_size=500")
    assert done.code == 0, done.err
    found = json.loads(done.out)["metrics"]["val"]
    assert set(found) == set(measured)
    answers = read(tmp_path / "judged")
    assert answers is not None and answers.target.classes is not None and len(answers.target.classes) == classes
    for folder in ("run", "judged"):
        done = trainkit_here("report", folder)
        page = (tmp_path / folder / "report.html").read_text(encoding="utf-8")
        assert done.code == 0 and "Of more than 1,000 classes no matrix is drawn." in page and len(page) < 1_000_000
    done = trainkit_here("predict", "ckpt=run", "input=new.npz", "topk=2")
    assert done.code == 0 and done.out.count("\n") == 4
    done = trainkit_here("resume", "run", "epochs=+1")
    assert done.code == 0 and "bit-exact" in done.out, done.err


def test_a_report_counts_the_confusion_of_hundreds(trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, samples(300, 10))
    assert trainkit_here("train", *FAST, "epochs=1").code == 0
    facts = read_facts(tmp_path / "run")
    assert "confusion" not in facts.measured["test"]
    assert facts.predictions is not None
    targets, predicted = (facts.predictions.kept[name] for name in ("targets", "predicted"))
    assert len(targets) == len(predicted) == len(facts.predictions)
    cells = confusion.matrix(targets, predicted, 300)
    counted = Counter(zip(targets.tolist(), predicted.tolist(), strict=True))
    assert cells.shape == (300, 300) and cells.sum() == len(facts.predictions)
    assert {(int(t), int(p)): int(cells[t, p]) for t, p in np.argwhere(cells)} == counted
    assert trainkit_here("report", "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Confusion</h2>" in page and "<h2>Classes</h2>" in page
