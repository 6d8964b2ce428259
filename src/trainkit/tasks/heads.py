"""What outputs mean: modules from what a model gives to what is told of it, for `predict` and `export`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def softmax() -> nn.Module:
    """Logits (N, C) to the probabilities of classes that exclude each other."""
    from torch import nn

    return nn.Softmax(dim=1)


def sigmoid() -> nn.Module:
    """Logits (N, C) to the probability of each label by itself."""
    from torch import nn

    return nn.Sigmoid()
