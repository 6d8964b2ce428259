"""Metrics of a pass over a split, equal to scikit-learn's on the same predictions.

Sums are kept on the device, so adding a batch never waits for it; only reading does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainkit.data.splits import Task
from trainkit.statistics import better as better

CONFUSABLE = 200  # classes: up to so many are counted as a confusion matrix, which headers and logs then hold
Metrics = dict[str, "float | list[list[int]]"]
Sums = dict[str, NDArray[Any]]


def metric_names(task: Task, num_outputs: int, topk: int = 5) -> list[str]:
    """Names of the numbers a full `Meter` gives, in its order; the confusion matrix, being no number, is left out."""
    if task == "regression":
        return ["loss", "mae", "rmse", "r2"]
    top = [f"top{topk}_accuracy"] if task == "classification" and num_outputs > topk else []
    return ["loss", "accuracy", *top, "macro_f1", "macro_precision", "macro_recall"]


class Meter:
    """Sums of one pass over a split.

    full: all metrics, as evaluation needs; otherwise the loss, and the accuracy of classification and soft targets.
    topk: the k of top-k accuracy, given for classification with more than k classes.
    target_std: (T,), the factor from standardised to original units of a regression target; None for 1. class_weight:
    (C,) on the device, of a loss whose mean over labels is weighted by class; then so is the mean over batches.
    """

    def __init__(
        self,
        task: Task,
        num_outputs: int,
        device: torch.device | str,
        *,
        full: bool = True,
        topk: int = 5,
        target_std: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> None:
        self.task = task
        self.full = full
        self.topk = topk if task == "classification" and num_outputs > topk else None
        self.num_samples = 0
        self._target_std = torch.ones(num_outputs) if target_std is None else target_std
        device = torch.device(device)
        real = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        shapes: dict[str, tuple[int, ...]] = {}
        if task == "regression":
            shapes = dict.fromkeys(("shift", "absolute", "squared", "target", "target_squared"), (num_outputs,))
        counts: dict[str, tuple[int, ...]] = {"correct": (), "left_out": ()}
        of_classes = full and task in ("classification", "soft")
        if task == "multilabel" or (of_classes and num_outputs > CONFUSABLE):
            counts |= dict.fromkeys(("hit", "predicted", "true"), (num_outputs,))
        elif of_classes:
            counts["confusion"] = (num_outputs, num_outputs)
        if of_classes:
            counts["top"] = ()
        self._sums = {name: torch.zeros(shape, dtype=real, device=device) for name, shape in shapes.items()}
        self._sums |= {name: torch.zeros(shape, dtype=torch.int64, device=device) for name, shape in counts.items()}
        self._sums["loss"] = torch.zeros((), dtype=real, device=device)
        self._class_weight = class_weight
        if class_weight is not None:
            self._sums["weight"] = torch.zeros((), dtype=real, device=device)

    @torch.no_grad()
    def add(self, loss: Tensor, outputs: Tensor, targets: Tensor, counted: Tensor | None = None) -> None:
        """Count a batch; leave it out where `counted`, a 0-dim bool on the device, says so without being waited for.

        loss: its mean, 0-dim, which counts as much as the samples that it is a mean of. outputs: logits (N, C), or
        standardised predictions (N, T). targets: as in `data.splits`, or class probabilities (N, C) for a
        classification whose samples were mixed, where the likeliest class counts; regression targets standardised like
        the outputs.
        """
        before = None if counted is None else {name: total.clone() for name, total in self._sums.items()}
        if self._class_weight is None:
            self._sums["loss"].add_(loss, alpha=len(targets))
        else:
            self._add_weighted(loss, targets)
        if self.task in ("classification", "soft"):
            self._add_classes(outputs, targets if targets.ndim == 1 else targets.argmax(dim=1))
        elif self.full and self.task == "multilabel":
            self._add_labels(outputs > 0, targets > 0.5)
        elif self.full:
            self._add_errors(outputs, targets)
        self.num_samples += len(targets)
        if counted is not None and before is not None:
            for name, total in self._sums.items():
                total.copy_(torch.where(counted, total, before[name]))
            self._sums["left_out"].add_(~counted, alpha=len(targets))

    def _add_weighted(self, loss: Tensor, targets: Tensor) -> None:
        assert self._class_weight is not None
        # of class probabilities torch takes the plain mean
        weight = self._class_weight[targets].sum() if targets.ndim == 1 else torch.full_like(loss, len(targets))
        # the mean over samples that all weigh nothing is 0 / 0, and counts nothing
        self._sums["loss"].add_(torch.where(weight > 0, loss * weight, 0))
        self._sums["weight"].add_(weight)

    def _add_classes(self, logits: Tensor, labels: Tensor) -> None:
        sums, predicted = self._sums, logits.argmax(dim=1)
        sums["correct"].add_((predicted == labels).sum())
        if not self.full:
            return
        if self.topk is not None:
            sums["top"].add_((logits.topk(self.topk, dim=1).indices == labels[:, None]).sum())
        # index_add_ into a table of known size: torch.bincount would wait for the device to learn its own size.
        one = torch.ones_like(labels)
        if "confusion" in sums:
            sums["confusion"].view(-1).index_add_(0, labels * logits.shape[1] + predicted, one)
        else:
            sums["hit"].index_add_(0, labels, (predicted == labels).to(one.dtype))
            sums["predicted"].index_add_(0, predicted, one)
            sums["true"].index_add_(0, labels, one)

    def _add_labels(self, predicted: Tensor, true: Tensor) -> None:
        self._sums["correct"].add_((predicted == true).all(dim=1).sum())
        self._sums["hit"].add_((predicted & true).sum(dim=0))
        self._sums["predicted"].add_(predicted.sum(dim=0))
        self._sums["true"].add_(true.sum(dim=0))

    def _add_errors(self, predictions: Tensor, targets: Tensor) -> None:
        sums = self._sums
        targets = targets.to(sums["squared"].dtype)
        errors = predictions - targets
        if self.num_samples == 0 and len(targets):
            sums["shift"].copy_(targets[0])
        # The spread of the targets is summed about the first of them: exactly 0 for a constant target, and free of
        # cancellation for targets far from 0.
        centred = targets - sums["shift"]
        sums["absolute"].add_(errors.abs().sum(dim=0))
        sums["squared"].add_(errors.square().sum(dim=0))
        sums["target"].add_(centred.sum(dim=0))
        sums["target_squared"].add_(centred.square().sum(dim=0))

    def state(self) -> dict[str, Tensor]:
        """The sums, by name, on the device; with `num_samples` all that `restore` needs."""
        return dict(self._sums)

    def restore(self, sums: dict[str, Tensor], num_samples: int) -> None:
        """Go on from the sums of another meter of the same kind."""
        for name, total in self._sums.items():
            total.copy_(sums[name])
        self.num_samples = num_samples

    def read(self) -> Metrics:
        """The metrics of all samples so far; the one call that waits for the device.

        Numbers by name, and for full classification and soft of up to CONFUSABLE classes `confusion`: integers
        [true class][predicted class].
        Macro averages run over all classes, where a class without samples or predictions counts 0. Several regression
        targets are averaged with equal weight, in their original units. Raises ValueError before the first sample.
        """
        if self.num_samples == 0:
            raise ValueError("a meter was read before any sample was added")
        sums = {name: total.cpu().numpy() for name, total in self._sums.items()}
        counted = self.num_samples - int(sums["left_out"])
        if counted == 0:  # every step of the epoch was skipped
            return dict.fromkeys(("loss", "accuracy"), float("nan"))
        weight = float(sums.get("weight", counted))
        metrics: Metrics = {"loss": float(sums["loss"]) / weight if weight else float("nan")}
        if self.task in ("classification", "soft"):
            metrics["accuracy"] = int(sums["correct"]) / counted
        if self.full and self.task == "regression":
            metrics |= _regression(sums, counted, self._target_std.cpu().double().numpy())
        elif self.full and self.task == "multilabel":
            metrics["accuracy"] = int(sums["correct"]) / counted
            metrics |= _macro(sums["hit"], sums["predicted"], sums["true"])
        elif self.full:
            if self.topk is not None:
                metrics[f"top{self.topk}_accuracy"] = int(sums["top"]) / counted
            if "confusion" in sums:
                confusion = sums["confusion"]
                metrics |= _macro(confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1))
                metrics["confusion"] = confusion.tolist()
            else:
                metrics |= _macro(sums["hit"], sums["predicted"], sums["true"])
        return metrics


def _macro(hit: NDArray[Any], predicted: NDArray[Any], true: NDArray[Any]) -> Metrics:
    # Each (C,): how often a class was predicted rightly, predicted, and true. A ratio 0 / 0 counts 0.
    return {
        "macro_f1": float(np.mean(2 * hit / np.maximum(predicted + true, 1))),
        "macro_precision": float(np.mean(hit / np.maximum(predicted, 1))),
        "macro_recall": float(np.mean(hit / np.maximum(true, 1))),
    }


def _regression(sums: Sums, num_samples: int, scale: NDArray[Any]) -> Metrics:
    # r2 of a constant target is 1 if predicted exactly and else 0, as scikit-learn has it.
    squared = sums["squared"]
    spread = np.maximum(sums["target_squared"] - sums["target"] ** 2 / num_samples, 0)
    share = np.divide(squared, spread, out=(squared > 0).astype(float), where=spread > 0)
    return {
        "mae": float(np.mean(sums["absolute"] / num_samples * scale)),
        "rmse": float(np.mean(np.sqrt(squared / num_samples) * scale)),
        "r2": float(np.mean(1 - share)),
    }
