"""What photos need: resized crops, erasing and policies, each operation against torchvision's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from trainkit import registry
from trainkit.data.augment import geometry, mixing, operations, policies
from trainkit.data.augment.base import Augment, Draw
from trainkit.data.batch import Batch

BILINEAR = v2.InterpolationMode.BILINEAR


def draw(n: int, step: int = 0) -> Draw:
    return Draw(0, 0, torch.arange(n), torch.Generator().manual_seed(step))


def photos(n: int, channels: int = 3, height: int = 40, width: int = 48) -> Tensor:
    """Smooth uint8 images that use few of the levels, each its own."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(n, channels, 6, 7, generator=generator)
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    low = torch.arange(n).view(-1, 1, 1, 1) * 9.0
    return (low + smooth * 150).clamp(0, 255).byte()


FACTORS = [0.01, 0.4, 1.0, 1.3, 1.99]
COLORS = {
    "brightness": (operations.brightness, reference.adjust_brightness, FACTORS, 0),
    "saturation": (operations.saturation, reference.adjust_saturation, FACTORS, 1),
    "contrast": (operations.contrast, reference.adjust_contrast, FACTORS, 1),
    "sharpness": (operations.sharpness, reference.adjust_sharpness, FACTORS, 1),
    "posterize": (operations.posterize, reference.posterize, [8, 6, 4, 2, 0], 0),
    "solarize": (operations.solarize, reference.solarize, [255.0, 170.5, 85.0, 0.0, 100.0], 0),
    "autocontrast": (operations.autocontrast, lambda image, _: reference.autocontrast(image), FACTORS, 1),
    "equalize": (operations.equalize, lambda image, _: reference.equalize(image), FACTORS, 0),
}


@pytest.mark.parametrize("name", COLORS)
@pytest.mark.parametrize("channels", [1, 3])
def test_colors_are_those_of_torchvision(name: str, channels: int) -> None:
    ours, theirs, arguments, levels = COLORS[name]
    images = photos(5, channels)
    images[4] = 77  # which has no contrast
    found = ours(images.float(), torch.tensor(arguments, dtype=torch.float32))
    assert found.shape == images.shape and torch.equal(found, found.round())
    for image, result, argument in zip(images, found, arguments, strict=True):
        difference = (result - theirs(image, argument).float()).abs()  # type: ignore[operator]
        assert difference.max() <= levels, argument


def moved(policy: policies.Policy, images: Tensor, operation: int, strength: float) -> Tensor:
    n = len(images)
    drawn = policies.Drawn(torch.full((n,), operation), torch.full((n,), strength))
    return geometry.resample(images, policy.theta(drawn, images.shape[2], images.shape[3]), "zero")


@pytest.mark.parametrize("name", ["trivial", "rand"])
@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.0, 0.5])
def test_moves_are_those_of_torchvision(name: str, strength: float) -> None:
    images = photos(2)
    policy = policies.trivial() if name == "trivial" else policies.rand(2, 9)
    slant, right, down, turn = (
        (0.99, 32.0, 32.0, 135.0) if name == "trivial" else (0.3, 150 / 331 * 48, 150 / 331 * 40, 30)
    )
    degrees = math.degrees(math.atan(strength * slant))
    straight = {"angle": 0.0, "scale": 1.0, "interpolation": BILINEAR}

    def shifted(by: list[float]) -> Tensor:
        # torchvision rounds shifts to whole pixels
        theta = torch.tensor([[1, 0, -2 * by[0] / 48], [0, 1, -2 * by[1] / 40]]).expand(2, 2, 3)
        return geometry.resample(images, theta, "zero")

    corner = {"translate": [0, 0], "center": [0.0, 0.0], **straight}
    expected = [
        reference.affine(images.float(), shear=[degrees, 0.0], **corner),  # type: ignore[arg-type]
        reference.affine(images.float(), shear=[0.0, degrees], **corner),  # type: ignore[arg-type]
        shifted([strength * right, 0]),
        shifted([0, strength * down]),
        reference.rotate(images.float(), strength * turn, interpolation=BILINEAR),
    ]
    for operation, theirs in enumerate(expected):
        assert (moved(policy, images, operation, strength) - theirs).abs().mean() < 0.5, operation


