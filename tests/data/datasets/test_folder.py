"""Class folders of real image files: layouts, color modes, and everything that can be wrong with a file or folder."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.datasets.folder import folder
from trainkit.errors import ConfigError, DataError


def write(path: Path, color: Any = (200, 100, 50), mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of ten images: cats are dark, dogs are bright."""
    for index in range(10):
        write(tmp_path / "cat" / f"{index}.png", (index, index, index))
        write(tmp_path / "dog" / f"{index}.jpg", (250, 250, 250))
    return tmp_path


def load(root: Path, **config: Any) -> Data:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return finish(folder(Path("unused"), 0, root=root, **{"image_size": 8, **config}).decoded())


def fails(root: Path, message: str, path: Path | None = None, **config: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(root, **config)
    assert str(path or root) in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.exit_code == 3


def test_class_folders_are_split(root: Path) -> None:
    data = load(root)
    train, test = data.splits["train"], data.splits["test"]
    assert (train.inputs.shape, test.inputs.shape) == ((16, 3, 8, 8), (4, 3, 8, 8))
    assert train.inputs.dtype == np.uint8 and data.spec.target.classes == ["cat", "dog"] and data.notes == []
    for split in (train, test):
        assert ((split.inputs[:, 0, 0, 0] > 100) == split.targets).all()
    assert (load(root).splits["test"].inputs == test.inputs).all()
    assert set(load(root, test_fraction=0.0).splits) == {"train"}


def test_train_val_test_folders(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outer = tmp_path_factory.mktemp("outer")
    shutil.copytree(root, outer / "train")
    write(outer / "val" / "dog" / "x.png")
    data = load(outer)
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 16, "val": 1, "test": 4}
    assert data.splits["val"].targets.tolist() == [1]  # the index of dog in train, not in val
    assert "val has no sample of 1 of 2 classes: cat" in data.notes
    write(outer / "test" / "cat" / "x.png")
    (outer / "more").mkdir()
    data = load(outer)
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 20, "val": 1, "test": 1}
    assert any(note.endswith("left out: more") for note in data.notes)
    write(outer / "val" / "wolf" / "x.png")
    fails(outer, "class 'wolf' is not known", outer / "val" / "wolf")


def test_a_class_may_be_called_train(root: Path) -> None:
    write(root / "train" / "0.png")
    assert load(root).spec.target.classes == ["cat", "dog", "train"]


def test_what_is_no_image_is_left_out(root: Path) -> None:
    write(root / ".ipynb_checkpoints" / "x.png")
    write(root / "cat" / ".hidden.png")
    (root / ".DS_Store").touch()
    (root / "cat" / "Thumbs.db").touch()
    (root / "cat" / "notes.txt").touch()
    (root / "cat" / "x.png").mkdir()
    os.mkfifo(root / "cat" / "pipe.jpg")
    data = load(root)
    assert sum(map(len, data.splits.values())) == 20 and data.spec.target.classes == ["cat", "dog"]
    assert data.notes == [f"{root}: what is no image was left out: 1 .jpg, 1 .txt, 1 folders"]


def test_missing_and_empty_folders(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    fails(root / "nowhere", "no such folder")
    fails(root / "cat" / "0.png", "not a folder")
    fails(root / "cat", "no folders in it")
    (root / "empty").mkdir()
    fails(root, "no image in this class folder", root / "empty")
    single = tmp_path_factory.mktemp("single")
    shutil.copytree(root / "cat", single / "cat")
    with pytest.raises(DataError, match="needs at least two classes, found only 'cat'"):
        load(single)
    bare = tmp_path_factory.mktemp("bare")
    write(bare / "train" / "0.png")
    fails(bare, "no class folders in it", bare / "train")
    write(bare / "train" / "cat" / "0.png")
    (bare / "val").mkdir()
    fails(bare, "no class folders in it", bare / "val")


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("bad.jpg", "half", "truncated"),
        ("bad.png", "half", "truncated|broken"),
        ("bad.jpg", b"some text", "cannot identify image file it"),
        ("bad.jpg", b"", "cannot identify image file it"),
        ("bad.png", png_header(10000, 10000), "decompression bomb"),
        ("bad.png", png_header(20000, 20000), "decompression bomb"),
        ("bad.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
    ],
)
def test_bad_image_fails_or_is_skipped(root: Path, file: str, content: bytes | str, reason: str) -> None:
    path = root / "cat" / file
    if isinstance(content, str):
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    fails(root, f"not a readable image .*({reason}).*on_bad=skip", path)
    data = load(root, on_bad="skip")
    assert sum(map(len, data.splits.values())) == 20
    assert data.notes[0].startswith(
        "train: 1 of 21 images could not be read and were left out; the first is " + str(path)
    )


def test_every_truncation_of_a_jpeg_is_seen(root: Path) -> None:
    path = root / "cat" / "bad.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole) - 8, 50):
        path.write_bytes(whole[:length])
        fails(root, "not a readable image", path)


def test_the_first_bad_image_in_order_is_named(root: Path) -> None:
    for name in ("9z.png", "0z.png", "5z.png"):
        (root / "cat" / name).touch()
    fails(root, "not a readable image", root / "cat" / "0z.png")


