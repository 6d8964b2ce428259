"""Metrics against scikit-learn on the same predictions, added in uneven batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from trainkit.data.batch import Batch
from trainkit.data.spec import TargetSpec
from trainkit.losses.base import Loss, as_loss
from trainkit.tasks import confusion
from trainkit.tasks.base import task_of
from trainkit.tasks.meter import Meter

TASKS = ["classification", "soft", "multilabel", "regression"]


def make(task: str, size: int, device: str = "cpu", *, full: bool = True, topk: int = 5, **facts: Any) -> Meter:
    """A meter of a target with so many classes or numbers."""
    classes = None if task == "regression" else [f"c{i}" for i in range(size)]
    target = TargetSpec(task, classes, size if classes is None else 1, **facts)
    return Meter(task_of(target).sums(target, full=full, topk=topk), device)


def targets_of(task: str) -> torch.Tensor:
    """Of 100 samples, with six classes or numbers."""
    return {
        "classification": torch.arange(100) % 6,
        "soft": rand(2, 100, 6).softmax(1),
        "multilabel": (rand(2, 100, 6) > 0).float(),
        "regression": rand(2, 100, 6),
    }[task]


def names(meter: Meter) -> list[str]:
    return [metric.name for metric in meter.metrics]


def fill(meter: Meter, outputs: torch.Tensor, targets: torch.Tensor, sizes=(7, 1, 64, 28)) -> dict[str, float]:
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        meter.add(outputs[rows].float().mean(), outputs[rows], targets[rows], weight=size, count=size)
        start += size
    assert start == len(targets)
    got = meter.read()
    assert all(type(value) is float for value in got.values())
    return got


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def macro(true: np.ndarray, predicted: np.ndarray, num_classes: int) -> dict[str, float]:
    options = {"labels": range(num_classes), "average": "macro", "zero_division": 0}
    return {
        "macro_f1": sk.f1_score(true, predicted, **options),
        "macro_precision": sk.precision_score(true, predicted, **options),
        "macro_recall": sk.recall_score(true, predicted, **options),
    }


def check_counts(meter: Meter, true: np.ndarray, predicted: np.ndarray, num_classes: int) -> None:
    """The counts of each class are those of scikit-learn's confusion matrix, and so is the matrix of a report."""
    expected = sk.confusion_matrix(true, predicted, labels=range(num_classes))
    totals = meter.totals()
    for name, counts in {"hit": expected.diagonal(), "true": expected.sum(1), "predicted": expected.sum(0)}.items():
        assert totals[name].dtype == np.int64 and totals[name].tolist() == counts.tolist()
    found = confusion.matrix(true, predicted, num_classes)
    assert found.dtype == np.int64 and found.tolist() == expected.tolist()


def exactly(expected: dict[str, float]):
    return pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("num_classes", [2, 5, 6, 12])
def test_classification(num_classes: int) -> None:
    logits = rand(1, 100, num_classes)
    logits[:, 1] -= 9.0  # class 1 is never predicted
    labels = torch.randint(num_classes - 1, (100,), generator=torch.Generator().manual_seed(2))  # the last never true
    logits[torch.arange(100), labels] += 1.0
    meter = make("classification", num_classes)
    got = fill(meter, logits, labels)
    predicted, true = logits.argmax(1).numpy(), labels.numpy()
    expected = {
        "loss": logits.double().mean().item(),
        "accuracy": sk.accuracy_score(true, predicted),
        **macro(true, predicted, num_classes),
    }
    if num_classes > 5:
        expected["top5_accuracy"] = sk.top_k_accuracy_score(true, logits.numpy(), k=5, labels=range(num_classes))
    assert abs(got.pop("loss") - expected.pop("loss")) < 1e-6  # the batches' own means are float32
    assert {name: got[name] for name in expected} == exactly(expected)  # the others: see test_scores.py
    assert ["loss", *got] == names(meter)
    check_counts(meter, true, predicted, num_classes)


def test_topk_can_be_chosen() -> None:
    logits, labels = rand(1, 100, 4), torch.arange(100) % 4
    meter = make("classification", 4, topk=3)
    got = fill(meter, logits, labels)
    assert got["top3_accuracy"] == sk.top_k_accuracy_score(labels, logits, k=3)
    assert "top3_accuracy" in names(meter)


