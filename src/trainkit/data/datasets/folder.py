"""Image files in class folders, decoded once into memory.

    root/train/<class>/*.jpg            or   root/<class>/*.jpg
    root/val/<class>/*.jpg   (optional)
    root/test/<class>/*.jpg  (optional)

JPEG, PNG, BMP, GIF (first frame) and WebP of any size and colour mode. Alpha is dropped, 16-bit gray keeps its high
byte, EXIF rotation is applied. Class folders are not searched deeper. What is left out is said in the notes.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from trainkit.data.splits import Array, Data, Split, hold_out
from trainkit.errors import DataError, ResourceError, unknown
from trainkit.registry import register
from trainkit.schema import Count, Fraction

if TYPE_CHECKING:
    from PIL import Image

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # no other decoder of Pillow is reachable from a file's content
_CHUNK = 256  # files a thread takes at a time: enough to make the hand-over cheap


class _Sample(NamedTuple):
    path: str
    label: int


@register("dataset")
def folder(
    data_dir: Path,
    split_seed: int,
    *,
    root: Path,
    image_size: Count = 32,
    mode: Literal["rgb", "gray"] = "rgb",
    on_bad: Literal["fail", "skip"] = "fail",
    test_fraction: Fraction = 0.2,
) -> Data:
    """Images in class folders under `root`, as uint8 (N, 3 or 1, image_size, image_size).

    The classes are the folders of the train split in order of their names. Raises DataError with the path for a
    missing, unreadable or empty folder, a class that train does not have, and an unreadable image (unless `on_bad`
    is skip). ResourceError when the images do not fit into memory.
    """
    notes: list[str] = []
    places = _split_folders(root, notes)
    classes = [entry.name for entry in _subfolders(places["train"])]
    if not classes:
        raise DataError(f"{places['train']}: no class folders in it; expected <class>/<image> or train/<class>/<image>")
    found = {split: _scan(place, classes, notes) for split, place in places.items()}
    splits = {split: _decode_all(samples, split, image_size, mode, on_bad, notes) for split, samples in found.items()}
    data = Data("folder", "classification", splits, classes=classes, notes=notes)
    hold_out(data, "test", test_fraction, split_seed)
    return data


def _split_folders(root: Path, notes: list[str]) -> dict[str, Path]:
    """Where each split is. A folder `train` means a split only when it holds folders: it may be a class's name."""
    if not root.is_dir():
        raise DataError(f"dataset.root={root}: {'not a folder' if root.exists() else 'no such folder'}")
    names = [entry.name for entry in _subfolders(root)]
    if not names:
        raise DataError(f"dataset.root={root}: no folders in it; expected <class>/<image> or train/<class>/<image>")
    splits = [split for split in ("train", "val", "test") if split in names]
    others = [name for name in names if name not in splits]
    if "train" not in splits or (others and not _subfolders(root / "train")):
        return {"train": root}
    if others:
        notes.append(f"{root}: folders other than train, val and test were left out: {', '.join(others[:5])}")
    return {split: root / split for split in splits}


