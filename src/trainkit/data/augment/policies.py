"""Automatic augmentation: a few operations per sample, drawn from a list with their strengths.

What moves an image becomes part of its one map (`geometry`), and comes first; colors follow, in the order drawn.
The operations and ranges are those of torchvision's `TrivialAugmentWide` and `RandAugment`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from trainkit.data.augment import geometry, operations

if TYPE_CHECKING:
    from trainkit.data.augment.base import Change, Draw
    from trainkit.data.augment.geometry import Border, Map

_BINS = 31  # strengths, from none to the largest


class Moves(NamedTuple):
    """The largest strength of each move: slants along x and y (pixels per pixel), shifts along x and y (pixels), and
    the angle (degrees)."""

    slant: tuple[float, float]
    shift: tuple[float, float]
    angle: float


class Drawn(NamedTuple):
    """What was drawn in one round: the number of each sample's operation, and its strength, 0..1, signed: (N,) each."""

    operation: Tensor
    strength: Tensor


_NUM_MOVES = 5  # slant x, slant y, shift x, shift y, turn; then the colors; the last one is to do nothing
Color = tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]  # and its argument, from the strength


def trivial() -> Policy:
    """One operation per sample at a uniform strength (Müller & Hutter 2021, arXiv:2103.10158), wide ranges."""
    return Policy(1, None, lambda height, width: Moves((0.99, 0.99), (32.0, 32.0), 135.0), _colors(0.99, 6))


def rand(num: int, magnitude: int) -> Policy:
    """`num` operations per sample, all at the strength magnitude / 30 (Cubuk et al. 2019, arXiv:1909.13719).

    The same operation may be drawn twice. Unlike there, moves come before colors.
    """

    def moves(height: int, width: int) -> Moves:
        return Moves((0.3, 0.3), (150 / 331 * width, 150 / 331 * height), 30.0)

    return Policy(num, magnitude / (_BINS - 1), moves, _colors(0.9, 4))


def _colors(largest: float, bits: int) -> list[Color]:
    def factor(strength: Tensor) -> Tensor:
        return 1 + largest * strength

    def kept(strength: Tensor) -> Tensor:
        return 8 - (strength.abs() * bits).round()

    def threshold(strength: Tensor) -> Tensor:
        return 255 * (1 - strength.abs())

    signed = (operations.brightness, operations.saturation, operations.contrast, operations.sharpness)
    return [
        *((operation, factor) for operation in signed),
        (operations.posterize, kept),
        (operations.solarize, threshold),
        (operations.autocontrast, torch.abs),
        (operations.equalize, torch.abs),
    ]


class Policy:
    """A change of images (N, C, H, W) to float32. strength: of every operation, 0..1; None: uniform."""

    def __init__(
        self, rounds: int, strength: float | None, moves: Callable[[int, int], Moves], colors: list[Color]
    ) -> None:
        self.rounds, self.strength, self.moves, self.colors = rounds, strength, moves, colors

    def after(self, maps: list[Map], border: Border) -> Change:
        """The images moved by these maps and by what is drawn, in one resampling, then their colors changed."""

        def change(images: Tensor, draw: Draw) -> Tensor:
            thetas = [one(images.shape, draw) for one in maps]
            drawn = [self.draw(len(images), draw.generator) for _ in range(self.rounds)]
            thetas += [self.theta(one, images.shape[2], images.shape[3]) for one in drawn]
            images = geometry.resample(images, functools.reduce(geometry.after, thetas), border)
            images = images.round_()
            for one in drawn:
                images = self.colored(images, one)
            return images

        return change

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """One operation and its strength for each of n samples."""
        u = torch.rand(3, n, generator=generator, device=generator.device)
        operation = (u[0] * (_NUM_MOVES + len(self.colors) + 1)).long()
        uniform = (u[1] * _BINS).floor() / (_BINS - 1)
        strength = uniform if self.strength is None else torch.full_like(uniform, self.strength)
        return Drawn(operation, torch.where(u[2] < 0.5, -strength, strength))

    def theta(self, drawn: Drawn, height: int, width: int) -> Tensor:
        """The maps (N, 2, 3) of the samples whose operation moves them; of the others, that which moves nothing.

        Slants are about the upper left corner, and the turn about the center, as in torchvision.
        """
        largest = self.moves(height, width)
        each = torch.nn.functional.one_hot(drawn.operation, _NUM_MOVES + len(self.colors) + 1)[:, :_NUM_MOVES]
        slant_x, slant_y, right, down, turn = (each * drawn.strength.unsqueeze(1)).unbind(1)
        aspect = height / width
        along_x, along_y = slant_x * largest.slant[0] * aspect, slant_y * largest.slant[1] / aspect
        angle = torch.deg2rad(turn * largest.angle)
        cos, sin = angle.cos(), angle.sin()
        across = -2 / width * right * largest.shift[0] + along_x
        upward = -2 / height * down * largest.shift[1] + along_y
        return geometry.theta_of([cos, along_x - sin * aspect, across, along_y + sin / aspect, cos, upward])

    def colored(self, images: Tensor, drawn: Drawn) -> Tensor:
        """Images whose operation is one of the colors', changed in groups of the same one, in place."""
        chosen = drawn.operation.cpu()  # the one wait for the device
        for number, (operation, argument) in enumerate(self.colors, start=_NUM_MOVES):
            index = (chosen == number).nonzero().squeeze(1).to(images.device)
            if len(index):
                images[index] = operation(images[index], argument(drawn.strength[index]))
        return images
