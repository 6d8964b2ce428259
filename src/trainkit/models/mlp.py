"""The multilayer perceptron."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from trainkit.models._layers import Activation, activation_layer
from trainkit.registry import register
from trainkit.schema import Count, Fraction

if TYPE_CHECKING:
    from torch import nn


@register("model")
def mlp(
    in_shape: tuple[int, ...],
    num_outputs: int,
    *,
    hidden: list[Count] = [256, 128],
    activation: Activation = "relu",
    norm: Literal["none", "batch", "layer"] = "none",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Multilayer perceptron on the flattened input.

    Per hidden layer: linear, norm, activation, dropout; then a linear output layer. Maps (N, *in_shape) to
    (N, num_outputs). A plain `nn.Sequential`: what is switched off is absent, so a hand-written one with the same
    seed has the same weights and outputs.
    """
    from torch import nn

    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(in_shape)
    for next_width in hidden:
        layers.append(nn.Linear(width, next_width))
        width = next_width
        if norm == "batch":
            layers.append(nn.BatchNorm1d(width))
        elif norm == "layer":
            layers.append(nn.LayerNorm(width))
        layers.append(activation_layer(activation))
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, num_outputs))
