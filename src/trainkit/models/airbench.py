"""The networks of the CIFAR-10 speed records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.models._layers import check_images
from trainkit.registry import register
from trainkit.schema import Count, Positive

if TYPE_CHECKING:
    from torch import nn


@register("model")
def airbench(
    in_shape: tuple[int, ...],
    num_outputs: int,
    *,
    widths: list[Count] = [64, 256, 256],
    temperature: Positive = 9.0,
) -> nn.Module:
    """CIFAR speed-record network: whitened patches, then wide stages.

    A frozen 2x2 convolution that whitens the training images' patches, GELU; per entry of `widths`: convolution, max
    pooling by 2, norm, GELU, convolution, norm, GELU; then the maximum over the image, a linear layer without bias,
    and logits divided by `temperature`. Convolutions start as the identity; norms learn a bias alone. Maps (N, C, H, W)
    to (N, num_outputs). The module's `initialize(images)` takes the first layer from normalized training images.

    Jordan 2024, arXiv:2404.00498 (airbench94). Raises ConfigError for a table, and for images too small for the
    stages.
    """
    from torch import nn

    from trainkit.models._blocks import Airbench, Cool, GlobalMax, Whitening, bias_norm, dirac_conv

    check_images("airbench", in_shape, 2 ** len(widths) + 1)
    depth = 8 * in_shape[0]
    layers: list[nn.Module] = [Whitening(in_shape[0]), nn.GELU()]
    for width in widths:
        layers += [dirac_conv(depth, width), nn.MaxPool2d(2), bias_norm(width), nn.GELU()]
        layers += [dirac_conv(width, width), bias_norm(width), nn.GELU()]
        depth = width
    return Airbench(*layers, GlobalMax(), nn.Linear(depth, num_outputs, bias=False), Cool(temperature))
