"""The small convolutional network of the image classification tutorials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainkit.errors import ConfigError
from trainkit.models._layers import Activation, activation_layer, check_images
from trainkit.registry import register
from trainkit.schema import Count, Fraction

if TYPE_CHECKING:
    from torch import nn


@register("model")
def cnn(
    in_shape: tuple[int, ...],
    num_outputs: int,
    *,
    channels: list[Count] = [32, 64],
    kernel: Literal[1, 3, 5, 7] = 3,
    norm: Literal["none", "batch"] = "none",
    activation: Activation = "relu",
    pooling: Literal["max", "avg"] = "max",
    hidden: Count = 128,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """Convolution stages, each halving the image, then one hidden layer.

    Per entry of `channels`: convolution that keeps height and width, norm, activation, pooling by 2. Then flatten,
    linear, activation, dropout, linear. Maps (N, C, H, W) to (N, num_outputs). A plain `nn.Sequential`.

    Raises ConfigError for a table, and for images too small to be halved once per stage.
    """
    from torch import nn

    _check_shape(in_shape, len(channels))
    depth, height, width = in_shape
    layers: list[nn.Module] = []
    for next_depth in channels:
        layers.append(nn.Conv2d(depth, next_depth, kernel, padding=kernel // 2))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(next_depth))
        layers += [activation_layer(activation), nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2)]
        depth, height, width = next_depth, height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(depth * height * width, hidden), activation_layer(activation)]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(hidden, num_outputs))


def _check_shape(in_shape: tuple[int, ...], num_stages: int) -> None:
    check_images("cnn", in_shape, 1)
    if num_stages == 0:
        raise ConfigError(
            "model.channels is empty: name at least one stage, as in model.channels=[32], or use model=mlp"
        )
    _, height, width = in_shape
    most = min(height, width).bit_length() - 1  # the number of times the shorter side can be halved
    if num_stages > most:
        choice = f"give model.channels at most {most} entries, or use model=mlp" if most else "use model=mlp"
        size = 2**num_stages
        raise ConfigError(
            f"model.channels: {num_stages} stages need images of at least {size}x{size}, got {height}x{width}: {choice}"
        )