def test_soft() -> None:
    logits, targets = rand(1, 100, 7), rand(2, 100, 7).softmax(1)
    meter = make("soft", 7)
    got = fill(meter, logits, targets)
    true, predicted = targets.argmax(1).numpy(), logits.argmax(1).numpy()
    assert list(got) == names(meter)
    got.pop("loss")
    expected = {"accuracy": sk.accuracy_score(true, predicted), **macro(true, predicted, 7)}
    assert {name: got[name] for name in expected} == exactly(expected)
    check_counts(meter, true, predicted, 7)


def test_multilabel() -> None:
    logits, targets = rand(1, 100, 4), (rand(2, 100, 4) > 0).float()
    logits[:50] = logits[:50].abs() * (2 * targets[:50] - 1)
    logits[:, 2] = -1.0  # never predicted
    targets[:, 3] = 0.0  # never true
    meter = make("multilabel", 4)
    got = fill(meter, logits, targets)
    true, predicted = targets.numpy(), (logits > 0).numpy()
    assert list(got) == names(meter)
    got.pop("loss")
    assert got == exactly({"accuracy": sk.accuracy_score(true, predicted), **macro(true, predicted, 4)})
    assert got["accuracy"] > 0


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize(("far", "off"), [(0.0, 0.0), (1e6, 0.0), (0.0, 1e3), (1e6, 1e3)])
def test_regression(far: float, off: float, standardize: bool) -> None:
    """far: the training mean, from 0. off: the targets measured, from the training mean; in units of their spread."""
    mean, std = (torch.tensor([[far, far, -far], [2.0, 30.0, 0.1]])).double()
    true = mean + (rand(1, 100, 3) + off) * std  # float64
    predicted = true + rand(2, 100, 3) * std
    facts = {"mean": mean.tolist(), "std": std.tolist(), "standardize": standardize}
    meter = make("regression", 3, **facts)
    targets, outputs = (((v - mean) / std if standardize else v).float() for v in (true, predicted))
    got = fill(meter, outputs, targets)
    true, predicted = ((v.double() * std + mean if standardize else v.double()).numpy() for v in (targets, outputs))
    assert list(got) == names(meter)
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(true, predicted), rel=1e-9)
    assert got["rmse"] == pytest.approx(sk.root_mean_squared_error(true, predicted), rel=1e-9)
    assert got["r2"] == pytest.approx(sk.r2_score(true, predicted), rel=1e-9)


def test_r2_of_constant_targets_is_scikit_learns() -> None:
    targets = torch.full((100, 3), 0.5)
    targets[:, 2] = rand(1, 100)
    predictions = targets.clone()
    predictions[:, 1] += 0.25
    predictions[:, 2] += rand(2, 100)
    got = fill(make("regression", 3), predictions, targets)
    assert got["r2"] == pytest.approx(sk.r2_score(targets, predictions), rel=1e-6)
    alone = fill(make("regression", 1), predictions[:, :1], targets[:, :1])
    assert alone["r2"] == sk.r2_score(targets[:, :1], predictions[:, :1]) == 1.0


@pytest.mark.parametrize(
    ("task", "known"),
    [
        ("classification", ["loss", "accuracy"]),
        ("soft", ["loss", "accuracy"]),
        ("multilabel", ["loss"]),
        ("regression", ["loss"]),
    ],
)
def test_training_needs_little_and_agrees(task: str, known: list[str]) -> None:
    outputs, targets = rand(1, 100, 6).requires_grad_(), targets_of(task)
    little = fill(make(task, 6, full=False), outputs, targets)
    full = fill(make(task, 6), outputs, targets)
    assert list(little) == known
    assert little == {name: full[name] for name in known}


def test_the_loss_is_the_mean_over_samples_in_double() -> None:
    meter = make("classification", 2, full=False)
    losses = rand(3, 1000).abs()
    for loss in losses:
        meter.add(loss, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), weight=1, count=1)
    assert meter.read()["loss"] == pytest.approx(losses.double().mean().item(), rel=1e-14)


