"""Augmentation: each change against the same thing done to one image at a time, and what the loader makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional
from torchvision.transforms.v2 import functional as reference

from trainkit import registry
from trainkit.data.augment import geometry, mixing, pixels
from trainkit.data.augment.base import Augment, Draw
from trainkit.data.batch import Batch
from trainkit.data.spec import TargetSpec
from trainkit.errors import ConfigError
from trainkit.schema import check_node, plain
from trainkit.tasks.base import task_of
from trainkit.tasks.meter import Meter

CONF = Path(__file__).parents[3] / "conf" / "augment"
CPU = torch.device("cpu")


def draw(n: int, *, step: int = 0, epoch: int = 0, seed: int = 0) -> Draw:
    return Draw(seed, epoch, torch.arange(n), torch.Generator().manual_seed(step))


def photos(n: int = 64, channels: int = 3, height: int = 10, width: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, height, width), generator=torch.Generator().manual_seed(5)).byte()


def build(in_shape: tuple[int, ...] = (3, 10, 12), **arguments: object) -> Augment:
    augment = registry.get("augment", "image").build(in_shape, 4, **arguments)
    assert isinstance(augment, Augment)
    return augment


def applied(
    augment: Augment, images: torch.Tensor, labels: torch.Tensor, normalize: Callable[[Any], Any], drawn: Draw
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and the targets that become of a batch."""
    batch = augment(Batch(images, labels, drawn.index), normalize, drawn)
    assert batch.rows is drawn.index
    assert isinstance(batch.inputs, torch.Tensor) and isinstance(batch.targets, torch.Tensor)
    return batch.inputs, batch.targets


@pytest.mark.parametrize("border", ["zero", "reflect"])
def test_flip_crop_against_one_image_at_a_time(border: str) -> None:
    images = photos()
    changed = pixels.flip_crop(0.5, 2, border)(images, draw(64))
    assert changed.dtype == torch.uint8
    seen = set()
    for image, result in zip(images, changed, strict=True):
        both = [functional.pad(x, (2,) * 4, mode="constant" if border == "zero" else "reflect") for x in mirrors(image)]
        places = [(m, y, x) for m in (0, 1) for y in range(5) for x in range(5)]
        found = [(m, y, x) for m, y, x in places if torch.equal(both[m][0, :, y : y + 10, x : x + 12], result.float())]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 25  # of 50 possible ones, in 64 draws


def mirrors(image: torch.Tensor) -> list[torch.Tensor]:
    return [image.float().unsqueeze(0), image.float().unsqueeze(0).flip(3)]


def test_alternate_mirrors_each_sample_every_other_epoch() -> None:
    images = photos(500)
    change = pixels.flip_crop("alternate", 0, "zero")
    masks = []
    for epoch in range(4):
        results = change(images, draw(500, step=epoch, epoch=epoch))
        mirrored = (results == images.flip(3)).flatten(1).all(dim=1)
        assert torch.equal(mirrored, ~(results == images).flatten(1).all(dim=1))
        masks.append(mirrored)
    assert 200 < masks[0].sum() < 300
    assert torch.equal(masks[0], ~masks[1])
    assert torch.equal(masks[0], masks[2])
    assert torch.equal(masks[1], masks[3])
    other = pixels.alternating(draw(500, seed=1))
    assert 200 < (other ^ masks[0]).sum() < 300
    part = Draw(0, 0, torch.tensor([7, 300]), torch.Generator())  # whoever else is in the batch
    assert pixels.alternating(part).tolist() == [bool(masks[0][7]), bool(masks[0][300])]


def test_alternate_coins_of_neighbors_are_unrelated() -> None:
    coins = pixels.alternating(draw(50_000)).float() * 2 - 1
    for lag in (1, 2, 3, 8, 256):
        assert abs(float((coins[lag:] * coins[:-lag]).mean())) < 4 / math.sqrt(50_000)


def warped(images: torch.Tensor, angle: torch.Tensor, zoom: torch.Tensor, slant: torch.Tensor) -> torch.Tensor:
    theta = geometry.about_center(angle, zoom, slant, images.shape[2] / images.shape[3])
    return geometry.resample(images, theta, "zero")


@pytest.mark.parametrize(("height", "width"), [(9, 9), (10, 14)])
def test_warp_turns_like_torchvision(height: int, width: int) -> None:
    images = photos(5, 2, height, width).float()
    degrees = torch.tensor([0.0, 90.0, -30.0, 12.5, 170.0])
    zoom, slant = torch.ones(5), torch.zeros(5)
    turned = warped(images, degrees.deg2rad(), zoom, slant)
    for image, angle, result in zip(images, degrees.tolist(), turned, strict=True):
        expected = reference.rotate(image, angle, interpolation=reference.InterpolationMode.BILINEAR)
        assert torch.allclose(result, expected, atol=0.1)  # torchvision rounds its grid


