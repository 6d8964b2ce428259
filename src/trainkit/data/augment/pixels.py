"""Changes of images before they are normalized: whole pixels shifted, and colors. `image.py` has them as config.

Each function returns a change (images, draw) -> images of shape (N, C, H, W): uint8, or float32 in 0..255.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from trainkit.randomness import key

if TYPE_CHECKING:
    from trainkit.data.augment.base import Change, Draw
    from trainkit.data.augment.geometry import Border

GRAY = [0.299, 0.587, 0.114]  # ITU-R BT.601: the share of red, green and blue in brightness


def flip_crop(flip: float | Literal["alternate"], padding: int, border: Border) -> Change:
    """Mirror left-right, then a random crop after padding each side, of uint8 images.

    flip: a probability, or `alternate`, see `alternating`. border: what the padding holds, black or the mirror image.
    The classic CIFAR augmentation (He et al. 2015, arXiv:1512.03385, section 4.2). One gather does mirror and crop.
    """

    def change(images: Tensor, draw: Draw) -> Tensor:
        n, channels, height, width = images.shape
        device, generator = images.device, draw.generator
        rows = torch.arange(height, device=device).expand(n, height)
        columns = torch.arange(width, device=device).expand(n, width)
        if flip == "alternate":
            columns = torch.where(alternating(draw).unsqueeze(1), width - 1 - columns, columns)
        elif flip:
            mirrored = torch.rand(n, 1, generator=generator, device=device) < flip
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if padding:
            offsets = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator, device=device)
            rows, columns = rows + offsets[0], columns + offsets[1]
            if border == "reflect":
                rows, columns = _reflected(rows - padding, height), _reflected(columns - padding, width)
            else:
                images = functional.pad(images, (padding,) * 4)
        # A flat index into each (padded) image, the same for its channels.
        index = (rows.unsqueeze(2) * images.shape[3] + columns.unsqueeze(1)).view(n, 1, -1)
        flat = images.flatten(2).gather(2, index.expand(n, channels, -1))
        return flat.view(n, channels, height, width)

    return change


def alternating(draw: Draw) -> Tensor:
    """Which samples of a batch are mirrored in this epoch: bool (N,), a function of (seed, sample, epoch) alone.

    A fair coin per sample decides about its first epoch; then every other epoch is mirrored, so that any two epochs
    in a row show all images both ways (Jordan 2024, arXiv:2404.00498, section 3.6).
    """
    # The coin is a bit of an integer hash, which needs neither the number of samples nor a table on the device. Its
    # multipliers are below 2^31 (github.com/skeeto/hash-prospector), so nothing overflows an int64.
    bits = (draw.index ^ key(draw.seed, "flip")) & 0xFFFFFFFF
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    return ((bits >> 15) + draw.epoch) % 2 == 0


def _reflected(positions: Tensor, size: int) -> Tensor:
    # -1 is 1 and `size` is size - 2: the edge itself is not repeated
    return size - 1 - (size - 1 - positions.abs()).abs()


def color(channels: int, brightness: float, contrast: float, saturation: float, hue: float) -> Change:
    """Change brightness, contrast, saturation and hue, each uniformly about "as it is"; the result is float32.

    brightness, contrast, saturation: the factor lies in 1 - value .. 1 + value, and is at least 0. hue: largest part
    of a full turn about the gray axis, either way, at constant brightness. The four follow each other in this order.

    All four are linear in a pixel's channels, so one small matrix per image does them in one product. Values are
    clipped to 0..255 once, at the end.
    """
    ranges = torch.tensor([brightness, contrast, saturation, hue])

    def change(images: Tensor, draw: Draw) -> Tensor:
        n, device = len(images), images.device
        u = (torch.rand(n, 4, generator=draw.generator, device=device) * 2 - 1) * ranges.to(device)
        factors = (1 + u[:, :3]).clamp_min(0)
        pixels = images.flatten(2).float()
        matrix, offset = color_matrix(pixels.mean(dim=2), factors, u[:, 3] * (2 * math.pi))
        return torch.baddbmm(offset.unsqueeze(2), matrix, pixels).clamp_(0, 255).view(images.shape)

    return change


def color_matrix(mean: Tensor, factors: Tensor, hue: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix (N, C, C) and the offset (N, C) that change pixels (C,) in brightness, contrast, saturation and hue.

    mean: of each image's channels (N, C). factors: on brightness, contrast and saturation (N, 3). hue: radians (N,).
    """
    brightness, contrast, saturation = factors.unbind(1)
    channels = mean.shape[1]
    gray = mean.new_tensor(GRAY) if channels == 3 else mean.new_full((channels,), 1 / channels)
    eye = torch.eye(channels, device=mean.device)
    matrix = (brightness * contrast).view(-1, 1, 1) * eye
    # contrast is about the image's mean brightness, which saturation and hue leave as it is
    offset = (mean @ gray * brightness * (1 - contrast)).unsqueeze(1).expand_as(mean)
    if channels == 3:
        to_gray = gray.expand(3, 3)
        kept, turn = saturation.view(-1, 1, 1), hue.view(-1, 1, 1)
        # a turn in the plane of equal brightness: the cross product with the gray axis, less what would change it
        across = mean.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
        off_gray = eye - to_gray
        turned = turn.cos() * off_gray + turn.sin() * (off_gray @ across)
        matrix = (to_gray + kept * turned) @ matrix
    return matrix, offset
