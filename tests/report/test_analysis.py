"""What a report tells from predictions, against other implementations of the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support
from trainkit.report.analysis import as_confusion, confused, interval, per_class, reliability, true_probability, worst
from trainkit.report.answers import Predictions


def classes(logits: list[list[float]], targets: list[int]) -> Predictions:
    outputs = np.array(logits, dtype=np.float32)
    odds = np.exp(outputs)
    probability = odds / odds.sum(axis=1, keepdims=True)
    predicted, confidence = outputs.argmax(axis=1), probability.max(axis=1)
    names = [str(i) for i in range(outputs.shape[1])]
    return Predictions("test", "classification", np.array(targets), names, predicted, confidence, outputs)


def test_calibration_error_is_that_of_guo() -> None:
    rng = np.random.default_rng(1)
    found = classes(rng.normal(size=(500, 4)).tolist(), rng.integers(0, 4, 500).tolist())
    measured = reliability(found)
    assert measured is not None and found.confidence is not None
    error = 0.0
    for m in range(1, 16):  # eq. 3 of the paper, a bin ((m-1)/15, m/15] at a time
        inside = (found.confidence > (m - 1) / 15) & (found.confidence <= m / 15)
        assert measured.count[m - 1] == inside.sum()
        if inside.any():
            right = (found.predicted == found.targets)[inside].mean()
            error += inside.mean() * abs(right - found.confidence[inside].mean())
    assert measured.error == pytest.approx(error, rel=1e-6)


def test_calibration_error_of_known_cases() -> None:
    sure = classes([[50.0, 0.0]] * 10, [0] * 7 + [1] * 3)  # says 100%, is right 7 times of 10
    assert reliability(sure).error == pytest.approx(0.3)  # type: ignore[union-attr]
    fair = classes([[0.0, 0.0]] * 10, [0, 1] * 5)  # says 50%, is right every second time
    assert reliability(fair).error == pytest.approx(0)  # type: ignore[union-attr]


def test_labels_are_judged_one_by_one() -> None:
    outputs = np.array([[50.0, -50.0], [50.0, 50.0]], dtype=np.float32)
    targets = np.array([[1, 0], [1, 0]], dtype=np.float32)
    found = reliability(Predictions("test", "multilabel", targets, ["a", "b"], outputs=outputs))
    assert found is not None and found.count.sum() == 4
    assert found.error == pytest.approx(0.25)  # four sure answers, one of them wrong


def test_interval_is_that_of_wilson() -> None:
    for hits, total in ((0, 10), (9, 10), (348, 359), (5000, 10000)):
        theirs = binomtest(hits, total).proportion_ci(method="wilson")
        assert interval(hits, total) == pytest.approx((theirs.low, theirs.high), abs=1e-4)


def test_classes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 5, 300), rng.integers(0, 4, 300)  # class 4 is never predicted
    confusion = np.zeros((5, 5), np.int64)
    np.add.at(confusion, (true, predicted), 1)
    rows = {row.name: row for row in per_class(confusion, list("abcde"))}
    theirs = precision_recall_fscore_support(true, predicted, zero_division=0)
    for index, name in enumerate("abcde"):
        row = rows[name]
        assert (row.precision, row.recall, row.f1, row.count) == pytest.approx([part[index] for part in theirs])
    values = [row.f1 for row in per_class(confusion, list("abcde"))]
    assert values == sorted(values)
    (t, p, times), *rest = confused(confusion, 5)
    wrong = confusion - np.diag(np.diag(confusion))
    assert times == wrong.max() == confusion[t, p] and t != p
    assert [row[2] for row in rest] == sorted(wrong.reshape(-1))[-2:-6:-1]


def test_worst_are_first() -> None:
    found = classes([[3, 0, 0], [0, 9, 0], [5, 0, 0], [0, 1, 0.9], [4, 3.9, -5]], [0, 0, 1, 2, 2])
    kinds = worst(found, 2)
    assert kinds["most confident"].tolist() == [1, 2]  # sample 0 is right
    assert kinds["true class least expected"].tolist() == [4, 3]
    true = true_probability(found)
    assert true is not None and true[4] < true[3]


def test_worst_of_numbers_is_by_spread() -> None:
    targets = np.array([[0, 0], [1, 1000], [2, 2000]], dtype=np.float32)
    outputs = targets + np.array([[0, 100], [1, 0], [0, 0]], dtype=np.float32)
    (order,) = worst(Predictions("test", "regression", targets, outputs=outputs), 3).values()
    assert order[0] == 1  # one of a spread of 0.8, against 100 of a spread of 816


@pytest.mark.parametrize(
    "value", [None, [], [[1]], [[1, 2]], [[1, -1], [0, 1]], [[0, 0], [0, 0]], [[0.5, 1], [1, 1]], "x"]
)
def test_only_a_confusion_matrix_is_one(value: object) -> None:
    assert as_confusion(value) is None
    assert as_confusion([[1, 2], [0, 3]]) is not None
