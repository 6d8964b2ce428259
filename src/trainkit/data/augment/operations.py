"""The operations of automatic augmentation on colors, each of a batch with a strength per sample.

Every one takes images (N, C, H, W), float32 of whole numbers 0..255, and a factor or threshold (N,), and returns such
images. They do what the functions of the same names in `torchvision.transforms.v2.functional` do with uint8 images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trainkit.data.augment.pixels import GRAY


def _blended(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """`other` where factor is 0, the image where it is 1, and beyond."""
    return torch.lerp(other, images, factor.view(-1, 1, 1, 1)).clamp_(0, 255).floor_()


def _gray(images: Tensor) -> Tensor:
    """(N, 1, H, W)"""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    return torch.einsum("nchw,c->nhw", images, images.new_tensor(GRAY)).unsqueeze(1).floor_()


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, torch.zeros_like(images), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, _gray(images).expand_as(images), factor) if images.shape[1] == 3 else images


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blended(images, _gray(images).mean(dim=(1, 2, 3), keepdim=True).expand_as(images), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Against the image smoothed over 3 x 3 pixels; the outermost pixels stay as they are."""
    channels, height, width = images.shape[1:]
    if height <= 2 or width <= 2:
        return images
    kernel = images.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]).div_(13).expand(channels, 1, 3, 3)
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = functional.conv2d(images, kernel, groups=channels).round_()
    return _blended(images, smooth, factor)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep so many of the upper bits."""
    step = torch.exp2(8 - bits).view(-1, 1, 1, 1)
    return (images / step).floor_().mul_(step)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the pixels that are at least as bright."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 255 - images, images)


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Stretch each channel over 0..255."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    scale = 255 / torch.where(flat, 1.0, high - low)
    return torch.where(flat, images, ((images - low) * scale).clamp_(0, 255).floor_())


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Spread the levels of each channel evenly over 0..255."""
    n, channels = images.shape[:2]
    levels = images.long().flatten(2).flatten(0, 1)  # (N * C, pixels)
    counts = levels.new_zeros(n * channels, 256).scatter_add_(1, levels, torch.ones_like(levels))
    brightest = counts.gather(1, levels.amax(dim=1, keepdim=True))
    step = (levels.shape[1] - brightest) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp_max(255)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table)
    return table.gather(1, levels).view(images.shape).to(images.dtype)
