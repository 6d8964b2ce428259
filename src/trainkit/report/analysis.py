"""What can be told from predictions and confusion matrices. NumPy only."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.report.answers import Predictions

MOST_CLASSES = 2000  # of a confusion matrix: of more a page shows none
BINS = 15  # of the reliability diagram, as in Guo et al. 2017


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal bins of confidence: each (bins,), not-a-number where a bin is empty.

    error: the expected calibration error, eq. 3 of Guo et al. 2017 (arXiv:1706.04599), in 0..1.
    """

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def reliability(predictions: Predictions) -> Reliability | None:
    """The reliability of the likeliest class; of every label by itself where a sample can have several.

    None for regression.
    """
    if predictions.task == "regression":
        return None
    if predictions.predicted is not None and predictions.confidence is not None:
        confidence, right = predictions.confidence, predictions.predicted == predictions.targets
    else:
        probability = label_probability(predictions)
        confidence = np.maximum(probability, 1 - probability).reshape(-1)
        right = ((probability > 0.5) == (predictions.targets > 0.5)).reshape(-1)
    confidence = confidence.astype(np.float64)
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # bin m holds ((m-1)/M, m/M]
    count = np.bincount(which, minlength=BINS)
    filled = np.where(count > 0, count, np.nan)
    mean = np.bincount(which, confidence, BINS) / filled
    accuracy = np.bincount(which, right, BINS) / filled
    error = float(np.nansum(count / len(confidence) * np.abs(accuracy - mean)))
    return Reliability(mean, accuracy, count, error)


def label_probability(predictions: Predictions) -> NDArray[np.float64]:
    """The probability of each label of each sample (N, C), from multilabel logits."""
    assert predictions.outputs is not None
    return 1 / (1 + np.exp(-np.clip(predictions.outputs.astype(np.float64), -500, 500)))


def true_probability(predictions: Predictions) -> NDArray[np.float64] | None:
    """The probability (N,) that was given to the true class; None without all the outputs."""
    if predictions.outputs is None or predictions.predicted is None:
        return None
    logits = predictions.outputs.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(logits)), predictions.targets]
    return np.asarray(np.exp(chosen - np.log(np.exp(logits).sum(axis=1))))


def worst(predictions: Predictions, limit: int) -> dict[str, NDArray[np.int64]]:
    """Places of the worst samples in their split, worst first, by what makes them so; at most `limit` of each kind.

    Classes: the errors of highest confidence, then those of the others whose true class got the least probability.
    Labels: the samples with the surest wrong label. Regression: the largest errors, in units of each target's spread.
    """
    if predictions.task in ("classification", "soft"):
        assert predictions.predicted is not None and predictions.confidence is not None
        wrong = np.flatnonzero(predictions.predicted != predictions.targets)
        sure = wrong[np.argsort(-predictions.confidence[wrong], kind="stable")][:limit]
        found = {"most confident": sure}
        true = true_probability(predictions)
        if true is not None and len(others := np.setdiff1d(wrong, sure)):
            found["true class least expected"] = others[np.argsort(true[others], kind="stable")][:limit]
        return found
    if predictions.task == "multilabel":
        probability = label_probability(predictions)
        wrong_by = np.where((probability > 0.5) != (predictions.targets > 0.5), np.abs(probability - 0.5), 0).max(
            axis=1
        )
        order = np.argsort(-wrong_by, kind="stable")
        return {"surest wrong label": order[wrong_by[order] > 0][:limit]}
    assert predictions.outputs is not None
    spread = np.maximum(predictions.targets.std(axis=0, dtype=np.float64), 1e-12)
    error = (np.abs(predictions.outputs.astype(np.float64) - predictions.targets) / spread).max(axis=1)
    return {"largest error": np.argsort(-error, kind="stable")[:limit]}


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """How one class fared. A ratio 0 / 0 counts 0. taken_for: what it was most often called wrongly, so many times."""

    name: str
    count: int
    precision: float
    recall: float
    f1: float
    taken_for: str | None
    times: int


def per_class(confusion: NDArray[np.int64], names: list[str]) -> list[ClassRow]:
    """A row for each class of a confusion matrix (C, C), true by predicted; the lowest F1 first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for index, name in enumerate(names):
        hit, true, answered = (
            int(x) for x in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
        )
        other = int(wrong[index].argmax())
        times = int(wrong[index, other])
        f1 = 2 * hit / max(true + answered, 1)
        taken_for = names[other] if times else None
        rows.append(ClassRow(name, true, hit / max(answered, 1), hit / max(true, 1), f1, taken_for, times))
    return sorted(rows, key=lambda row: row.f1)


def confused(confusion: NDArray[np.int64], limit: int) -> list[tuple[int, int, int]]:
    """The most frequent confusions: (true class, predicted class, how often)."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    cells = [(int(cell) // len(wrong), int(cell) % len(wrong)) for cell in order]
    return [(true, answered, int(wrong[true, answered])) for true, answered in cells if wrong[true, answered]]


def count_confusion(predictions: Predictions) -> NDArray[np.int64] | None:
    """The confusion matrix (C, C), true by predicted, of up to MOST_CLASSES classes; None for anything else."""
    if predictions.predicted is None or predictions.classes is None or len(predictions.classes) > MOST_CLASSES:
        return None
    count = len(predictions.classes)
    cells = predictions.targets * count + predictions.predicted
    return np.bincount(cells, minlength=count * count).reshape(count, count).astype(np.int64)


def interval(hits: int, total: int) -> tuple[float, float]:
    """The 95% score interval of a share (Wilson 1927)."""
    z, share = 1.96, hits / total
    centre = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre - half) / (1 + z * z / total), (centre + half) / (1 + z * z / total)


def as_confusion(value: Any) -> NDArray[np.int64] | None:
    """A confusion matrix as JSON has it; None for anything else."""
    try:
        matrix = np.asarray(value)
    except ValueError:
        return None
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 1
    if not square or matrix.dtype.kind != "i" or matrix.min() < 0 or matrix.sum() == 0:
        return None
    return matrix.astype(np.int64)
