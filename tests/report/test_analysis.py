"""What a report tells from predictions, against other implementations of the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from trainkit.data.spec import TargetSpec
from trainkit.plots.charts import Reliability
from trainkit.statistics import interval
from trainkit.tasks.base import Numbers, task_of
from trainkit.tasks.calibration import reliability
from trainkit.tasks.classification import true_probability
from trainkit.tasks.confusion import DRAWN, LISTED, class_section, confused, confusion_section, matrix, per_class
from trainkit.tasks.multilabel import _reliability


def classes(logits: list[list[float]], targets: list[int]) -> Numbers:
    outputs = np.array(logits, dtype=np.float32)
    odds = np.exp(outputs)
    probability = odds / odds.sum(axis=1, keepdims=True)
    predicted, confidence = outputs.argmax(axis=1), probability.max(axis=1)
    return {"targets": np.array(targets), "predicted": predicted, "confidence": confidence, "outputs": outputs}


def judged(kept: Numbers) -> Reliability:
    return reliability(kept["confidence"], kept["predicted"] == kept["targets"])


def test_calibration_error_is_that_of_guo() -> None:
    rng = np.random.default_rng(1)
    found = classes(rng.normal(size=(500, 4)).tolist(), rng.integers(0, 4, 500).tolist())
    measured, confidence = judged(found), found["confidence"]
    error = 0.0
    for m in range(1, 16):  # eq. 3 of the paper, a bin ((m-1)/15, m/15] at a time
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        assert measured.count[m - 1] == inside.sum()
        if inside.any():
            right = (found["predicted"] == found["targets"])[inside].mean()
            error += inside.mean() * abs(right - confidence[inside].mean())
    assert measured.error == pytest.approx(error, rel=1e-6)


def test_calibration_error_of_known_cases() -> None:
    sure = classes([[50.0, 0.0]] * 10, [0] * 7 + [1] * 3)  # says 100%, is right 7 times of 10
    assert judged(sure).error == pytest.approx(0.3)
    fair = classes([[0.0, 0.0]] * 10, [0, 1] * 5)  # says 50%, is right every second time
    assert judged(fair).error == pytest.approx(0)


def test_labels_are_judged_one_by_one() -> None:
    outputs = np.array([[50.0, -50.0], [50.0, 50.0]], dtype=np.float32)
    targets = np.array([[1, 0], [1, 0]], dtype=np.float32)
    found = _reliability({"targets": targets, "outputs": outputs})
    assert found.count.sum() == 4
    assert found.error == pytest.approx(0.25)  # four sure answers, one of them wrong


def test_interval_is_that_of_wilson() -> None:
    for hits, total in ((0, 10), (9, 10), (348, 359), (5000, 10000)):
        theirs = binomtest(hits, total).proportion_ci(method="wilson")
        assert interval(hits, total) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_classes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, 300), rng.integers(0, 4, 300)  # class 4 is never predicted
    rows = {row.name: row for row in per_class(true, predicted, list("abcde"))}
    theirs = precision_recall_fscore_support(true, predicted, zero_division=0)
    for index, name in enumerate("abcde"):
        row = rows[name]
        assert (row.precision, row.recall, row.f1, row.count) == pytest.approx([part[index] for part in theirs])
    values = [row.f1 for row in per_class(true, predicted, list("abcde"))]
    assert values == sorted(values)
    counts = matrix(true, predicted, 5)
    assert counts.tolist() == confusion_matrix(true, predicted, labels=range(5)).tolist()
    (t, p, times), *rest = confused(true, predicted, 5)
    wrong = counts - np.diag(np.diag(counts))
    assert times == wrong.max() == counts[t, p] and t != p
    assert [row[2] for row in rest[:4]] == sorted(wrong.reshape(-1))[-2:-6:-1]
    taken = {row.name: (row.taken_for, row.times) for row in rows.values()}
    assert taken["a"] == ("abcde"[int(wrong[0].argmax())], wrong[0].max())


def test_of_very_many_classes_no_matrix_is_made() -> None:
    count = 50_000  # of which a matrix would take 20 GB
    true = np.random.default_rng(0).integers(0, count, 100_000)
    predicted = np.where(true % 7, true, 3)
    names = [str(i) for i in range(count)]
    shown, table = confusion_section(true, predicted, names), class_section(true, predicted, names)
    assert not shown.panels and shown.note == f"Of more than {DRAWN:,} classes no matrix is drawn."
    assert shown.tables[0].rows[0][1] == "3"
    assert len(table.tables[0].rows) == LISTED and f"the first {LISTED:,} of 50,000" in str(table.note)


def test_worst_are_first() -> None:
    found = classes([[3, 0, 0], [0, 9, 0], [5, 0, 0], [0, 1, 0.9], [4, 3.9, -5]], [0, 0, 1, 2, 2])
    kinds = task_of(TargetSpec("classification")).worst(found, 2)
    assert kinds["most confident"].tolist() == [1, 2]  # sample 0 is right
    assert kinds["true class least expected"].tolist() == [4, 3]
    true = true_probability(found)
    assert true is not None and true[4] < true[3]


def test_worst_of_numbers_is_by_spread() -> None:
    targets = np.array([[0, 0], [1, 1000], [2, 2000]], dtype=np.float32)
    outputs = targets + np.array([[0, 100], [1, 0], [0, 0]], dtype=np.float32)
    (order,) = task_of(TargetSpec("regression")).worst({"targets": targets, "outputs": outputs}, 3).values()
    assert order[0] == 1  # one of a spread of 0.8, against 100 of a spread of 816
