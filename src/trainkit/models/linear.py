"""The linear model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trainkit.registry import register

if TYPE_CHECKING:
    from torch import nn


@register("model")
def linear(in_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """One linear layer on the flattened input (softmax or linear regression).

    Maps (N, *in_shape) to (N, num_outputs).
    """
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), num_outputs))
