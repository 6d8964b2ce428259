"""Augmentation of images as batched tensor code on the device, every sample with its own parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from trainkit.data.augment.base import Augment
from trainkit.errors import ConfigError
from trainkit.registry import register
from trainkit.schema import Fraction, NonNegative, NonNegativeInt, Probability, Range

if TYPE_CHECKING:
    from trainkit.data.augment.base import Change


Flip = Probability | Literal["alternate"]
Angle = Annotated[float, Range(ge=0, le=180)]
Slant = Annotated[float, Range(ge=0, lt=90)]
Turn = Annotated[float, Range(ge=0, le=0.5)]


@register("augment")
def none() -> None:
    """Samples as they are."""


@register("augment")
def image(
    in_shape: tuple[int, ...],
    num_outputs: int,
    *,
    flip: Flip = 0.0,
    padding: NonNegativeInt = 0,
    border: Literal["zero", "reflect"] = "zero",
    rotate: Angle = 0.0,
    scale: Fraction = 0.0,
    shear: Slant = 0.0,
    brightness: NonNegative = 0.0,
    contrast: NonNegative = 0.0,
    saturation: NonNegative = 0.0,
    hue: Turn = 0.0,
    cutout: NonNegativeInt = 0,
    mixup: NonNegative = 0.0,
    cutmix: NonNegative = 0.0,
) -> Augment:
    """Any of: mirror, crop, turn, colors, cutout, mixup, cutmix.

    They follow each other in the order of the arguments; what is 0 is absent. Each is described where it is made, in
    `pixels.py` and `mixing.py`. With both mixup and cutmix, each sample gets one of them.

    Raises ConfigError when a change does not fit images of `in_shape`.
    """
    from trainkit.data.augment import mixing, pixels

    _check_shape(in_shape, padding if border == "reflect" else 0, saturation > 0 or hue > 0)
    on_pixels: list[Change] = []
    if flip or padding:
        on_pixels.append(pixels.flip_crop(flip, padding, border))
    if rotate or scale or shear:
        on_pixels.append(pixels.affine(rotate, scale, shear, border))
    if brightness or contrast or saturation or hue:
        on_pixels.append(pixels.color(in_shape[0], brightness, contrast, saturation, hue))
    return Augment(
        pixels=tuple(on_pixels),
        normalized=(mixing.cutout(cutout),) if cutout else (),
        mix=mixing.mix(mixup, cutmix, num_outputs) if mixup or cutmix else None,
    )


def _check_shape(in_shape: tuple[int, ...], reflected: int, colored: bool) -> None:
    if len(in_shape) != 3:
        raise ConfigError(f"augment: the data set is a table of {in_shape[0]} features, not images: use augment=none")
    channels, height, width = in_shape
    if reflected >= min(height, width):
        raise ConfigError(
            f"augment.padding={reflected}: border=reflect needs less than the image's side, {height}x{width} here"
        )
    if colored and channels != 3:
        raise ConfigError(f"augment.saturation and augment.hue are for color images; these have {channels} channels")
