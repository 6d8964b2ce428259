"""Residual networks for small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.models._layers import check_images
from trainkit.registry import register
from trainkit.schema import Count, Positive

if TYPE_CHECKING:
    from torch import nn


@register("model")
def resnet9(
    in_shape: tuple[int, ...], num_outputs: int, *, width: Count = 64, temperature: Positive = 8.0
) -> nn.Module:
    """Small wide residual network of the DAWNBench CIFAR-10 entries.

    Stages of `width` times 1, 2, 4 and 8 channels, each a 3x3 convolution with batch norm and ReLU; all but the first
    are pooled by 2, and the second and last have a residual pair of such convolutions. Then the maximum over the image,
    a linear layer without bias, and logits divided by `temperature`. Maps (N, C, H, W) to (N, num_outputs).

    Page 2018, "How to train your ResNet", whose images of 32x32 end in a 4x4 pooling. Raises ConfigError for a table,
    and for images smaller than 8x8.
    """
    from torch import nn

    from trainkit.models._blocks import Cool, GlobalMax, Residual

    check_images("resnet9", in_shape, 8)

    def conv(in_depth: int, depth: int) -> list[nn.Module]:
        return [nn.Conv2d(in_depth, depth, 3, padding=1, bias=False), nn.BatchNorm2d(depth), nn.ReLU(inplace=True)]

    def stage(depth: int, residual: bool) -> list[nn.Module]:
        pair = [Residual(nn.Sequential(*conv(depth, depth), *conv(depth, depth)))] if residual else []
        return [*conv(depth // 2, depth), nn.MaxPool2d(2), *pair]

    layers = [*conv(in_shape[0], width), *stage(2 * width, True), *stage(4 * width, False), *stage(8 * width, True)]
    return nn.Sequential(*layers, GlobalMax(), nn.Linear(8 * width, num_outputs, bias=False), Cool(temperature))


@register("model")
def resnet18(in_shape: tuple[int, ...], num_outputs: int, *, width: Count = 64) -> nn.Module:
    """ResNet-18 with the stem for small images: no early pooling.

    A 3x3 convolution of stride 1, then four stages of two basic blocks with `width` times 1, 2, 4 and 8 channels, the
    last three halving the image; mean over the image, linear layer. Maps (N, C, H, W) to (N, num_outputs). Initial
    weights and names of parameters are torchvision's, so its state dict fits but for the stem.

    He et al. 2015, arXiv:1512.03385; the stem is that of its CIFAR networks. Raises ConfigError for a table, and for
    images smaller than 8x8.
    """
    from collections import OrderedDict

    from torch import nn

    from trainkit.models._blocks import BasicBlock, GlobalMean

    check_images("resnet18", in_shape, 8)
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(in_shape[0], width, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "relu": nn.ReLU(inplace=True),
    }
    depth = width
    for number in range(4):
        next_depth = width * 2**number
        first = BasicBlock(depth, next_depth, 1 if number == 0 else 2)
        layers[f"layer{number + 1}"] = nn.Sequential(first, BasicBlock(next_depth, next_depth, 1))
        depth = next_depth
    model = nn.Sequential(OrderedDict(layers, avgpool=GlobalMean(), fc=nn.Linear(depth, num_outputs)))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