def _entries(place: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name; hidden files and folders (.DS_Store, .ipynb_checkpoints) do not count."""
    try:
        with os.scandir(place) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{place}: the folder cannot be read ({error.strerror})") from error


def _subfolders(place: Path) -> list[os.DirEntry[str]]:
    folders = []
    for entry in _entries(place):
        if entry.is_symlink() and not os.path.exists(entry.path) and not _is_image(entry.name):
            raise DataError(f"{entry.path}: a link that leads nowhere; remove it or restore its target")
        if not _is_image(entry.name) and entry.is_dir():
            folders.append(entry)
    return folders


def _is_image(name: str) -> bool:
    return name.lower().endswith(_EXTENSIONS)


def _scan(place: Path, classes: list[str], notes: list[str]) -> list[_Sample]:
    """The images of a split, by class and name."""
    samples: list[_Sample] = []
    ignored: Counter[str] = Counter()
    for folder in _subfolders(place):
        if folder.name not in classes:
            raise DataError(f"{folder.path}: {unknown('class', folder.name, classes[:20])} (the folders of train)")
        label, before = classes.index(folder.name), len(samples)
        for entry in _entries(Path(folder.path)):
            if _is_image(entry.name) and _is_file_or_broken_link(entry):
                samples.append(_Sample(entry.path, label))
            elif entry.name != "Thumbs.db":
                ignored["folders" if entry.is_dir() else os.path.splitext(entry.name)[1] or "no extension"] += 1
        if len(samples) == before:
            raise DataError(f"{folder.path}: no image in this class folder; looked for {', '.join(_EXTENSIONS)}")
    if not samples:
        raise DataError(f"{place}: no class folders in it")
    if ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items())[:5])
        notes.append(f"{place}: what is no image was left out: {listed}")
    return samples


def _is_file_or_broken_link(entry: os.DirEntry[str]) -> bool:
    # A broken link counts as an image that cannot be read; a folder or a pipe named x.png does not count.
    try:
        return entry.is_file() or not os.path.exists(entry.path)
    except OSError:  # a loop of links
        return True


def _decode_all(samples: list[_Sample], split: str, image_size: int, mode: str, on_bad: str, notes: list[str]) -> Split:
    """Decode the samples of a split in parallel; unreadable ones are an error or, for on_bad=skip, left out."""
    from PIL import Image

    shape = (len(samples), 1 if mode == "gray" else 3, image_size, image_size)
    try:
        images = np.empty(shape, dtype=np.uint8)
    except MemoryError as error:
        advice = "choose a smaller dataset.image_size"
        raise ResourceError(f"{len(samples)} images of shape {shape[1:]} do not fit into memory; {advice}") from error
    bad: list[tuple[int, str]] = []
    with warnings.catch_warnings():  # set here and not in the threads, because the filters are the whole process's
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index, reason in _failures(samples, images, mode):
            if on_bad == "fail":
                path = samples[index].path
                raise DataError(f"{path}: not a readable image ({reason}); remove it or set dataset.on_bad=skip")
            bad.append((index, reason))
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    if bad:
        index, reason = bad[0]
        first = f"the first is {samples[index].path} ({reason})"
        notes.append(f"{split}: {len(bad)} of {len(samples)} images could not be read and were left out; {first}")
        good = np.delete(np.arange(len(samples)), [index for index, _ in bad])
        images, labels = images[good], labels[good]
    return Split(images, labels)


def _failures(samples: list[_Sample], images: Array, mode: str) -> Iterator[tuple[int, str]]:
    """Fill `images`; yield (index, reason) of each unreadable sample, in their order whatever thread is first."""

    def decode_chunk(start: int) -> list[tuple[int, str]]:
        failures = []
        for index in range(start, min(start + _CHUNK, len(samples))):
            try:
                _decode(samples[index].path, images[index], mode)
            except MemoryError:
                raise
            except Exception as error:  # on a damaged file Pillow's decoders raise almost anything
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                failures.append((index, reason.replace(f" {samples[index].path!r}", " it")))
        return failures

    workers = _workers(samples)
    with ThreadPoolExecutor(workers) as pool:
        for failures in pool.map(decode_chunk, range(0, len(samples), _CHUNK)):
            yield from failures


def _workers(samples: list[_Sample]) -> int:
    """How many threads decode. Files under 8 kB take one: their time goes into Python code, which excludes others."""
    some = [sample.path for sample in samples[:: len(samples) // 32 + 1]]
    sizes = [os.path.getsize(path) for path in some if os.path.exists(path)]
    if sum(sizes) < 8192 * len(some):
        return 1
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _decode(path: str, out: Array, mode: str) -> None:
    """Decode one file into `out`, uint8 (C, H, W). Raises what Pillow raises, on truncated data too."""
    from PIL import Image, ImageOps

    height, width = out.shape[1:]
    with Image.open(path, formats=_FORMATS) as image:
        image.draft("L" if mode == "gray" else "RGB", (2 * width, 2 * height))  # large JPEGs: decode a reduced image
        image.load()
        if "exif" in image.info:
            ImageOps.exif_transpose(image, in_place=True)
        converted = _convert(image, "L" if mode == "gray" else "RGB")
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(converted)
    out[:] = pixels if mode == "gray" else pixels.transpose(2, 0, 1)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip it to 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about a direct conversion
    return image if image.mode == mode else image.convert(mode)