def test_links(root: Path) -> None:
    (root / "cat" / "linked.png").symlink_to(root / "dog" / "0.jpg")
    assert sum(map(len, load(root).splits.values())) == 21
    (root / "cat" / "dangling.png").symlink_to(root / "gone.png")
    fails(root, "No such file", root / "cat" / "dangling.png")
    (root / "cat" / "dangling.png").unlink()
    (root / "cat" / "loop.png").symlink_to(root / "cat" / "loop.png")
    fails(root, "symbolic links", root / "cat" / "loop.png")
    (root / "cat" / "loop.png").unlink()
    (root / "cat" / "up").symlink_to(root)  # a folder that contains itself is not walked
    assert sum(map(len, load(root).splits.values())) == 21
    (root / "wolf").symlink_to(root / "wolf")
    fails(root, "leads nowhere", root / "wolf")


def test_forbidden_folder_and_file() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parents only its owner may enter
        root = Path(name)
        root.chmod(0o755)
        for animal in ("cat", "dog", "wolf"):
            write(root / animal / "0.png")
        (root / "wolf").chmod(0)
        uid = os.geteuid()
        try:
            if uid == 0:  # nothing is forbidden to root
                os.seteuid(65534)
            fails(root, "cannot be read .Permission denied", root / "wolf")
        finally:
            os.seteuid(uid)
            (root / "wolf").chmod(0o755)


def test_color_modes(root: Path) -> None:
    for animal in ("cat", "dog"):
        shutil.rmtree(root / animal)
    gray16 = (np.full((8, 8), 0x8040)).astype(np.uint16)
    Image.fromarray(gray16).save(write(root / "a" / "0-gray16.png"))
    write(root / "a" / "1-gray.png", 128, "L")
    write(root / "a" / "2-rgba.png", (10, 20, 30, 0), "RGBA")
    write(root / "a" / "3-cmyk.jpg", (0, 0, 0, 255), "CMYK")
    write(root / "a" / "4-bits.png", 1, "1")
    Image.new("P", (8, 8), 0).save(write(root / "a" / "5-palette.png"), transparency=b"\x00\xff")
    write(root / "a" / "6-half.png", (200, 100, 0, 128), "RGBA")
    write(root / "a" / "7-gray-alpha.png", (50, 0), "LA")
    write(root / "a" / "8-clear.webp", (50, 90, 20, 0), "RGBA")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(write(root / "a" / "9-key.png"), transparency=(9, 9, 9))
    Image.fromarray(gray16).save(write(root / "a" / "9-key16.png"), transparency=0x8040)
    write(root / "b" / "0.webp", (0, 0, 0))
    data = load(root, test_fraction=0.0)
    pixels = data.splits["train"].inputs
    assert (pixels == pixels[:, :, :1, :1]).all()
    white = [255] * 3
    found = pixels[:, :, 0, 0].tolist()
    assert found[:5] == [[128] * 3, [128] * 3, white, [0] * 3, white]
    assert found[5:] == [white, [227, 177, 127], white, white, white, white, [0] * 3]  # half of a color is half white
    gray = load(root, test_fraction=0.0, mode="gray").splits["train"].inputs
    assert gray.shape == (12, 1, 8, 8)
    assert gray[:7, 0, 0, 0].tolist() == [128, 128, 255, 0, 255, 255, 186]


def test_a_cmyk_photo_looks_like_the_one_in_rgb(root: Path) -> None:
    photo = Image.linear_gradient("L").convert("RGB")
    paper = Image.merge("CMYK", [*map(ImageChops.invert, photo.split()), Image.new("L", photo.size)])
    for animal in ("cat", "dog"):
        shutil.rmtree(root / animal)
    paper.save(write(root / "cat" / "0.jpg"), quality=95)  # by Adobe's convention, values inverted
    photo.save(write(root / "dog" / "0.png"))
    ours, plain = load(root, image_size=64, test_fraction=0.0).splits["train"].inputs
    assert abs(ours.astype(int) - plain).max() <= 3


def test_sides_that_are_no_size_are_told(root: Path) -> None:
    assert load(root, image_size=[6, 8]).splits["train"].inputs.shape == (16, 3, 6, 8)
    for wrong in ([8], [8, 8, 8], []):
        with pytest.raises(ConfigError, match=r"dataset.image_size=.*expected one number, or two: .height,width."):
            load(root, image_size=wrong)
    with pytest.raises(ConfigError, match=r"dataset.crop_share=0.5 is for dataset.resize=crop, which is pad"):
        load(root, resize="pad", crop_share=0.5)


def test_sizes_and_rotation(root: Path) -> None:
    for animal in ("cat", "dog"):
        shutil.rmtree(root / animal)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(write(root / "a" / "0.png"))
    write(root / "a" / "1.png", (9, 9, 9), size=(3, 5))
    write(root / "a" / "2.jpg", (90, 90, 90), size=(600, 400))
    halves = np.zeros((16, 16, 3), np.uint8)
    halves[:, :8] = 255  # the left half is white; orientation 6 is shown turned right, so the top becomes white
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(halves).save(write(root / "b" / "0.jpg"), exif=exif, quality=95)
    pixels = load(root, test_fraction=0.0).splits["train"].inputs
    assert pixels.shape == (4, 3, 8, 8)
    assert (abs(pixels[0].astype(int) - 127) <= 25).all()  # antialiased: the stripes melt into gray
    assert (pixels[1] == 9).all() and (abs(pixels[2].astype(int) - 90) <= 2).all()
    assert (pixels[3, :, :3] > 200).all() and (pixels[3, :, 5:] < 50).all()


def test_more_files_than_a_chunk(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    for index in range(300):
        noise[:8, :8] = index % 251
        path = tmp_path / ("a" if index < 150 else "b") / f"{index:03}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise).save(path)
    pixels = load(tmp_path, image_size=60, test_fraction=0.0).splits["train"].inputs
    assert pixels[:, 0, 0, 0].tolist() == [index % 251 for index in range(300)]
