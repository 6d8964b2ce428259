"""MNIST and its kin: gray 28x28 images in IDX files, in torchvision's folder layout, plain or with .gz.

The files are read with NumPy; torchvision, whose import takes a second, is needed only to download missing ones.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import string
import zlib
from pathlib import Path
from typing import Any, Literal

from trainkit.data.dataset import Data, describe_input
from trainkit.data.datasets.download import download
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Array, Split
from trainkit.errors import DataError
from trainkit.registry import register

_DIGITS = list(string.digits)
_FASHION = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]
_KUZUSHIJI = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]
_ALPHANUMERIC = sorted(string.digits + string.ascii_letters)
_MERGED = sorted(set(_ALPHANUMERIC) - set("cijklmopsuvwxyz"))  # small letters that look like their capitals
_EMNIST_CLASSES = {
    "balanced": _MERGED,
    "letters": list(string.ascii_lowercase),
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "byclass": _ALPHANUMERIC,
    "bymerge": _MERGED,
}
_MAX_BYTES = 2**31  # four times the largest official file; a damaged header must not ask for more


@dataclasses.dataclass(frozen=True)
class _Source:
    """Where the four files are. folder: under the data folder, also torchvision's class; train, test: name prefixes."""

    name: str
    folder: str
    train: str = "train"
    test: str = "t10k"

    def prefix(self, split: str) -> str:
        return self.train if split == "train" else self.test


@register("dataset")
def mnist(data_dir: Path, split_seed: int) -> Data:
    """MNIST, 60,000 + 10,000 handwritten digits: uint8 (N, 1, 28, 28), 10 classes."""
    return _load(data_dir, _Source("mnist", "MNIST"), _DIGITS, mean_std=(0.1307, 0.3081))


@register("dataset")
def fashion_mnist(data_dir: Path, split_seed: int) -> Data:
    """Fashion-MNIST, 60,000 + 10,000 pieces of clothing: uint8 (N, 1, 28, 28), 10 classes."""
    return _load(data_dir, _Source("fashion_mnist", "FashionMNIST"), _FASHION, mean_std=(0.2860, 0.3530))


@register("dataset")
def kmnist(data_dir: Path, split_seed: int) -> Data:
    """Kuzushiji-MNIST, 60,000 + 10,000 cursive Japanese characters: uint8 (N, 1, 28, 28), 10 classes."""
    return _load(data_dir, _Source("kmnist", "KMNIST"), _KUZUSHIJI, mean_std=(0.1918, 0.3483))


@register("dataset")
def emnist(
    data_dir: Path,
    split_seed: int,
    *,
    split: Literal["balanced", "letters", "digits", "mnist", "byclass", "bymerge"] = "balanced",
) -> Data:
    """EMNIST, handwritten letters and digits: uint8 (N, 1, 28, 28), 10 to 62 classes by `split`."""
    import numpy as np

    source = _Source("emnist", "EMNIST", f"emnist-{split}-train", f"emnist-{split}-test")
    data = _load(data_dir, source, _EMNIST_CLASSES[split], first_label=1 if split == "letters" else 0)
    for part in data.splits.values():
        assert isinstance(part.inputs, np.ndarray)
        part.inputs = np.ascontiguousarray(part.inputs.swapaxes(2, 3))  # the files hold every image transposed
    return data


def _load(
    data_dir: Path,
    source: _Source,
    classes: list[str],
    first_label: int = 0,
    mean_std: tuple[float, float] | None = None,
) -> Data:
    folder = data_dir / source.folder / "raw"
    wanted = [
        f"{source.prefix(split)}-{kind}" for split in ("train", "test") for kind in ("images-idx3", "labels-idx1")
    ]
    if not all(_find(folder, f"{name}-ubyte") for name in wanted):
        _download(data_dir, source)
    splits = {
        split: _read_split(folder, source.prefix(split), len(classes), first_label) for split in ("train", "test")
    }
    known = {"mean": [mean_std[0]], "std": [mean_std[1]]} if mean_std else {}
    inputs = describe_input(splits["train"].inputs, **known)
    return Data(source.name, splits, TargetSpec("classification", classes=list(classes)), inputs)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_split(folder: Path, prefix: str, num_classes: int, first_label: int) -> Split:
    import numpy as np

    images_path = _find(folder, f"{prefix}-images-idx3-ubyte")
    labels_path = _find(folder, f"{prefix}-labels-idx1-ubyte")
    if images_path is None or labels_path is None:
        raise DataError(f"{folder}: {prefix}-images-idx3-ubyte or {prefix}-labels-idx1-ubyte is missing")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1).astype(np.int64) - first_label
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: {len(labels)} labels, but {images_path.name} holds {len(images)} images")
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        allowed = f"{first_label}..{first_label + num_classes - 1}"
        raise DataError(f"{labels_path}: the label in row {row} is {labels[row] + first_label}, outside {allowed}")
    return Split(images[:, None], labels)


def read_idx(path: Path, ndim: int) -> Array:
    """An IDX file of unsigned bytes as a uint8 array of `ndim` axes.

    Raises DataError naming the file when it cannot be read, is no such file, or is shorter or longer than it says.
    """
    import numpy as np

    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            header = stream.read(4 + 4 * ndim)
            if len(header) < 4 + 4 * ndim or header[:4] != bytes((0, 0, 8, ndim)):
                raise DataError(f"{path}: not an IDX file of bytes with {ndim} axes; delete it to download it again")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4")[1:])
            size = math.prod(shape)
            body = stream.read(min(size, _MAX_BYTES) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete it to download it again") from error
    if len(body) != size:
        found = "more" if len(body) > size else str(len(body))
        raise DataError(f"{path}: damaged, {size} bytes expected but {found} found; delete it to download it again")
    return np.array(np.frombuffer(body, np.uint8)).reshape(shape)


def _download(data_dir: Path, source: _Source) -> None:
    folder = data_dir / source.folder / "raw"
    try:
        from torchvision import datasets
    except ImportError as error:
        raise DataError(f"dataset {source.name}: {folder} lacks files, and downloading needs torchvision") from error
    dataset: Any = getattr(datasets, source.folder)
    if source.folder == "EMNIST":
        options, urls = {"split": "mnist"}, f"{dataset.url} (unpack it there)"
    else:
        files = ", ".join(name for name, _ in dataset.resources)
        options, urls = {}, f"{files} from {dataset.mirrors[0]}"
    by_hand = f"get by hand, into {folder}: {urls}"
    download(source.name, lambda scratch: dataset(scratch, download=True, **options), data_dir, by_hand)
