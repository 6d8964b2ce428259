"""`trainkit check`: all that is wrong with a data set, and exit code 3 where it would break training."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from conftest import CommandHere

FOLDER = ("check", "dataset=folder", "dataset.root=images", "dataset.image_size=8")


def picture(seed: int, size: int = 8) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def photos(root: Path, *, classes: int = 2, count: int = 12) -> Path:
    """Class folders of different pictures in train and test."""
    for number, split in enumerate(("train", "test")):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(picture(1000 * number + 100 * label + index))
    return root


def found(done: Any) -> Any:
    return json.loads(done.out)


def test_every_unreadable_file_is_named(trainkit_here: CommandHere, tmp_path: Path) -> None:
    root = photos(tmp_path / "images")
    bad = [root / "train" / "class0" / "text.png", root / "train" / "class1" / "cut.png", root / "test/class1/none.png"]
    bad[0].write_bytes(b"no image")
    bad[1].write_bytes(picture(7)[:100])
    bad[2].symlink_to("nowhere")
    done = trainkit_here(*FOLDER, "--json")
    assert done.code == 3
    assert sorted(item["path"] for item in found(done)["unreadable"]) == sorted(map(str, bad))
    assert len(done.err.splitlines()) == 3 and all(str(path) in done.err for path in bad)
    assert found(done)["splits"]["test"]["class_counts"] == [12, 12]  # the others are judged
    skipped = trainkit_here(*FOLDER, "dataset.on_bad=skip")
    assert skipped.code == 0 and skipped.out.count("not a readable image") == 3


def test_copies_across_splits_and_conflicting_labels(trainkit_here: CommandHere, tmp_path: Path) -> None:
    root = photos(tmp_path / "images")
    first = (root / "train" / "class0" / "0.png").read_bytes()
    (root / "test" / "class0" / "leak.png").write_bytes(first)
    (root / "train" / "class1" / "conflict.png").write_bytes((root / "train" / "class0" / "1.png").read_bytes())
    done = trainkit_here(*FOLDER, "val_fraction=0", "--json")
    assert done.code == 0, done.err
    facts = found(done)
    assert facts["duplicates"]["within"] == {"train": 1, "test": 0}
    leak = facts["duplicates"]["across"]
    assert leak == {
        "train-test": {
            "contents": 1,
            "examples": [[str(root / "train/class0/0.png"), str(root / "test/class0/leak.png")]],
        }
    }
    assert facts["conflicts"]["contents"] == 1
    assert any("is in both train and test" in text for text in facts["warnings"])
    clean = trainkit_here("check", "dataset=digits", "--json")
    assert found(clean)["duplicates"]["across"] == {} and found(clean)["warnings"] == []


def test_sizes_are_those_of_the_files(trainkit_here: CommandHere, tmp_path: Path) -> None:
    root = photos(tmp_path / "images", count=3)
    (root / "test" / "class0" / "big.png").write_bytes(picture(5, size=20))
    facts = found(trainkit_here(*FOLDER, "val_fraction=0.2", "--json"))
    sizes = [
        (kind["format"], kind["width"], kind["height"], kind["files"]) for kind in facts["splits"]["test"]["sizes"]
    ]
    assert sizes == [("PNG", 8, 8, 6), ("PNG", 20, 20, 1)]


def test_every_wrong_folder_is_named(trainkit_here: CommandHere, tmp_path: Path) -> None:
    root = photos(tmp_path / "images", count=2)
    for name in ("test/class9", "test/class0x", "train/empty"):
        (root / name).mkdir()
    done = trainkit_here(*FOLDER)
    assert done.code == 3
    assert [name for name in ("class9", "class0x", "empty") if f"{name}: " in done.err] == [
        "class9",
        "class0x",
        "empty",
    ]


def test_values_that_are_not_finite_are_counted(trainkit_here: CommandHere, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    x[3, 1] = x[9, 1] = np.nan
    x[20, 2] = np.inf
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(60) % 3)
    done = trainkit_here("check", "dataset=npz", "dataset.file=data.npz")
    assert done.code == 3
    assert "row 3, column 1 is nan, as are 2 more values in 3 rows, columns 1, 2" in done.err


def test_constant_columns_uneven_classes_and_scaled_pixels(trainkit_here: CommandHere, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3)).astype(np.float32)
    x[:, 2] = 5
    np.savez(tmp_path / "rows.npz", x=x, y=(np.arange(300) % 60 == 0).astype(int))
    said = " ".join(found(trainkit_here("check", "dataset=npz", "dataset.file=rows.npz", "--json"))["warnings"])
    assert "constant in train: columns 2" in said and "classes are uneven in train" in said
    assert "fewer than 10 samples of 1" in said
    pixels = rng.integers(0, 2, (100, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "pixels.npz", x=pixels, y=np.arange(100) % 2)
    said = " ".join(found(trainkit_here("check", "dataset=npz", "dataset.file=pixels.npz", "--json"))["warnings"])
    assert "were they divided by 255?" in said


def test_copies_are_found_by_content_alone(trainkit_here: CommandHere) -> None:
    """Iris is known to hold one flower twice (rows 102 and 143 of the data set, counted from 1)."""
    facts = found(trainkit_here("check", "dataset=iris", "--json"))
    across = sum(pair["contents"] for pair in facts["duplicates"]["across"].values())
    assert across + sum(facts["duplicates"]["within"].values()) == 1


def test_output_fits_narrow_terminals_and_mistakes_are_one_line(
    trainkit_here: CommandHere, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = trainkit_here("check", "dataset=diabetes")
    assert done.code == 0 and all(len(line) <= 40 for line in done.out.splitlines())
    wrong = trainkit_here("check", "datset=wine")
    assert wrong.code == 2 and "did you mean dataset?" in wrong.err
    missing = trainkit_here("check", "dataset=npz", "dataset.file=nope.npz")
    assert missing.code == 3 and len(missing.err.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


def said_of(trainkit_here: CommandHere, pixels: Any) -> tuple[list[str], Any]:
    np.savez("pixels.npz", x=pixels, y=np.arange(len(pixels)) % 2)
    facts = found(trainkit_here("check", "dataset=npz", "dataset.file=pixels.npz", "val_fraction=0", "--json"))
    return facts["warnings"], facts["pixels"]


def test_images_that_show_nothing_are_named(trainkit_here: CommandHere, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 6, 6), dtype=np.uint8)
    assert said_of(trainkit_here, pixels)[0] == []
    pixels[3] = np.random.default_rng(1).integers(0, 13, (6, 6))
    pixels[[5, 9]] = np.arange(254, 256)[:, None, None]
    pixels[[9], 2, 2] = 251  # as JPEG leaves a white sheet
    warnings, facts = said_of(trainkit_here, pixels)
    assert sum(split["nearly_black"] for split in facts.values()) == 1
    assert sum(split["constant"] for split in facts.values()) == 2
    assert any("1 image is nearly black (no pixel above 16 of 255) in " in text for text in warnings)
    assert sum("constant, or nearly so in " in text for text in warnings) in (1, 2)  # of one split or of two
    root = photos(tmp_path / "images")
    black = root / "train" / "class1" / "5.png"
    Image.new("RGB", (8, 8), (3, 0, 9)).save(black)
    red = root / "test" / "class0" / "5.png"
    Image.new("RGB", (8, 8), (255, 0, 0)).save(red)
    done = trainkit_here(*FOLDER, "val_fraction=0")
    assert f"warning: 1 image is nearly black (no pixel above 16 of 255) in train: {black}" in " ".join(
        done.out.split()
    )
    assert f"warning: 1 image is constant, or nearly so in test: {red}" in " ".join(done.out.split())


def test_pixels_of_another_scale_are_told(trainkit_here: CommandHere, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for high, said in [(2, "pixels are only 0 and 1 in train"), (16, "pixels are only 0..15 of 0..255 in train")]:
        warnings, facts = said_of(trainkit_here, rng.integers(0, high, (100, 6, 6), dtype=np.uint8))
        assert facts["train"]["max"] == high - 1
        assert [said in text for text in warnings] == [True, False]  # the other is of test; no image is told by itself
    root = photos(tmp_path / "images")
    for file in root.rglob("*.png"):  # 12 bits of a camera, in files of 16
        Image.fromarray(rng.integers(0, 4096, (8, 8), dtype=np.uint16)).save(file)
    facts = found(trainkit_here(*FOLDER, "dataset.mode=gray", "val_fraction=0", "--json"))
    assert any("0..15 of 0..255 in train" in text and "shrunk from 16 bits" in text for text in facts["warnings"])
