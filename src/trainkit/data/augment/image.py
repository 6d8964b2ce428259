"""Augmentation of images as batched tensor code on the device, every sample with its own parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from trainkit.data.augment.base import Augment
from trainkit.errors import ConfigError
from trainkit.registry import register
from trainkit.schema import Count, Fraction, NonNegative, NonNegativeInt, Probability, Range

if TYPE_CHECKING:
    from trainkit.data.augment.base import Change


Flip = Probability | Literal["alternate"]
Angle = Annotated[float, Range(ge=0, le=180)]
Slant = Annotated[float, Range(ge=0, lt=90)]
Turn = Annotated[float, Range(ge=0, le=0.5)]
Share = Annotated[float, Range(gt=0, le=1)]
Ratio = Annotated[float, Range(ge=1)]
Strength = Annotated[int, Range(ge=0, le=30)]


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
    crop_scale: Share = 1.0,
    crop_ratio: Ratio = 1.333,
    rotate: Angle = 0.0,
    scale: Fraction = 0.0,
    shear: Slant = 0.0,
    policy: Literal["none", "trivial", "rand"] = "none",
    policy_ops: Count = 2,
    policy_strength: Strength = 9,
    brightness: NonNegative = 0.0,
    contrast: NonNegative = 0.0,
    saturation: NonNegative = 0.0,
    hue: Turn = 0.0,
    cutout: NonNegativeInt = 0,
    erasing: Probability = 0.0,
    mixup: NonNegative = 0.0,
    cutmix: NonNegative = 0.0,
) -> Augment:
    """Any of: mirror, crop, turn, a policy, colors, cutout, erasing, mixup, cutmix.

    They follow each other in the order of the arguments; what is 0 is absent, and so is a crop of at least 1. Each is
    described where it is made, in `pixels.py`, `geometry.py`, `policies.py` and `mixing.py`. With both mixup and
    cutmix, each sample gets one of them.

    Raises ConfigError when a change does not fit images of `in_shape`.
    """
    from trainkit.data.augment import geometry, mixing, pixels, policies

    _check_shape(in_shape, padding if border == "reflect" else 0, saturation > 0 or hue > 0)
    on_pixels: list[Change] = []
    if flip or padding:
        on_pixels.append(pixels.flip_crop(flip, padding, border))
    maps = [geometry.resized_crop(crop_scale, crop_ratio)] if crop_scale < 1 else []
    if rotate or scale or shear:
        maps.append(geometry.affine(rotate, scale, shear))
    if policy != "none":
        drawn = policies.trivial() if policy == "trivial" else policies.rand(policy_ops, policy_strength)
        on_pixels.append(drawn.after(maps, border))
    elif maps:
        on_pixels.append(geometry.moved(maps, border))
    if brightness or contrast or saturation or hue:
        on_pixels.append(pixels.color(in_shape[0], brightness, contrast, saturation, hue))
    on_normalized = [mixing.cutout(cutout)] if cutout else []
    if erasing:
        on_normalized.append(mixing.erasing(erasing))
    return Augment(
        pixels=tuple(on_pixels),
        normalized=tuple(on_normalized),
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
