"""Metrics against scikit-learn on the same predictions, added in uneven batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from trainkit.metrics import CONFUSABLE, Meter, better, metric_names


def fill(meter: Meter, outputs: torch.Tensor, targets: torch.Tensor, sizes=(7, 1, 64, 28)) -> dict:
    start = 0
    for size in sizes:
        batch = slice(start, start + size)
        meter.add(outputs[batch].float().mean(), outputs[batch], targets[batch])
        start += size
    assert start == len(targets)
    return meter.read()


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def macro(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float]:
    options = {"labels": range(num_classes), "average": "macro", "zero_division": 0}
    return {
        "macro_f1": sk.f1_score(true, predicted, **options),
        "macro_precision": sk.precision_score(true, predicted, **options),
        "macro_recall": sk.recall_score(true, predicted, **options),
    }


def exactly(expected: dict[str, float]):
    return pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("num_classes", [2, 5, 6, 12, CONFUSABLE, CONFUSABLE + 1, 5000])
def test_classification(num_classes: int) -> None:
    logits = rand(1, 100, num_classes)
    logits[:, 1] -= 9.0  # class 1 is never predicted
    labels = torch.randint(num_classes - 1, (100,), generator=torch.Generator().manual_seed(2))  # the last never true
    logits[torch.arange(100), labels] += 1.0 if num_classes <= 12 else 3.0
    got = fill(Meter("classification", num_classes, "cpu"), logits, labels)
    confusion = got.pop("confusion", None)
    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    if num_classes > CONFUSABLE:
        assert confusion is None
    else:
        assert confusion == sk.confusion_matrix(true, predicted, labels=range(num_classes)).tolist()
        assert all(type(count) is int for row in confusion for count in row)
    expected = {
        "loss": logits.double().mean().item(),
        "accuracy": sk.accuracy_score(true, predicted),
        **macro(true, predicted, num_classes),
    }
    if num_classes > 5:
        expected["top5_accuracy"] = sk.top_k_accuracy_score(true, logits.numpy(), k=5, labels=range(num_classes))
    assert abs(got.pop("loss") - expected.pop("loss")) < 1e-6  # the batches' own means are float32
    assert got == exactly(expected)
    assert ["loss", *got] == metric_names("classification", num_classes)


def test_topk_can_be_chosen() -> None:
    logits, labels = rand(1, 100, 4), torch.arange(100) % 4
    got = fill(Meter("classification", 4, "cpu", topk=3), logits, labels)
    assert got["top3_accuracy"] == sk.top_k_accuracy_score(labels, logits, k=3)
    assert "top3_accuracy" in metric_names("classification", 4, topk=3)


def test_soft() -> None:
    logits, targets = rand(1, 100, 7), rand(2, 100, 7).softmax(1)
    got = fill(Meter("soft", 7, "cpu"), logits, targets)
    true, predicted = targets.argmax(1).numpy(), logits.argmax(1).numpy()
    assert got.pop("confusion") == sk.confusion_matrix(true, predicted).tolist()
    assert list(got) == metric_names("soft", 7)
    got.pop("loss")
    assert got == exactly({"accuracy": sk.accuracy_score(true, predicted), **macro(true, predicted, 7)})


def test_multilabel() -> None:
    logits, targets = rand(1, 100, 4), (rand(2, 100, 4) > 0).float()
    logits[:50] = logits[:50].abs() * (2 * targets[:50] - 1)
    logits[:, 2] = -1.0  # never predicted
    targets[:, 3] = 0.0  # never true
    got = fill(Meter("multilabel", 4, "cpu"), logits, targets)
    true, predicted = targets.numpy(), (logits > 0).numpy()
    assert list(got) == metric_names("multilabel", 4)
    got.pop("loss")
    assert got == exactly({"accuracy": sk.accuracy_score(true, predicted), **macro(true, predicted, 4)})
    assert got["accuracy"] > 0


@pytest.mark.parametrize("far", [0.0, 1e6])
def test_regression(far: float) -> None:
    targets = rand(1, 100, 3) * torch.tensor([1.0, 5.0, 0.5]) + far
    predictions = targets + rand(2, 100, 3)
    std, mean = torch.tensor([2.0, 30.0, 0.1]), torch.tensor([5.0, -100.0, 0.0])
    got = fill(Meter("regression", 3, "cpu", target_std=std), predictions, targets)
    true, predicted = ((v.double() * std.double() + mean).numpy() for v in (targets, predictions))
    assert list(got) == metric_names("regression", 3)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(true, predicted), rel=1e-9)
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(true, predicted), rel=1e-9)
    assert got["r2"] == pytest.approx(sk.r2_score(true, predicted), rel=1e-9)


def test_r2_of_constant_targets_is_scikit_learns() -> None:
    targets = torch.full((100, 3), 0.5)
    targets[:, 2] = rand(1, 100)
    predictions = targets.clone()
    predictions[:, 1] += 0.25
    predictions[:, 2] += rand(2, 100)
    got = fill(Meter("regression", 3, "cpu"), predictions, targets)
    assert got["r2"] == pytest.approx(sk.r2_score(targets, predictions), rel=1e-6)
    alone = fill(Meter("regression", 1, "cpu"), predictions[:, :1], targets[:, :1])
    assert alone["r2"] == sk.r2_score(targets[:, :1], predictions[:, :1]) == 1.0


@pytest.mark.parametrize(
    ("task", "targets", "names"),
    [
        ("classification", torch.arange(100) % 6, ["loss", "accuracy"]),
        ("soft", rand(2, 100, 6).softmax(1), ["loss", "accuracy"]),
        ("multilabel", (rand(2, 100, 6) > 0).float(), ["loss"]),
        ("regression", rand(2, 100, 6), ["loss"]),
    ],
)
def test_training_needs_little_and_agrees(task: str, targets: torch.Tensor, names: list[str]) -> None:
    outputs = rand(1, 100, 6).requires_grad_()
    little = fill(Meter(task, 6, "cpu", full=False), outputs, targets)
    full = fill(Meter(task, 6, "cpu"), outputs, targets)
    assert list(little) == names
    assert little == {name: full[name] for name in names}


def test_the_loss_is_the_mean_over_samples_in_double() -> None:
    meter = Meter("classification", 2, "cpu", full=False)
    losses = rand(3, 1000).abs()
    for loss in losses:
        meter.add(loss, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    assert meter.read()["loss"] == pytest.approx(losses.double().mean().item(), rel=1e-14)


@pytest.mark.parametrize("sizes", [(100,), (7, 1, 64, 28), (1,) * 100])
@pytest.mark.parametrize(("least", "smoothing"), [(0.0, 0.0), (0.5, 0.1)])
def test_a_loss_weighted_by_class_is_the_same_for_every_batch_size(
    sizes: tuple[int, ...], least: float, smoothing: float
) -> None:
    logits, labels = rand(1, 100, 4), torch.arange(100) % 4
    loss_fn = torch.nn.CrossEntropyLoss(weight=torch.tensor([least, 1.0, 2.0, 5.0]), label_smoothing=smoothing)
    meter = Meter("classification", 4, "cpu", full=False, class_weight=loss_fn.weight)
    for rows in torch.arange(100).split(list(sizes)):
        meter.add(loss_fn(logits[rows], labels[rows]), logits[rows], labels[rows])
    assert meter.read()["loss"] == pytest.approx(loss_fn(logits, labels).item(), rel=1e-6)


def test_half_precision_outputs() -> None:
    logits, labels = rand(1, 100, 6).bfloat16(), torch.arange(100) % 6
    got = fill(Meter("classification", 6, "cpu"), logits, labels)
    assert got["accuracy"] == (logits.argmax(1) == labels).double().mean().item()


def test_empty_meter_is_refused() -> None:
    with pytest.raises(ValueError, match="a meter was read before any sample was added"):
        Meter("regression", 1, "cpu").read()


def test_directions() -> None:
    lower = {
        name for task in ("classification", "regression") for name in metric_names(task, 9) if better(name) == "min"
    }
    assert lower == {"loss", "mae", "rmse"}
    assert better("val/loss") == "min"
    assert better("val/accuracy") == better("r2") == "max"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("task", ["classification", "soft", "multilabel", "regression"])
def test_adding_never_waits_for_the_gpu(task: str, full: bool) -> None:
    outputs = rand(1, 100, 6).cuda()
    targets = {
        "classification": torch.arange(100) % 6,
        "soft": rand(2, 100, 6).softmax(1),
        "multilabel": (rand(2, 100, 6) > 0).float(),
        "regression": rand(2, 100, 6),
    }[task].cuda()
    meter = Meter(task, 6, "cuda", full=full)
    meter.add(outputs.mean(), outputs, targets)
    torch.cuda.set_sync_debug_mode("error")
    try:
        meter.add(outputs.mean(), outputs, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.read()["loss"] == pytest.approx(outputs.mean().item(), rel=1e-6)