def test_policies_draw_all_operations_equally_often_in_their_ranges() -> None:
    for policy, strengths in ((policies.trivial(), {i / 30 for i in range(31)}), (policies.rand(2, 12), {0.4})):
        drawn = policy.draw(28_000, torch.Generator().manual_seed(0))
        counts = torch.bincount(drawn.operation, minlength=14)
        assert len(counts) == 14 and counts.min() > 1800 and counts.max() < 2200
        assert {round(float(x), 5) for x in drawn.strength.abs().unique()} == {round(x, 5) for x in strengths}
        assert 0.48 < (drawn.strength < 0).float().mean() < 0.52


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_a_policy_changes_each_sample_by_itself(policy: str) -> None:
    change = build(policy=policy, crop_scale=0.5)
    images = photos(1).expand(200, -1, -1, -1)
    found = change(Batch(images, torch.zeros(200), torch.arange(200)), lambda x: x, draw(200)).inputs
    assert isinstance(found, Tensor)
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 255
    assert len({tuple(image.flatten().tolist()) for image in found}) == 200
    again = change(Batch(images, torch.zeros(200), torch.arange(200)), lambda x: x, draw(200)).inputs
    assert isinstance(again, Tensor) and torch.equal(found, again)


def build(in_shape: tuple[int, ...] = (3, 40, 48), **arguments: object) -> Augment:
    augment = registry.get("augment", "image").build(in_shape, 4, **arguments)
    assert isinstance(augment, Augment)
    return augment


def test_a_resized_crop_is_a_part_of_the_image_and_of_the_drawn_size() -> None:
    theta = geometry.resized_crop(0.2, 1.5)(torch.Size((5000, 3, 40, 48)), draw(5000))
    width, height = theta[:, 0, 0], theta[:, 1, 1]
    area, ratio = width * height, width / height
    assert 0.2 <= area.min() < 0.21 and 0.97 < area.max() <= 1 and 0.5 < area.mean() < 0.62
    assert 0.666 <= ratio.min() < 0.7 and 1.45 < ratio.max() <= 1.501
    for side, place in ((width, theta[:, 0, 2]), (height, theta[:, 1, 2])):
        assert (side + place.abs() <= 1 + 1e-6).all()
        assert abs(float((place / (1 - side)).mean())) < 0.05
    images = photos(4)
    theta = torch.tensor([[0.5, 0, 0.25], [0, 0.5, -0.25]]).expand(4, 2, 3)  # 24 x 20 pixels, from (18, 5) on
    expected = v2.Resize((40, 48))(images[:, :, 5:25, 18:42].float())
    inner = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(geometry.resample(images, theta, "zero")[inner], expected[inner], atol=1e-2)


def test_maps_in_turn_are_the_images_changed_in_turn() -> None:
    images = photos(6, height=120, width=96)
    crop = geometry.resized_crop(0.5, 1.333)(images.shape, draw(6))
    turn = geometry.affine(20, 0.2, 5)(images.shape, draw(6, 1))
    once = geometry.resample(images, geometry.after(crop, turn), "reflect")
    twice = geometry.resample(geometry.resample(images, crop, "reflect"), turn, "reflect")
    inner = (slice(None), slice(None), slice(40, 80), slice(30, 66))
    assert (once[inner] - twice[inner]).abs().mean() < 0.3


def test_erasing_puts_one_rectangle_of_the_papers_sizes_to_the_mean() -> None:
    inputs = mixing.erasing(0.5)(torch.ones(4000, 2, 40, 60), draw(4000))
    holes = inputs == 0
    assert torch.equal(holes[:, 0], holes[:, 1])
    rows, columns = holes[:, 0].any(dim=2).sum(dim=1), holes[:, 0].any(dim=1).sum(dim=1)
    erased = rows > 0
    assert 0.47 < erased.float().mean() < 0.53
    assert torch.equal(holes[:, 0].sum(dim=(1, 2)), rows * columns)  # a rectangle
    area = (rows * columns)[erased] / 2400
    ratio = (columns / 60 / (rows / 40))[erased]
    assert 0.015 < area.min() < 0.03 and 0.38 < area.max() < 0.41 and 0.19 < area.mean() < 0.22
    assert 0.25 < ratio.min() < 0.35 and 2.8 < ratio.max() < 4
    assert torch.equal(mixing.erasing(0.0)(torch.ones(9, 1, 8, 8), draw(9)), torch.ones(9, 1, 8, 8))
