"""Metrics of probabilities, which need all of them at once: areas under curves, and the threshold of two classes.

They equal scikit-learn's `roc_auc_score`, `average_precision_score` and `log_loss`, averaged over classes, one against
the rest, where there are more than two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.tasks.base import Mean, Metric, Numbers, Sum
from trainkit.tasks.counts import as_labels

ROC_AUC = Metric("roc_auc", "max", "share", title="ROC AUC")
PR_AUC = Metric("pr_auc", "max", "share", title="PR AUC")
THRESHOLD = Metric("threshold", "max", only="val")
MOST_CLASSES = 20  # of more, curves of one class against the rest are left out: they would slow down every epoch
SCORES, LABELS = "scores", "labels"  # what is kept of every sample

Values = NDArray[Any]


def log_loss() -> Sum:
    """The mean of -log p of the true class, whatever the loss weighs or smooths."""

    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        labels = as_labels(targets).unsqueeze(1)
        return -outputs.float().log_softmax(dim=1).gather(1, labels).squeeze(1)

    return Mean(Metric("log_loss", "min"), values)


class Areas(Sum):
    """Areas under the ROC and the precision-recall curve; of two classes also the threshold that suits a split best.

    A class that no sample has, or all have, has no area, and is left out of the mean.
    """

    kept = (SCORES, LABELS)

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.metrics = (ROC_AUC, PR_AUC, *([THRESHOLD] if num_classes == 2 else []))

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        return {}

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Tensor) -> None:
        """Nothing adds up: all is in what is kept."""

    def keep(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        probabilities = outputs.float().softmax(dim=1)
        scores = probabilities[:, 1:] if self.num_classes == 2 else probabilities
        return {SCORES: scores, LABELS: as_labels(targets)}

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        scores, labels = sums[SCORES], sums[LABELS]
        if not len(scores) or len(scores) != len(labels):
            return dict.fromkeys((metric.name for metric in self.metrics), float("nan"))
        scores, labels = scores[labels >= 0], labels[labels >= 0]
        ones = [labels == (1 if self.num_classes == 2 else label) for label in range(scores.shape[1])]
        told = [place for place, one in enumerate(ones) if one.any() and not one.all()]
        found = {
            ROC_AUC.name: _mean([roc_auc(scores[:, place], ones[place]) for place in told]),
            PR_AUC.name: _mean([average_precision(scores[:, place], ones[place]) for place in told]),
        }
        return found | ({THRESHOLD.name: best_threshold(scores[:, 0], ones[0])} if self.num_classes == 2 else {})


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _steps(scores: Values, ones: Values) -> tuple[Values, Values, Values]:
    """The distinct scores, falling, and how many samples of the class, and of the others, have at least each."""
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order], ones[order]
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # the last sample of each score
    true = np.cumsum(hits)[last]
    return falling[last], true, 1 + last - true


def roc_auc(scores: Values, ones: Values) -> float:
    """The chance that a sample of the class (N,) has a higher score than one of the others; ties count half."""
    _, true, false = _steps(scores, ones)
    true, false = np.append(0, true), np.append(0, false)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)
    return float(area / (true[-1] * false[-1]))


def average_precision(scores: Values, ones: Values) -> float:
    """The mean of the precisions at each score, weighted by what each adds to the recall."""
    _, true, false = _steps(scores, ones)
    return float(np.sum(np.diff(np.append(0, true)) * true / (true + false)) / true[-1])


def best_threshold(scores: Values, ones: Values) -> float:
    """The probability from which on the class is answered, so that the mean recall of both classes is largest.

    Youden's J statistic (1950). It lies in the middle between two scores; of equals the one nearest to 0.5.
    Not-a-number where one of the two classes has no sample.
    """
    if ones.all() or not ones.any():
        return float("nan")
    values, true, false = _steps(scores, ones)
    gain = true / true[-1] - false / false[-1]
    between = np.append((values[:-1] + values[1:]) / 2, 0.0)
    best = np.flatnonzero(gain >= gain.max() - 1e-12)
    return float(between[best[np.argmin(np.abs(between[best] - 0.5))]])