def test_warp_zooms_and_slants_like_torchvision() -> None:
    images = photos(3).float()
    zoom, slant = torch.tensor([1.5, 0.7, 1.0]), torch.tensor([0.0, 0.0, 0.3])
    changed = warped(images, torch.zeros(3), zoom, slant)
    for i in range(3):
        expected = reference.affine(
            images[i],
            angle=0.0,
            translate=[0, 0],
            scale=float(zoom[i]),
            shear=[-math.degrees(slant[i]), 0.0],
            interpolation=reference.InterpolationMode.BILINEAR,
        )
        assert torch.allclose(changed[i], expected, atol=0.1)


def test_affine_stays_within_its_ranges_and_differs_between_samples() -> None:
    images = photos(1).expand(50, -1, -1, -1)
    assert torch.allclose(
        geometry.moved([geometry.affine(0, 0, 0)], "zero")(images, draw(50)), images.float(), atol=1e-2
    )
    changed = geometry.moved([geometry.affine(20, 0.2, 5)], "reflect")(images, draw(50))
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 50
    assert changed.min() >= 0 and changed.max() <= 255


def test_color_matrix_against_torchvision_one_image_at_a_time() -> None:
    images = photos(3).double() / 255
    factors = torch.tensor([[1.3, 1, 1], [1, 0.6, 1], [1, 1, 1.4]], dtype=torch.double)
    matrix, offset = pixels.color_matrix(images.mean(dim=(2, 3)), factors, torch.zeros(3).double())
    changed = (torch.einsum("nij,njhw->nihw", matrix, images) + offset[:, :, None, None]).clamp(0, 1)
    expected = [
        reference.adjust_brightness(images[0], 1.3),
        reference.adjust_contrast(images[1], 0.6),
        reference.adjust_saturation(images[2], 1.4),
    ]
    assert torch.allclose(changed, torch.stack(expected), atol=2e-3)  # torchvision's gray has four digits


