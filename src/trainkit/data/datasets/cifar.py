"""CIFAR-10 and CIFAR-100 from the "binary version" of their authors: records of label bytes and pixels, no pickle.

Every file is compared with its known SHA-256, on every use. A folder that torchvision has filled holds the "python
version", which is pickles; torchvision reads those, and compares their known MD5 before it opens one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.dataset import Data, describe_input
from trainkit.data.datasets.download import download
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.errors import DataError
from trainkit.registry import register

_PIXELS = 3 * 32 * 32
_CLASSES_10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_NAMES_100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


@dataclasses.dataclass(frozen=True)
class _Source:
    """An archive and what it holds. labels: bytes before the pixels of a record, the last of which is the class.

    files: the SHA-256 of each, by split and name. python: the folder of the python version, read by `torchvision`.
    """

    name: str
    url: str
    sha256: str
    folder: str
    labels: int
    files: dict[str, dict[str, str]]
    python: str
    torchvision: str


_CIFAR10 = _Source(
    "cifar10",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "cifar-10-batches-bin",
    1,
    {
        "train": {
            "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        },
        "test": {"test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"},
    },
    "cifar-10-batches-py",
    "CIFAR10",
)
_CIFAR100 = _Source(
    "cifar100",
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    "cifar-100-binary",
    2,
    {
        "train": {"train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"},
        "test": {"test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"},
    },
    "cifar-100-python",
    "CIFAR100",
)


@register("dataset")
def cifar10(data_dir: Path, split_seed: int) -> Data:
    """CIFAR-10, 50,000 + 10,000 photographs: uint8 (N, 3, 32, 32), 10 classes."""
    known = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}
    return _data("cifar10", _load(data_dir, _CIFAR10), list(_CLASSES_10), known)


@register("dataset")
def cifar100(data_dir: Path, split_seed: int) -> Data:
    """CIFAR-100, 50,000 + 10,000 photographs: uint8 (N, 3, 32, 32), 100 classes."""
    known = {"mean": [0.5071, 0.4865, 0.4409], "std": [0.2673, 0.2564, 0.2762]}
    return _data("cifar100", _load(data_dir, _CIFAR100), _NAMES_100.split(), known)


def _data(name: str, splits: dict[str, Split], classes: list[str], known: dict[str, list[float]]) -> Data:
    inputs = describe_input(splits["train"].inputs, **known)
    return Data(name, splits, TargetSpec("classification", classes=classes), inputs)


def _load(data_dir: Path, source: _Source) -> dict[str, Split]:
    folder = data_dir / source.folder
    names = [name for files in source.files.values() for name in files]
    if not all((folder / name).is_file() for name in names):
        if (data_dir / source.python).is_dir():
            return _load_python_version(data_dir, source)
        by_hand = f"get {source.url} by hand and unpack it in {data_dir}"
        download(source.name, partial(_fetch, source), data_dir, by_hand)
    splits = {}
    for split, files in source.files.items():
        records = np.concatenate([_read(folder / name, digest, source) for name, digest in files.items()])
        images = np.ascontiguousarray(records[:, source.labels :]).reshape(-1, 3, 32, 32)
        splits[split] = Split(images, records[:, source.labels - 1].astype(np.int64))
    return splits


def _read(path: Path, digest: str, source: _Source) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The records of a file, uint8 (N, labels + 3072). Raises DataError unless it is the official file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{path}: not the file of {source.url} (its SHA-256 differs); delete it to download it again")
    return np.frombuffer(content, np.uint8).reshape(-1, source.labels + _PIXELS)


def _fetch(source: _Source, scratch: Path) -> None:
    """Download the archive and take the known files out of it, whatever else it holds. Raises ValueError, OSError."""
    from torchvision.datasets.utils import download_url

    archive = scratch / "archive.tar.gz"
    download_url(source.url, scratch, archive.name)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != source.sha256:
        raise ValueError("the archive is corrupted: its SHA-256 is not the known one")
    (scratch / source.folder).mkdir()
    with tarfile.open(archive) as tar:
        for name in (name for files in source.files.values() for name in files):
            content = tar.extractfile(f"{source.folder}/{name}")
            if content is None:
                raise ValueError(f"{name} is no file in the archive")
            (scratch / source.folder / name).write_bytes(content.read())


def _load_python_version(data_dir: Path, source: _Source) -> dict[str, Split]:
    from torchvision import datasets

    dataset: Any = getattr(datasets, source.torchvision)
    splits = {}
    for split in ("train", "test"):
        try:
            part = dataset(root=data_dir, train=split == "train", download=False)
        except (RuntimeError, OSError) as error:  # "Dataset not found or corrupted"
            folder = data_dir / source.python
            raise DataError(f"{folder}: damaged ({error}); delete it to download {source.name} again") from error
        images = np.ascontiguousarray(part.data.transpose(0, 3, 1, 2))
        splits[split] = Split(images, np.asarray(part.targets, dtype=np.int64))
    return splits
