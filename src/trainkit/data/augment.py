"""Augmentation as batched tensor code on the device, every sample with its own parameters.

A builder returns a function (images, generator) -> images on uint8 batches of shape (N, C, H, W). The generator is
keyed by (seed, step), so a batch is changed the same way whatever came before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trainkit.registry import register
from trainkit.schema import NonNegativeInt, Probability

if TYPE_CHECKING:
    import torch

    Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@register("augment")
def none() -> None:
    """Samples as they are."""


@register("augment")
def flip_crop(*, flip: Probability = 0.5, padding: NonNegativeInt = 4) -> Augment:
    """Mirror left-right with probability `flip`, then a random crop after padding each side with black pixels.

    The classic CIFAR augmentation (He et al. 2015, arXiv 1512.03385, section 4.2).
    """
    import torch
    from torch.nn import functional

    def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        n, channels, height, width = images.shape
        device = images.device
        mirrored = torch.rand(n, 1, generator=generator, device=device) < flip
        offsets = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator, device=device)
        rows = torch.arange(height, device=device) + offsets[0]
        columns = torch.arange(width, device=device).expand(n, width)
        columns = torch.where(mirrored, width - 1 - columns, columns) + offsets[1]
        padded = functional.pad(images, (padding,) * 4)
        # One gather does the mirror and the crop: a flat index into each padded image, the same for its channels.
        index = (rows.unsqueeze(2) * (width + 2 * padding) + columns.unsqueeze(1)).view(n, 1, -1)
        flat = padded.view(n, channels, -1).gather(2, index.expand(n, channels, -1))
        return flat.view(n, channels, height, width)

    return augment