def test_hue_turns_colors_about_gray_at_constant_brightness() -> None:
    mean, ones = torch.zeros(2, 3), torch.ones(2, 3)
    third = 2 * math.pi / 3
    matrix, offset = pixels.color_matrix(mean, ones, torch.tensor([third, 1.1]))
    assert torch.equal(offset, torch.zeros(2, 3))
    assert torch.allclose(matrix @ torch.ones(3), torch.ones(2, 3), atol=1e-6)
    gray = torch.tensor(pixels.GRAY)
    assert torch.allclose(gray @ matrix, gray.expand(2, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.matrix_power(matrix[0], 3), torch.eye(3), atol=1e-5)  # a whole turn
    red = torch.tensor([1.0, 0.0, 0.0])
    assert int((matrix[0] @ red).argmax()) != 0


def test_color_of_gray_images_and_within_range() -> None:
    images = photos(40, channels=1)
    changed = pixels.color(1, 0.9, 0.5, 0, 0)(images, draw(40))
    assert changed.min() >= 0 and changed.max() <= 255
    means = changed.mean(dim=(1, 2, 3)) / images.float().mean(dim=(1, 2, 3))
    assert means.std() > 0.2  # every sample has a factor of its own


def test_cutout_blanks_one_square_of_each_sample() -> None:
    inputs = torch.ones(200, 2, 9, 9)
    changed = mixing.cutout(4)(inputs, draw(200))
    holes = 1 - changed
    assert torch.equal(holes[:, 0], holes[:, 1])
    rows, columns = holes[:, 0].amax(dim=2), holes[:, 0].amax(dim=1)
    assert torch.equal(holes[:, 0], rows.unsqueeze(2) * columns.unsqueeze(1))  # each hole is a rectangle
    assert set(rows.sum(dim=1).tolist()) == {2.0, 3.0, 4.0}  # cut off at the border, by half at most
    assert (holes[:, 0].mean(dim=0) > 0).all()  # every pixel is hit


def mixed(**alphas: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    inputs, labels = torch.randn(300, 3, 8, 8), torch.arange(300) % 4
    results, soft = mixing.mix(alphas.get("mixup", 0), alphas.get("cutmix", 0), 4)(inputs, labels, draw(300))
    return inputs, labels, results, soft


def test_mixup_blends_images_and_targets_in_the_same_shares() -> None:
    inputs, labels, results, soft = mixed(mixup=0.4)
    share = soft[torch.arange(300), labels]  # neighbors are of different classes
    assert torch.allclose(soft.sum(dim=1), torch.ones(300))
    assert torch.allclose(soft[torch.arange(300), labels.roll(1)], 1 - share, atol=1e-6)
    kept = share.view(-1, 1, 1, 1)
    assert torch.allclose(results, kept * inputs + (1 - kept) * inputs.roll(1, 0), atol=1e-5)
    assert share.unique().numel() > 250


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    shares = mixing.beta(20_000, alpha, torch.Generator().manual_seed(1), CPU).double()
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_cutmix_pastes_a_rectangle_and_counts_its_area() -> None:
    inputs, labels, results, soft = mixed(cutmix=1.0)
    own, other = (results == inputs).all(dim=1), (results == inputs.roll(1, 0)).all(dim=1)
    assert torch.equal(own, ~other)
    rows, columns = other.any(dim=2), other.any(dim=1)
    assert torch.equal(other, rows.unsqueeze(2) & columns.unsqueeze(1))
    assert torch.allclose(soft[torch.arange(300), labels], own.float().mean(dim=(1, 2)), atol=1e-6)
    assert other.flatten(1).sum(dim=1).unique().numel() > 15


def test_mixup_and_cutmix_together_give_each_sample_one_of_them() -> None:
    inputs, _, results, soft = mixed(mixup=1.0, cutmix=1.0)
    pasted = ((results == inputs) | (results == inputs.roll(1, 0))).flatten(1).all(dim=1)
    assert 100 < pasted.sum() < 200
    assert torch.allclose(soft.sum(dim=1), torch.ones(300))


def test_mixed_targets_count_in_training_accuracy_and_loss() -> None:
    _, labels, _, soft = mixed(mixup=0.2)
    logits = torch.randn(300, 4)
    target = TargetSpec("classification", list("abcd"))
    meter = Meter(task_of(target).sums(target, full=False, topk=5), CPU)
    loss = functional.cross_entropy(logits, soft)
    meter.add(loss, logits, soft, weight=300, count=300)
    correct = sum(int(row.argmax()) == int(target.argmax()) for row, target in zip(logits, soft, strict=True))
    assert meter.read() == {"loss": pytest.approx(float(loss)), "accuracy": correct / 300}
    assert not torch.equal(soft.argmax(dim=1), labels)


def test_of_several_inputs_the_first_is_changed() -> None:
    """As `in_shape` is the shape of the first."""
    images, other = photos(6), torch.arange(6)
    batch = build(flip=0.5)(Batch({"photo": images, "age": other}, other % 4, other), lambda x: x, draw(6))
    alone, _ = applied(build(flip=0.5), images, other % 4, lambda x: x, draw(6))
    assert isinstance(batch.inputs, dict)
    assert torch.equal(batch.inputs["photo"], alone) and batch.inputs["age"] is other


def test_class_probabilities_are_mixed_as_they_are() -> None:
    soft = torch.rand(6, 4).softmax(dim=1)
    _, result = mixing.mix(1.0, 0, 4)(torch.randn(6, 1, 4, 4), soft, draw(6))
    assert torch.allclose(result.sum(dim=1), torch.ones(6))
    assert not torch.equal(result, soft)


ALL_ON = {
    "flip": "alternate",
    "padding": 2,
    "rotate": 10.0,
    "scale": 0.1,
    "shear": 5.0,
    "brightness": 0.2,
    "contrast": 0.2,
    "saturation": 0.2,
    "hue": 0.1,
    "cutout": 3,
    "mixup": 1.0,
    "cutmix": 1.0,
}


def test_all_together_are_a_function_of_the_draw() -> None:
    augment, images, labels = build(**ALL_ON), photos(), torch.arange(64) % 4

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return applied(augment, images.clone(), labels, lambda x: x / 255, draw(64, step=step))

    (first, targets), (again, same), (later, _) = batch(1), batch(1), batch(2)
    assert torch.equal(first, again) and torch.equal(targets, same)
    assert not torch.equal(first, later)
    assert first.shape == images.shape and first.dtype == torch.float32 and targets.shape == (64, 4)


def test_every_knob_changes_something_and_none_at_all_changes_nothing() -> None:
    images, labels = photos(), torch.arange(64) % 4
    plain_inputs, plain_targets = applied(build(), images, labels, torch.Tensor.float, draw(64))
    assert torch.equal(plain_inputs, images.float()) and plain_targets is labels
    for name, value in ALL_ON.items():
        inputs, _ = applied(build(**{name: value}), images, labels, torch.Tensor.float, draw(64))
        assert not torch.equal(inputs, plain_inputs), name


@pytest.mark.parametrize(
    ("in_shape", "arguments", "text"),
    [
        ((13,), {}, "the data set is a table of 13 features"),
        ((1, 8, 4), {"padding": 4, "border": "reflect"}, "augment.padding=4: border=reflect needs less"),
        ((1, 8, 8), {"hue": 0.1}, "augment.saturation and augment.hue are for color images; these have 1 channels"),
    ],
)
def test_refuses_what_does_not_fit(in_shape: tuple[int, ...], arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(in_shape, **arguments)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_presets_are_valid(file: Path) -> None:
    head, *_ = text = file.read_text().splitlines()
    assert head.startswith("# ") and len(head) <= 72
    assert all("  # " in line for line in text[2:])
    node = yaml.safe_load(file.read_text())
    component = registry.get("augment", node.pop("name"))
    problems: list[str] = []
    assert check_node(node, component.schema, "augment", problems).items() >= node.items()
    assert problems == []
    if file.stem == "image":
        assert node == {key: plain(field.default) for key, field in component.schema.items()}
    elif file.stem != "none":
        images = np.zeros((2, 3, 32, 32), dtype=np.uint8)
        augment = component.build((3, 32, 32), 4, **node)
        inputs, _ = applied(augment, torch.from_numpy(images), torch.tensor([0, 1]), torch.Tensor.float, draw(2))
        assert inputs.shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_preset_of_mixing_does_nothing_else(name: str) -> None:
    option = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert option == {"name": "image", name: 1.0}
