"""Metrics of probabilities, against scikit-learn's, and the threshold of two classes, from training to `predict`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from trainkit.checkpoints import checkpoint
from trainkit.data.batch import Batch
from trainkit.data.spec import TargetSpec
from trainkit.errors import ConfigError
from trainkit.losses.base import Loss, as_loss
from trainkit.losses.classes import cross_entropy, focal
from trainkit.tasks import meter as meter_module
from trainkit.tasks import scores
from trainkit.tasks.base import sums_of
from trainkit.tasks.meter import Meter

if TYPE_CHECKING:
    from conftest import CommandHere

FAST = ["device=cpu", "device.threads=1", "plots=false"]


def measured(logits: torch.Tensor, labels: torch.Tensor, parts: int = 3) -> dict[str, float]:
    """What a full meter of classification reads, fed in batches."""
    classes = [str(label) for label in range(logits.shape[1])]
    meter = Meter(sums_of(TargetSpec("classification", classes), full=True, topk=5), "cpu")
    for one, true in zip(logits.chunk(parts), labels.chunk(parts), strict=True):
        meter.add(torch.zeros(()), one, true, weight=len(one), count=len(one))
    return meter.read()


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("rounded", [False, True])
def test_they_equal_those_of_scikit_learn(num_classes: int, rounded: bool) -> None:
    torch.manual_seed(num_classes)
    labels = torch.randint(num_classes, (311,))
    logits = torch.randn(311, num_classes) + 2 * torch.nn.functional.one_hot(labels, num_classes)
    if rounded:  # many ties
        logits = logits.round()
    found = measured(logits, labels)
    shares = logits.softmax(dim=1).numpy()
    exact = logits.double().softmax(dim=1).numpy()
    true, predicted = labels.numpy(), logits.argmax(dim=1).numpy()
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(true, predicted), abs=1e-12)
    assert found["log_loss"] == pytest.approx(reference.log_loss(true, exact), rel=1e-6)
    one_hot = np.eye(num_classes)[true]
    scored: Any = shares[:, 1] if num_classes == 2 else shares
    auc = reference.roc_auc_score(true, scored, multi_class="ovr")
    assert found["roc_auc"] == pytest.approx(auc, abs=1e-12)
    area = reference.average_precision_score(true if num_classes == 2 else one_hot, scored)
    assert found["pr_auc"] == pytest.approx(area, abs=1e-12)


def test_a_class_that_no_sample_has_is_left_out() -> None:
    torch.manual_seed(0)
    labels = torch.randint(2, (50,))
    logits = torch.randn(50, 3)
    found = measured(logits, labels)
    shares = logits.softmax(dim=1).numpy()
    aucs = [reference.roc_auc_score(labels.numpy() == label, shares[:, label]) for label in (0, 1)]
    assert found["roc_auc"] == pytest.approx(np.mean(aucs), abs=1e-12)
    alone = measured(torch.randn(9, 2), torch.zeros(9, dtype=torch.int64))
    assert np.isnan([alone["roc_auc"], alone["pr_auc"], alone["threshold"]]).all()
    assert alone["balanced_accuracy"] == pytest.approx(alone["accuracy"])


def test_more_classes_and_samples_than_can_be_sorted_have_no_area(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "roc_auc" not in measured(torch.randn(50, 21), torch.arange(50) % 21)
    monkeypatch.setattr(meter_module, "MOST_KEPT", 100)
    assert np.isnan(measured(torch.randn(101, 2), torch.arange(101) % 2)["roc_auc"])


def test_the_threshold_is_the_one_of_the_largest_mean_recall() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        ones = random.random(60) < 0.2
        values = np.round(np.clip(random.normal(0.3 + 0.2 * ones, 0.15), 0, 1), 2)
        found = scores.best_threshold(values, ones)
        tried = [reference.balanced_accuracy_score(ones, values >= one) for one in np.linspace(0, 1.01, 203)]
        assert reference.balanced_accuracy_score(ones, values >= found) == pytest.approx(max(tried))
    assert scores.best_threshold(np.array([0.1, 0.9]), np.array([False, True])) == 0.5


COUNTS = [90, 9, 1, 0]
TARGET = TargetSpec("classification", ["a", "b", "c", "d"], counts=COUNTS)


def test_weights_go_by_the_counts_of_train() -> None:
    balanced = cross_entropy(4, TARGET, weight="balanced").weight
    assert balanced is not None
    assert balanced.tolist() == pytest.approx([100 / (4 * 90), 100 / (4 * 9), 25, 0])
    effective = cross_entropy(4, TARGET, weight="effective", beta=0.99).weight
    raw = [(1 - 0.99) / (1 - 0.99**count) if count else 0 for count in COUNTS]
    assert effective is not None
    assert effective.tolist() == pytest.approx([one * 4 / sum(raw) for one in raw])
    with pytest.raises(ConfigError, match="these targets have no such count"):
        cross_entropy(4, TargetSpec("soft", ["a", "b", "c", "d"]), weight="balanced")


def test_focal_loss_is_the_papers_and_adds_up_over_parts() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(12, 4, requires_grad=True), torch.arange(12) % 3
    batch = Batch(torch.zeros(12, 1), labels, torch.arange(12))
    plain = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.allclose(focal(4, TARGET, gamma=0.0)(logits, batch), plain)
    chosen = logits.softmax(dim=1)[torch.arange(12), labels]
    assert torch.allclose(focal(4, TARGET, gamma=2.0)(logits, batch), (-chosen.log() * (1 - chosen) ** 2).mean())
    weighted = as_loss(focal(4, TARGET, weight=[1.0, 2.0, 5.0, 1.0]))
    assert isinstance(weighted, Loss)
    parts = batch.chunk(3)
    means = [weighted(one, part) * weighted.weight(part) for one, part in zip(logits.chunk(3), parts, strict=True)]
    assert torch.allclose(sum(means) / weighted.weight(batch), weighted(logits, batch))  # type: ignore[arg-type]


def test_training_with_them_from_the_command(trainkit_here: CommandHere) -> None:
    for words in ("loss=focal loss.weight=balanced accumulate=2", "loss=cross_entropy loss.weight=effective"):
        done = trainkit_here("train", "dataset=wine", *words.split(), "epochs=2", "monitor=roc_auc", *FAST)
        assert done.code == 0, done.err
        assert "by val/roc_auc" in done.out
    wrong = trainkit_here("train", "dataset=wine", "loss=focal", "loss.weight=balancd", *FAST)
    assert wrong.code == 2 and "loss.weight" in wrong.err
    assert trainkit_here("train", "dataset=wine", "monitor=threshold", *FAST).code == 2


def test_the_threshold_of_val_decides_in_predict(trainkit_here: CommandHere, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = (random.random(600) < 0.1).astype(np.int64)
    x = (random.normal(size=(600, 3)) + y[:, None]).astype(np.float32)
    np.savez(tmp_path / "rare.npz", x=x, y=y, features=np.array(["a", "b", "c"]))
    words = ["dataset=npz", "dataset.file=rare.npz", "model=linear", "epochs=5", "hydra.run.dir=run"]
    assert trainkit_here("train", *words, *FAST).code == 0
    header = checkpoint.read_header(tmp_path / "run" / "checkpoints" / "best.safetensors")
    threshold = header["metrics"]["val"]["threshold"]
    assert 0 < threshold < 0.5
    result = json.loads((tmp_path / "run" / "status.json").read_text())["result"]["metrics"]
    assert "threshold" in result["val"] and "threshold" not in result["test"]
    np.savez(tmp_path / "new.npz", x=x)

    def answers(*more: str) -> tuple[list[str], list[float], str]:
        done = trainkit_here("predict", "ckpt=run", "input=new.npz", "topk=2", *more)
        assert done.code == 0, done.err
        rows = list(csv.DictReader(io.StringIO(done.out)))
        ones = [float(row["probability" if row["class"] == "1" else "probability_2"]) for row in rows]
        return [row["class"] for row in rows], ones, done.err

    classes, ones, said = answers()
    assert classes == ["1" if one >= threshold else "0" for one in ones]
    assert f"note: 1 from a probability of {threshold:.3g} on, as suited val best" in said
    likeliest, _, silent = answers("threshold=null")
    assert likeliest == ["1" if one > 0.5 else "0" for one in ones] and silent == ""
    assert answers("threshold=0.9")[0] == ["1" if one >= 0.9 else "0" for one in ones]
    assert likeliest.count("1") < classes.count("1")
    assert trainkit_here("predict", "ckpt=run", "input=new.npz", "threshold=2").code == 2


def test_eval_shows_each_class(trainkit_here: CommandHere) -> None:
    assert trainkit_here("train", "dataset=iris", "epochs=3", "hydra.run.dir=run", *FAST).code == 0
    said = trainkit_here("eval", "ckpt=run").out
    assert "class       samples  precision" in said and said.count("\n  setosa") == 1
