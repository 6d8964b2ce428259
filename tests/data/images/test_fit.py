"""Photos of other shapes: squashed, cropped and padded as Pillow and torchvision do it, whichever way they lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from trainkit.data.checks import finish
from trainkit.data.datasets.folder import folder
from trainkit.data.images.decode import decode_rows
from trainkit.data.images.fit import REDUCED, Rule, preparation, reduced
from trainkit.predict import inputs

RULES = [Rule(), Rule(resize="crop"), Rule(resize="crop", crop_share=0.875), Rule(resize="pad")]
BILINEAR = Image.Resampling.BILINEAR


def photo(width: int, height: int) -> Image.Image:
    """Smooth, and nowhere symmetric."""
    noise = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def decoded(path: Path, rule: Rule, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3)."""
    images = np.zeros((1, 3, height, width), np.uint8)
    assert decode_rows([str(path)], images, None, rule) == []
    return images[0].transpose(1, 2, 0)


def far(one: NDArray[np.uint8], other: object) -> int:
    return int(abs(one.astype(int) - np.asarray(other)).max())


def test_each_rule_against_pillow_and_torchvision(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo(800, 400).save(path)
    image = Image.open(path)
    squash, crop, usual, pad = (decoded(path, rule, 224, 224) for rule in RULES)
    assert far(squash, v2.Resize((224, 224))(image)) == 0
    assert far(crop, v2.CenterCrop(224)(v2.Resize(224)(image))) <= 1
    assert far(usual, v2.CenterCrop(224)(v2.Resize(256)(image))) <= 1
    assert far(pad[56:168], v2.Resize((112, 224))(image)) == 0
    assert (pad[:56] == 0).all() and (pad[168:] == 0).all() and pad[56:168].mean() > 60


def test_sizes_per_side_and_photos_smaller_than_wanted(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    photo(30, 20).save(path)
    image = Image.open(path)
    for height, width in ((40, 60), (60, 40), (20, 30), (10, 60), (8, 4)):
        squash, crop, _, pad = (decoded(path, rule, height, width) for rule in RULES)
        assert far(squash, image.resize((width, height), BILINEAR)) == 0
        across = min(30, 20 * width / height) / 2, min(20, 30 * height / width) / 2
        box = (15 - across[0], 10 - across[1], 15 + across[0], 10 + across[1])
        assert far(crop, image.resize((width, height), BILINEAR, box)) == 0
        inner = min(width, height * 3 // 2), min(height, round(width * 2 / 3))
        top, left = round((height - inner[1]) / 2), round((width - inner[0]) / 2)
        assert far(pad[top : top + inner[1], left : left + inner[0]], image.resize(inner, BILINEAR)) == 0
        assert int(pad.sum()) == int(np.asarray(image.resize(inner, BILINEAR)).sum())  # all else is black


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.resize} {rule.crop_share}")
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_photo_that_lies_on_its_side_is_the_upright_one(tmp_path: Path, rule: Rule, kind: str) -> None:
    upright = photo(600, 400)
    upright.save(tmp_path / f"1.{kind}", quality=98)
    expected = decoded(tmp_path / f"1.{kind}", rule, 60, 100)
    for orientation in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how a photo must lie to be shown upright
        path = tmp_path / f"{orientation}.{kind}"
        upright.transpose(Image.Transpose(lying[orientation])).save(path, exif=exif, quality=98)
        assert far(decoded(path, rule, 60, 100), expected) <= 8, orientation


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.resize} {rule.crop_share}")
def test_a_large_jpeg_is_decoded_no_larger_than_needed(tmp_path: Path, rule: Rule) -> None:
    path = tmp_path / "large.jpg"
    photo(1800, 1200).save(path, quality=98)
    with Image.open(path) as image:
        image.save(tmp_path / "whole.png")
    with Image.open(path) as image:
        image.draft("RGB", reduced(image.size, (100, 60), rule))
        sides = (image.width / 100, image.height / 60)
        times = max(sides) if rule.resize == "pad" else min(sides) * rule.crop_share
        assert REDUCED <= times < 2 * REDUCED
    assert far(decoded(path, rule, 60, 100), decoded(tmp_path / "whole.png", rule, 60, 100)) <= 3


@pytest.mark.parametrize("rule", RULES[1:], ids=lambda rule: f"{rule.resize} {rule.crop_share}")
def test_predict_reads_files_as_training_did(tmp_path: Path, rule: Rule) -> None:
    for index in range(4):
        path = tmp_path / ("cat" if index % 2 else "dog") / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        photo(90 + 20 * index, 100).save(path)
    source = folder(
        *(Path("unused"), 0),
        root=tmp_path,
        image_size=[12, 20],
        resize=rule.resize,  # type: ignore[arg-type]
        crop_share=rule.crop_share,
        test_fraction=0.0,
    )
    data = finish(source.decoded(0))
    train = data.splits["train"]
    assert Rule.of(data.spec.input) == rule
    assert train.names is not None
    batches = list(inputs.read(list(train.names), data.spec.input, 8, 0))
    assert np.array_equal(np.concatenate([batch.values for batch in batches]), train.inputs)
    assert json.loads(json.dumps(preparation(data.spec.input)))["resize"]["rule"] == rule.resize
