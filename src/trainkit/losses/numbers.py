"""Losses of numbers: (N, T), against as many outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.registry import register
from trainkit.schema import Positive

if TYPE_CHECKING:
    from torch import nn


@register("loss")
def mse(num_outputs: int) -> nn.Module:
    """Mean squared error."""
    from torch import nn

    return nn.MSELoss()


@register("loss")
def l1(num_outputs: int) -> nn.Module:
    """Mean absolute error."""
    from torch import nn

    return nn.L1Loss()


@register("loss")
def huber(num_outputs: int, *, delta: Positive = 1.0) -> nn.Module:
    """Huber loss: squared up to delta, linear beyond.

    delta: in standard deviations of the target where the targets are standardized (Huber 1964).
    """
    from torch import nn

    return nn.HuberLoss(delta=delta)