@pytest.mark.parametrize("sizes", [(100,), (7, 1, 64, 28), (1,) * 100])
@pytest.mark.parametrize(("least", "smoothing"), [(0.0, 0.0), (0.5, 0.1)])
def test_a_loss_weighted_by_class_is_the_same_for_every_batch_size(
    sizes: tuple[int, ...], least: float, smoothing: float
) -> None:
    logits, labels = rand(1, 100, 4), torch.arange(100) % 4
    plain = torch.nn.CrossEntropyLoss(weight=torch.tensor([least, 1.0, 2.0, 5.0]), label_smoothing=smoothing)
    loss_fn, meter = as_loss(plain), make("classification", 4, full=False)
    for rows in torch.arange(100).split(list(sizes)):
        batch = Batch(logits[rows], labels[rows], rows)
        loss, weight = loss_fn(batch.inputs, batch), loss_fn.weight(batch)
        meter.add(loss, batch.inputs, batch.targets, weight=weight, count=len(rows))
    assert meter.read()["loss"] == pytest.approx(plain(logits, labels).item(), rel=1e-6)


def test_half_precision_outputs() -> None:
    logits, labels = rand(1, 100, 6).bfloat16(), torch.arange(100) % 6
    got = fill(make("classification", 6), logits, labels)
    assert got["accuracy"] == (logits.argmax(1) == labels).double().mean().item()


def test_empty_meter_is_refused() -> None:
    with pytest.raises(ValueError, match="a meter was read before any sample was added"):
        make("regression", 1).read()


def test_directions() -> None:
    ways = {metric.name: metric.better for task in TASKS for metric in make(task, 9).metrics}
    assert {name for name, better in ways.items() if better == "min"} == {"loss", "log_loss", "mae", "rmse"}
    assert ways["accuracy"] == ways["top5_accuracy"] == ways["macro_f1"] == ways["r2"] == "max"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_adding_never_waits_for_the_gpu(task: str, full: bool) -> None:
    outputs = rand(1, 100, 6).cuda()
    targets = targets_of(task).cuda()
    meter = make(task, 6, "cuda", full=full)
    meter.add(outputs.mean(), outputs, targets, weight=100, count=100)
    torch.cuda.set_sync_debug_mode("error")
    try:
        meter.add(outputs.mean(), outputs, targets, weight=100, count=100)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.read()["loss"] == pytest.approx(outputs.mean().item(), rel=1e-6)


class Terms(Loss):
    """Two terms, and a weight that the device alone knows."""

    def forward(self, outputs: torch.Tensor, batch: Batch) -> dict[str, torch.Tensor]:
        weights = self.of(batch)
        parts = {"fit": outputs.square().mean(1), "size": outputs.abs().mean(1)}
        return {name: (values * weights).sum() / weights.sum() for name, values in parts.items()}

    def weight(self, batch: Batch) -> torch.Tensor:
        return self.of(batch).sum()

    def of(self, batch: Batch) -> torch.Tensor:
        return (batch.rows % 3).float() * 0.5


