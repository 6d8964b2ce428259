"""What several models share: activations by name, and what they say of data that does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]


def activation_layer(name: Activation) -> nn.Module:
    """The activation of that name with torch's default settings (gelu is the exact one)."""
    from torch import nn

    layers: dict[str, type[nn.Module]] = {
        "relu": nn.ReLU,
        "leaky_relu": nn.LeakyReLU,
        "elu": nn.ELU,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
    }
    return layers[name]()


def check_images(model: str, in_shape: tuple[int, ...], least: int) -> None:
    """Raise ConfigError unless samples are images (C, H, W) with sides of at least `least` pixels."""
    if len(in_shape) != 3:
        raise ConfigError(
            f"model {model} needs images, but the data set is a table of {in_shape[0]} features: use model=mlp"
        )
    _, height, width = in_shape
    if min(height, width) < least:
        raise ConfigError(
            f"model {model} needs images of at least {least}x{least}, got {height}x{width}: use model=cnn or model=mlp"
        )
