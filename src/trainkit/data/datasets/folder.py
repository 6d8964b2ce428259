"""Image files in class folders, decoded once and kept in the user's cache, or decoded while training.

    root/train/<class>/*.jpg            or   root/<class>/*.jpg
    root/val/<class>/*.jpg   (optional)
    root/test/<class>/*.jpg  (optional)

JPEG, PNG, BMP, GIF (first frame) and WebP of any size and color mode. What is transparent becomes white, 16-bit gray
keeps its high byte, EXIF rotation is applied. Class folders are not searched deeper. What is left out is in the notes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections import Counter
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np

from trainkit.data.dataset import Data, describe_input, hold_out
from trainkit.data.images.cache import Entry, Wanted, fetch
from trainkit.data.images.decode import DECODER, SUFFIXES, Bad, is_image, may_be_image
from trainkit.data.images.decoders import Decoders, Rows, in_memory
from trainkit.data.images.files import Files, Stream
from trainkit.data.images.fit import Rule
from trainkit.data.spec import Resize, TargetSpec
from trainkit.data.splits import Array, Split
from trainkit.errors import ConfigError, DataError, unknown
from trainkit.machine import num_cpus
from trainkit.registry import register
from trainkit.schema import Count, Fraction, Range

_CHUNK, _CHUNK_BYTES = 256, 16 << 20  # most files, and pixels of them, in a job: enough to make the hand-over cheap
_AHEAD = 2  # jobs that wait for each worker
Share = Annotated[float, Range(gt=0, le=1)]
_STAMP = 3  # numbers in the stamp of a file
# What one process takes, in seconds: more than this in all and workers are worth starting.
_A_FILE, _A_BYTE, _WORTH_WORKERS = 1.5e-4, 1.5e-8, 1.0


class _Images(NamedTuple):
    """The image files of a split, by class and name. In columns: a tuple for each of many files would cost more."""

    paths: list[str]
    labels: list[int]
    stamps: list[int]  # three of each file: size, and times of the last change of content and of anything, in ns


@register("dataset")
def folder(
    data_dir: Path,
    split_seed: int,
    *,
    root: Path,
    image_size: Count | list[Count] = 32,
    resize: Resize = "squash",
    crop_share: Share = 1.0,
    mode: Literal["rgb", "gray"] = "rgb",
    on_bad: Literal["fail", "skip"] = "fail",
    test_fraction: Fraction = 0.2,
) -> ImageFolder:
    """Images in class folders under `root`, as uint8 (N, 3 or 1, height, width); image_size: both, or [height, width].

    resize, crop_share: what is made of photos of another shape, see `images.fit.Rule`. The classes are the folders of
    the train split in order of their names. Raises DataError with the path for a missing, unreadable or empty folder,
    and a class that train does not have; ConfigError for an image size of other than two sides.
    """
    height, width = _sides(image_size)
    if crop_share < 1 and resize != "crop":
        raise ConfigError(f"dataset.crop_share={crop_share:g} is for dataset.resize=crop, which is {resize}")
    notes: list[str] = []
    places = _split_folders(root, notes)
    classes = [entry.name for entry in _subfolders(places["train"])]
    if not classes:
        raise DataError(f"{places['train']}: no class folders in it; expected <class>/<image> or train/<class>/<image>")
    faults: list[str] = []
    found = {split: _scan(place, classes, notes, faults) for split, place in places.items()}
    if faults:
        raise DataError(*faults)
    shape = (1 if mode == "gray" else 3, height, width)
    rule = Rule(mode, resize, crop_share)
    return ImageFolder(root, classes, found, shape, rule, on_bad, test_fraction, split_seed, notes)


def _sides(image_size: int | list[int]) -> tuple[int, int]:
    sides = image_size if isinstance(image_size, list) else [image_size, image_size]
    if len(sides) != 2:
        raise ConfigError(f"dataset.image_size={image_size}: expected one number, or two: [height,width]")
    return sides[0], sides[1]


@dataclasses.dataclass
class ImageFolder:
    """A folder of images, found and not read: a `data.dataset.Source`."""

    root: Path
    classes: list[str]
    found: dict[str, _Images]
    shape: tuple[int, int, int]
    rule: Rule
    on_bad: str
    test_fraction: float
    split_seed: int
    notes: list[str]

    @property
    def target(self) -> TargetSpec:
        return TargetSpec("classification", classes=self.classes)

    @property
    def nbytes(self) -> int:
        return len(self._paths()) * math.prod(self.shape)

    def decoded(self, workers: int | None = None) -> Data:
        """All images in memory, by way of the cache; `workers` processes decode what is not in it, None for all CPUs.

        Raises DataError with the path of the first unreadable image unless `on_bad` is skip; ResourceError when the
        images do not fit into memory.
        """
        notes = list(self.notes)
        return self._data(self._read(True, workers, notes), None, notes)

    def streamed(self, workers: int) -> Data:
        """Images to be decoded while training.

        All are decoded once for their exact statistics, which are cached, and so every bad one is known before the
        first epoch: both are then the same as of `decoded`. Raises as that does.
        """
        notes = list(self.notes)
        return self._data(self._read(False, workers, notes), Stream(self.shape, self.rule, workers), notes)

    def surveyed(self) -> tuple[Data, list[tuple[str, str]]]:
        """As `streamed`, with every file that cannot be decoded: (path, reason). They are left out, whatever `on_bad`.

        Raises ResourceError as `streamed` does.
        """
        tolerant = dataclasses.replace(self, on_bad="skip")
        notes = list(self.notes)
        entry = tolerant._read(False, None, notes)
        paths = self._paths()
        stream = Stream(self.shape, self.rule, num_cpus())
        return tolerant._data(entry, stream, notes), [(paths[bad.row], bad.reason) for bad in entry.bad]

    def _paths(self) -> list[str]:
        return [path for images in self.found.values() for path in images.paths]

    def _data(self, entry: Entry, stream: Stream | None, notes: list[str]) -> Data:
        bad = {failure.row: failure.reason for failure in entry.bad}
        splits, first = {}, 0
        for split, images in self.found.items():
            size = len(images.paths)
            missing = [row - first for row in bad if first <= row < first + size]
            good = np.setdiff1d(np.arange(size), missing)
            if missing:
                where = f"the first is {images.paths[missing[0]]} ({bad[first + missing[0]]})"
                notes.append(f"{split}: {len(missing)} of {size} images could not be read and were left out; {where}")
            # a slice where nothing is missing: an index array would copy the whole data set
            rows = first + good if missing else slice(first, first + size)
            labels, paths = np.array(images.labels, dtype=np.int64)[good], np.array(images.paths, dtype=object)[good]
            if entry.images is not None:
                inputs: Array | Files = entry.images[rows]
            else:
                assert stream is not None
                inputs = Files(paths, stream)
            splits[split] = Split(inputs, labels, entry.moments[rows], paths)
            first += size
        made = {"resize": self.rule.resize, "crop_share": self.rule.crop_share}
        data = Data("folder", splits, self.target, describe_input(splits["train"].inputs, **made), notes)
        if len(data.splits["train"]):  # all of it may be unreadable, which the checks report
            hold_out(data, "test", self.test_fraction, self.split_seed)
        return data

    def _read(self, keep: bool, workers: int | None, notes: list[str]) -> Entry:
        """What the cache has of these files, or what decoding all of them gives; with `keep` also the images."""
        paths = self._paths()

        def fill(images: Rows | None, moments: Rows) -> list[Bad]:
            processes = self._workers() if workers is None else workers
            return _decode_all(paths, images, moments, self.shape, self.rule, self.on_bad, processes)

        return fetch(Wanted(self._key(), len(paths), self.shape, keep), fill, notes)

    def _workers(self) -> int:
        """How many processes decode; none where starting them would take longer than they save."""
        nbytes = sum(sum(images.stamps[::_STAMP]) for images in self.found.values())
        seconds = _A_FILE * len(self._paths()) + _A_BYTE * nbytes
        return num_cpus() if seconds > _WORTH_WORKERS else 0

    def _key(self) -> str:
        """A digest of all that the decoded arrays depend on, without opening a file.

        The time of a file's last change of anything (ctime) is part of it: tools that unpack or copy can set the time
        of its content, and two different files of one size and time are common (BMP files out of an archive).
        """
        import PIL

        digest = hashlib.sha256(repr((DECODER, PIL.__version__, self.shape, tuple(self.rule), self.on_bad)).encode())
        start = len(os.path.join(self.root, ""))
        for split, images in self.found.items():
            digest.update(f"{split}\0{len(images.paths)}\0{images.stamps}\0".encode())
            names = "\0".join([path[start:] for path in images.paths])
            digest.update(names.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:40]


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
            return sorted([e for e in entries if e.name[0] != "."], key=attrgetter("name"))
    except OSError as error:
        raise DataError(f"{place}: the folder cannot be read ({error.strerror})") from error


def _subfolders(place: Path) -> list[os.DirEntry[str]]:
    folders = []
    for entry in _entries(place):
        if entry.is_symlink() and not os.path.exists(entry.path) and not is_image(entry.name):
            raise DataError(f"{entry.path}: a link that leads nowhere; remove it or restore its target")
        if not is_image(entry.name) and entry.is_dir():
            folders.append(entry)
    return folders


def _scan(place: Path, classes: list[str], notes: list[str], faults: list[str]) -> _Images:
    """The images of a split, by class and name; a line in `faults` for each folder that cannot be a class."""
    paths: list[str] = []
    labels: list[int] = []
    stamps: list[int] = []
    ignored: Counter[str] = Counter()
    for folder in _subfolders(place):
        if folder.name not in classes:
            faults.append(f"{folder.path}: {unknown('class', folder.name, classes[:20])} (the folders of train)")
            continue
        before = len(paths)
        for entry in _entries(Path(folder.path)):
            if may_be_image(entry):
                paths.append(entry.path)
                stamps += _stamp(entry)
            elif entry.name != "Thumbs.db":
                ignored["folders" if entry.is_dir() else os.path.splitext(entry.name)[1] or "no extension"] += 1
        labels += [classes.index(folder.name)] * (len(paths) - before)
        if len(paths) == before:
            faults.append(f"{folder.path}: no image in this class folder; looked for {', '.join(SUFFIXES)}")
    if not paths and not faults:
        raise DataError(f"{place}: no class folders in it")
    if ignored:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items())[:5])
        notes.append(f"{place}: what is no image was left out: {listed}")
    return _Images(paths, labels, stamps)


def _stamp(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere
        return (0, 0, 0)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _decode_all(
    paths: list[str],
    images: Rows | None,
    moments: Rows,
    shape: tuple[int, int, int],
    rule: Rule,
    on_bad: str,
    workers: int,
) -> list[Bad]:
    """Fill `images` (None: decode and forget) and `moments`; returns the unreadable files, or raises DataError.

    The files are judged in their order, whichever worker is first.
    """
    ahead = _AHEAD * max(workers, 1)
    kept = images is not None
    chunk = max(1, min(_CHUNK, _CHUNK_BYTES // math.prod(shape)))
    scratch = images or in_memory((ahead * chunk, *shape), np.uint8, "choose a smaller dataset.image_size")
    decoders = Decoders(workers, scratch, moments, rule)
    starts = range(0, len(paths), chunk)
    failures = []
    try:
        for done in range(len(starts) + ahead):
            if done >= ahead:
                first = starts[done - ahead]
                failures += [failure._replace(row=first + failure.row) for failure in decoders.result()]
            if failures and on_bad == "fail":
                path, reason = paths[failures[0].row], failures[0].reason
                raise DataError(f"{path}: not a readable image ({reason}); remove it or set dataset.on_bad=skip")
            if done < len(starts):
                piece = paths[starts[done] : starts[done] + chunk]
                decoders.submit(starts[done] if kept else done % ahead * chunk, starts[done], piece)
    finally:
        decoders.close()
    return failures