class PerSample(Loss):
    """One mean, which counts by its samples."""

    def forward(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        return outputs.square().mean()


def measured(meter: Meter, loss_fn: Loss, outputs: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor) -> Meter:
    """The meter, with these rows added in uneven batches."""
    for part in rows.split(13):
        batch = Batch(outputs[part], targets[part], part)
        loss, weight = loss_fn(batch.inputs, batch), loss_fn.weight(batch)
        meter.add(loss, batch.inputs, batch.targets, weight=weight, count=len(part))
    return meter


def added(first: Meter, second: Meter, into: Meter) -> Meter:
    """A meter with the sums of two, as a rank would add up those of all."""
    (sums, counts), (more, others) = first.state(), second.state()
    assert sums.keys() == more.keys()
    kept = {name for one in first.measured for name in one.kept}  # of every sample: joined, not added
    into.restore(
        {name: torch.cat([one, more[name]]) if name in kept else one + more[name] for name, one in sums.items()},
        {name: count + others[name] for name, count in counts.items()},
    )
    return into


@pytest.mark.parametrize("loss_fn", [Terms(), PerSample()], ids=lambda loss_fn: type(loss_fn).__name__)
@pytest.mark.parametrize("task", TASKS)
def test_the_sums_of_two_parts_add_up_to_those_of_all(task: str, loss_fn: Loss) -> None:
    outputs, targets, rows = rand(1, 100, 6), targets_of(task), torch.arange(100)
    whole, first, second, both = (make(task, 6) for _ in range(4))
    measured(whole, loss_fn, outputs, targets, rows)
    measured(first, loss_fn, outputs, targets, rows[:37])
    measured(second, loss_fn, outputs, targets, rows[37:])
    got, expected = added(first, second, both).read(), whole.read()
    assert got == pytest.approx(expected, rel=1e-6)
    assert got != pytest.approx(first.read(), rel=1e-3)
    assert both.num_samples == 100
    for name, total in whole.totals().items():  # what is counted is equal, not near
        if total.dtype == np.int64:
            assert np.array_equal(both.totals()[name], total)


def test_class_weights_add_up_too() -> None:
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0, 4.0])
    plain = torch.nn.CrossEntropyLoss(weight=weights)
    outputs, targets, rows = rand(1, 100, 6), targets_of("classification"), torch.arange(100)
    first = measured(make("classification", 6), as_loss(plain), outputs, targets, rows[:61])
    second = measured(make("classification", 6), as_loss(plain), outputs, targets, rows[61:])
    got = added(first, second, make("classification", 6)).read()
    assert got["loss"] == pytest.approx(plain(outputs, targets).item(), rel=1e-6)


def test_terms_are_metrics_and_their_sum_is_the_loss() -> None:
    outputs, targets, rows = rand(1, 100, 6), targets_of("classification"), torch.arange(100)
    meter = measured(make("classification", 6, full=False), Terms(), outputs, targets, rows)
    assert names(meter) == list(meter.read()) == ["loss", "fit", "size", "accuracy"]
    got, whole = meter.read(), Terms()(outputs, Batch(outputs, targets, rows))
    assert got["fit"] == pytest.approx(whole["fit"].item(), rel=1e-6)
    assert got["size"] == pytest.approx(whole["size"].item(), rel=1e-6)
    assert got["loss"] == pytest.approx(got["fit"] + got["size"], rel=1e-6)
    assert {metric.name: metric.better for metric in meter.metrics}["fit"] == "min"


def test_a_batch_that_weighs_nothing_counts_nothing() -> None:
    meter = make("classification", 6, full=False)
    outputs, targets = rand(1, 100, 6), targets_of("classification")
    plain = torch.nn.CrossEntropyLoss(weight=torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0, 1.0]))
    for part in (torch.arange(0, 100, 6), torch.arange(100)):  # only class 0, then all
        batch = Batch(outputs[part], targets[part], part)
        loss, weight = as_loss(plain)(batch.inputs, batch), as_loss(plain).weight(batch)
        meter.add(loss, batch.inputs, batch.targets, weight=weight, count=len(part))
    assert meter.read()["loss"] == pytest.approx(plain(outputs, targets).item(), rel=1e-6)


@pytest.mark.parametrize("loss_fn", [Terms(), PerSample()], ids=lambda loss_fn: type(loss_fn).__name__)
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_that_is_left_out_leaves_no_trace(task: str, loss_fn: Loss) -> None:
    outputs, targets = rand(1, 100, 6), targets_of(task)
    outputs[50:] = torch.nan
    meter, expected = make(task, 6), make(task, 6)
    for part, meters in ((torch.arange(50), (meter, expected)), (torch.arange(50, 100), (meter,))):
        batch = Batch(outputs[part], targets[part], part)
        for one in meters:
            loss, weight = loss_fn(batch.inputs, batch), loss_fn.weight(batch)
            counted = torch.isfinite(outputs[part]).all()
            one.add(loss, batch.inputs, batch.targets, weight=weight, count=50, counted=counted)
    assert meter.read() == expected.read()
    alone = make(task, 6)
    alone.add(torch.tensor(torch.nan), outputs[50:], targets[50:], weight=50, count=50, counted=torch.tensor(False))
    assert all(np.isnan(value) for value in alone.read().values())
