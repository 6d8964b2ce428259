"""Sums of classes and labels: hits, the k likeliest, the counts of each class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.tasks.base import Metric, Numbers, Sum

ACCURACY = Metric("accuracy", "max", "share", short="acc")
MACRO = (
    Metric("macro_f1", "max", "share", title="macro F1"),
    Metric("macro_precision", "max", "share"),
    Metric("macro_recall", "max", "share"),
)
BALANCED = Metric("balanced_accuracy", "max", "share")  # the mean recall of the classes that occur


def as_labels(targets: Tensor) -> Tensor:
    """Class labels (N,): the targets themselves, or the likeliest classes of probabilities (N, C)."""
    return targets if targets.ndim == 1 else targets.argmax(dim=1)


class Hits(Sum):
    """How often the largest logit is that of the true class."""

    metrics = (ACCURACY,)

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        return {"correct": torch.zeros((), dtype=torch.int64, device=device)}

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Tensor) -> None:
        sums["correct"].add_((outputs.argmax(dim=1) == as_labels(targets)).sum())

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        return {"accuracy": int(sums["correct"]) / count}


class TopHits(Sum):
    """How often the true class is among the k largest logits."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.metrics = (Metric(f"top{k}_accuracy", "max", "share"),)

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        return {"top": torch.zeros((), dtype=torch.int64, device=device)}

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Tensor) -> None:
        sums["top"].add_((outputs.topk(self.k, dim=1).indices == as_labels(targets)[:, None]).sum())

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        return {self.metrics[0].name: int(sums["top"]) / count}


class ClassHits(Sum):
    """How often each class is predicted rightly, predicted, and true.

    Macro averages run over all classes, where a class without samples or predictions counts 0, as scikit-learn has it.
    No confusion matrix: of many classes that would be larger than the model.
    """

    metrics = (*MACRO, BALANCED)

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        return counts_of(self.num_classes, device)

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Tensor) -> None:
        # index_add_ into a table of known size: torch.bincount would wait for the device to learn its own size.
        true, predicted = as_labels(targets), outputs.argmax(dim=1)
        ones = torch.ones_like(true)
        sums["true"].index_add_(0, true, ones)
        sums["predicted"].index_add_(0, predicted, ones)
        sums["hit"].index_add_(0, true, (true == predicted).to(ones.dtype))

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        found = macro(sums["hit"], sums["predicted"], sums["true"])
        occurring = sums["true"] > 0
        return found | {BALANCED.name: float(np.mean(sums["hit"][occurring] / sums["true"][occurring]))}


class LabelHits(Sum):
    """Samples all of whose labels are right, and the hits of each label; a logit above 0 says yes."""

    metrics = (ACCURACY, *MACRO)

    def __init__(self, num_labels: int) -> None:
        self.num_labels = num_labels

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        return Hits().zeros(device, real) | counts_of(self.num_labels, device)

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Tensor) -> None:
        predicted, true = outputs > 0, targets > 0.5
        sums["correct"].add_((predicted == true).all(dim=1).sum())
        sums["hit"].add_((predicted & true).sum(dim=0))
        sums["predicted"].add_(predicted.sum(dim=0))
        sums["true"].add_(true.sum(dim=0))

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        return {"accuracy": int(sums["correct"]) / count} | macro(sums["hit"], sums["predicted"], sums["true"])


def counts_of(count: int, device: torch.device) -> dict[str, Tensor]:
    """Counts of so many classes or labels."""
    return {name: torch.zeros(count, dtype=torch.int64, device=device) for name in ("hit", "predicted", "true")}


def macro(hit: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """F1, precision and recall, averaged over classes.

    hit, predicted, true: (C,) each, how often a class was predicted rightly, predicted, and true. A ratio 0 / 0 is 0.
    """
    return {
        "macro_f1": float(np.mean(2 * hit / np.maximum(predicted + true, 1))),
        "macro_precision": float(np.mean(hit / np.maximum(predicted, 1))),
        "macro_recall": float(np.mean(hit / np.maximum(true, 1))),
    }
