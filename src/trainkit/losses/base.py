"""The contract of a loss: the mean that is minimized, and how much it counts beside other means.

One algebra for a batch in parts, for the metrics of a split, for a last batch that is smaller, and for several
processes: the mean over all is the sum of mean times weight, divided by the sum of weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainkit.data.batch import Batch


class Loss(nn.Module):
    """A loss that sees the whole batch. A plain `nn.Module` of (outputs, targets) is wrapped: see `as_loss`."""

    def forward(self, outputs: Any, batch: Batch) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mean over the batch, 0-dim, that is minimized; or named terms, whose sum is: each is then a metric."""
        raise NotImplementedError

    def weight(self, batch: Batch) -> torch.Tensor | float:
        """How much this mean counts: its samples, their class weights, the tokens that are not ignored."""
        return len(batch)


class OfTargets(Loss):
    """A module of (outputs, targets) as a loss."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, outputs: Any, batch: Batch) -> torch.Tensor | dict[str, torch.Tensor]:
        found: torch.Tensor | dict[str, torch.Tensor] = self.module(outputs, batch.targets)
        return found


class OfClasses(OfTargets):
    """A module whose mean over class labels is weighted by class, as torch's cross-entropy is."""

    def __init__(self, module: nn.CrossEntropyLoss | nn.NLLLoss, labeled: bool) -> None:
        super().__init__(module)
        self.ignore_index = module.ignore_index
        self.none_ignored = labeled and self.ignore_index < 0  # known without asking the device

    def weight(self, batch: Batch) -> torch.Tensor | float:
        """The class weights of labels that are not ignored; of class probabilities torch takes the plain mean."""
        targets, weight = batch.targets, self.module.weight
        assert isinstance(targets, torch.Tensor)
        assert weight is None or isinstance(weight, torch.Tensor)
        if targets.is_floating_point() or (weight is None and self.none_ignored):
            return len(batch)
        if self.none_ignored:
            return weight[targets].sum()
        valid = targets != self.ignore_index
        # by a mask, because the host would have to wait for how many are valid
        return valid.sum() if weight is None else weight[targets.where(valid, 0)].where(valid, 0).sum()


def as_loss(module: nn.Module, *, labeled: bool = False) -> Loss:
    """A module as a loss, wrapped where it is none. labeled: as of the task."""
    if isinstance(module, Loss):
        return module
    if isinstance(module, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return OfClasses(module, labeled)
    return OfTargets(module)
