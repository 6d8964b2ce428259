"""Changes of position and shape: one affine map per sample, whatever is done, and one resampling by it.

A map is theta (N, 2, 3), as `torch.nn.functional.affine_grid` takes it: from a pixel of the result to its source, both
in coordinates from -1 to 1 across the image, x to the right and y down. Masks and boxes can go the same way.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainkit.data.augment.base import Change, Draw

    Map = Callable[[torch.Size, Draw], Tensor]

Border = Literal["zero", "reflect"]
_TRIES = 10  # shapes that are drawn for a rectangle until one fits into the image


def moved(maps: list[Map], border: Border) -> Change:
    """One or several maps, as if the images were changed by each in turn, but resampled once; the result is float32."""

    def change(images: Tensor, draw: Draw) -> Tensor:
        return resample(images, functools.reduce(after, [one(images.shape, draw) for one in maps]), border)

    return change


def after(first: Tensor, then: Tensor) -> Tensor:
    """The map of images that are changed by `first`, and the result by `then`."""
    turned = first[:, :, :2] @ then
    return torch.cat([turned[:, :, :2], turned[:, :, 2:] + first[:, :, 2:]], dim=2)


def resample(images: Tensor, theta: Tensor, border: Border) -> Tensor:
    """Images (N, C, H, W) as their maps say, bilinear: float32. border: what lies outside of an image."""
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    padding_mode = "zeros" if border == "zero" else "reflection"
    return functional.grid_sample(images.float(), grid, padding_mode=padding_mode, align_corners=False)


def theta_of(rows: list[Tensor]) -> Tensor:
    """A map (N, 2, 3) from its six numbers, (N,) each, row by row."""
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def affine(rotate: float, scale: float, shear: float) -> Map:
    """Turn, zoom and slant about the center.

    rotate, shear: largest angle in degrees, either way. scale: the zoom lies in 1 - scale .. 1 + scale. All uniform.
    A resampling costs about six times as much as flip_crop on a CPU, which shifts whole pixels.
    """

    def draw_map(shape: torch.Size, draw: Draw) -> Tensor:
        u = torch.rand(3, shape[0], generator=draw.generator, device=draw.generator.device) * 2 - 1
        aspect = shape[2] / shape[3]
        return about_center(u[0] * math.radians(rotate), 1 + u[1] * scale, u[2] * math.radians(shear), aspect)

    return draw_map


def about_center(angle: Tensor, zoom: Tensor, slant: Tensor, aspect: float) -> Tensor:
    """The map that slants images along their rows, zooms, and turns them counter-clockwise, all about the center.

    angle, slant: radians (N,). zoom: factor (N,); 2 shows the middle half twice as large. aspect: height / width.
    """
    cos, sin, slope = angle.cos() / zoom, angle.sin() / zoom, slant.tan()
    # The source position of each pixel; coordinates run from -1 to 1 along both sides, hence the aspect ratio.
    zero = torch.zeros_like(cos)
    return theta_of([cos - slope * sin, (-sin - slope * cos) * aspect, zero, sin / aspect, cos, zero])


def resized_crop(least: float, ratio: float) -> Map:
    """A rectangle from anywhere in the image, shown in the image's size (Szegedy et al. 2015, arXiv:1409.4842).

    Its share of the area is uniform in least .. 1, its width by its height, compared with the image's, log-uniform in
    1 / ratio .. ratio. Of ten draws the first that fits into the image is taken, else the whole image.
    """

    def draw_map(shape: torch.Size, draw: Draw) -> Tensor:
        height, width, fits = rectangles(shape[0], (least, 1.0), ratio, draw.generator)
        height, width = (torch.where(fits, side, 1.0) for side in (height, width))
        place = torch.rand(2, shape[0], generator=draw.generator, device=height.device) * 2 - 1
        zero = torch.zeros_like(width)
        return theta_of([width, zero, place[0] * (1 - width), zero, height, place[1] * (1 - height)])

    return draw_map


def rectangles(
    n: int, areas: tuple[float, float], ratio: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Height and width of a random rectangle per sample, as parts of the image's sides, and whether it fits: (N,) each.

    areas: its share of the area, uniform between these. ratio: width / height is log-uniform in 1 / ratio .. ratio.
    """
    u = torch.rand(2, n, _TRIES, generator=generator, device=generator.device)
    area = areas[0] + u[0] * (areas[1] - areas[0])
    stretch = ((u[1] - 0.5) * math.log(ratio)).exp()  # the root of width / height
    height, width = area.sqrt() / stretch, area.sqrt() * stretch
    fit = (height <= 1) & (width <= 1)
    first = fit.float().argmax(dim=1, keepdim=True)
    return height.gather(1, first).squeeze(1), width.gather(1, first).squeeze(1), fit.gather(1, first).squeeze(1)
