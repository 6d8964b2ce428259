"""Changes of normalized batches: cutout, random erasing, and the mixing of samples with their targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainkit.data.augment.geometry import rectangles

if TYPE_CHECKING:
    from trainkit.data.augment.base import Change, Draw, Mix


def cutout(size: int) -> Change:
    """Put a square of `size` pixels to the training mean (DeVries & Taylor 2017, arXiv:1708.04552), in place.

    Its center is uniform over the image, so part of it may lie outside.
    """

    def change(inputs: Tensor, draw: Draw) -> Tensor:
        n, _, height, width = inputs.shape
        center = torch.rand(2, n, 1, generator=draw.generator, device=inputs.device)
        rows = _span(height, (center[0] * height).long() - size // 2, size)
        columns = _span(width, (center[1] * width).long() - size // 2, size)
        hole = rows.unsqueeze(2) & columns.unsqueeze(1)
        return inputs.mul_(~hole.unsqueeze(1))  # a quarter of masked_fill_'s time

    return change


def erasing(probability: float) -> Change:
    """Put a rectangle to the training mean in some of the samples (Zhong et al. 2017, arXiv:1708.04896), in place.

    It lies inside the image; its share of the area is uniform in 0.02 .. 0.4 and its width by its height, compared with
    the image's, log-uniform in 0.3 .. 1 / 0.3, the paper's ranges.
    """

    def change(inputs: Tensor, draw: Draw) -> Tensor:
        n, _, height, width = inputs.shape
        tall, wide, fits = rectangles(n, (0.02, 0.4), 1 / 0.3, draw.generator)
        u = torch.rand(3, n, generator=draw.generator, device=inputs.device)
        erased = fits & (u[2] < probability)
        rows = _span(height, *_inside(height, tall, u[0]))
        columns = _span(width, *_inside(width, wide, u[1]))
        hole = rows.unsqueeze(2) & columns.unsqueeze(1) & erased.view(n, 1, 1)
        return inputs.mul_(~hole.unsqueeze(1))

    return change


def _inside(length: int, part: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Start and size (N, 1) of a span that is such a part of a side, somewhere inside it; place: uniform (N,)."""
    size = (part * length).round().long().clamp_min(1)
    start = (place * (length - size + 1)).long()
    return start.unsqueeze(1), size.unsqueeze(1)


def _span(length: int, start: Tensor, size: int | Tensor) -> Tensor:
    """Which of 0 .. length - 1 lie in the `size` positions from `start` (N, 1) on: bool (N, length)."""
    positions = torch.arange(length, device=start.device)
    return (positions >= start) & (positions < start + size)


def mix(mixup: float, cutmix: float, num_classes: int) -> Mix:
    """Mix every sample with its neighbor in the batch, which is a random one, and the targets in the same shares.

    mixup: the images are blended with a weight drawn from Beta(mixup, mixup) (Zhang et al. 2018, arXiv:1710.09412).
    cutmix: a rectangle comes from the neighbor, whose share of the area is drawn from Beta(cutmix, cutmix) before it
    is cut off at the border (Yun et al. 2019, arXiv:1905.04899). 0 is off; with both, a coin decides per sample.
    Class labels (N,) and class probabilities (N, C) become class probabilities.
    """

    def change(inputs: Tensor, targets: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        n, _, height, width = inputs.shape
        generator, device = draw.generator, inputs.device
        if mixup:
            kept = beta(n, mixup, generator, device).view(n, 1, 1)
        if cutmix:
            outside = _outside_box(n, height, width, beta(n, cutmix, generator, device), generator)
            coin = torch.rand(n, 1, 1, generator=generator, device=device) < 0.5 if mixup else None
            kept = outside if coin is None else torch.where(coin, outside, kept)
        share = kept.mean(dim=(1, 2)).unsqueeze(1)
        soft = _soft(targets, num_classes)
        mixed = torch.lerp(inputs.roll(1, 0), inputs, kept.unsqueeze(1))
        return mixed, torch.lerp(soft.roll(1, 0), soft, share)

    return change


def beta(n: int, alpha: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """n draws from Beta(alpha, alpha), float32."""
    # what torch.distributions.Beta calls, which takes no generator
    return torch._sample_dirichlet(torch.full((n, 2), alpha, dtype=torch.float32, device=device), generator)[:, 0]


def _outside_box(n: int, height: int, width: int, kept: Tensor, generator: torch.Generator) -> Tensor:
    # 1 outside and 0 inside a box per sample of the area 1 - kept, with a uniform center: (N, H, W)
    center = torch.rand(2, n, 1, generator=generator, device=kept.device)
    side = (1 - kept).sqrt().unsqueeze(1)
    tall, wide = (side * height).long(), (side * width).long()
    rows = _span(height, (center[0] * height).long() - tall // 2, tall)
    columns = _span(width, (center[1] * width).long() - wide // 2, wide)
    return 1 - (rows.unsqueeze(2) & columns.unsqueeze(1)).float()


def _soft(targets: Tensor, num_classes: int) -> Tensor:
    if targets.ndim == 2:
        return targets
    return torch.zeros(len(targets), num_classes, device=targets.device).scatter_(1, targets.unsqueeze(1), 1.0)
