"""Colour images 32x32 that torchvision downloads and reads: CIFAR-10, CIFAR-100, SVHN.

Their files are pickles and .mat files, so torchvision compares every one with its known MD5 before opening it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.datasets.download import download
from trainkit.data.splits import Data, Split
from trainkit.errors import DataError
from trainkit.registry import register


@register("dataset")
def cifar10(data_dir: Path, split_seed: int) -> Data:
    """CIFAR-10, 50,000 + 10,000 photographs: uint8 (N, 3, 32, 32), 10 classes."""
    data = _cifar("cifar10", "CIFAR10", data_dir)
    data.mean, data.std = _float32(0.4914, 0.4822, 0.4465), _float32(0.2470, 0.2435, 0.2616)
    return data


@register("dataset")
def cifar100(data_dir: Path, split_seed: int) -> Data:
    """CIFAR-100, 50,000 + 10,000 photographs: uint8 (N, 3, 32, 32), 100 classes."""
    data = _cifar("cifar100", "CIFAR100", data_dir)
    data.mean, data.std = _float32(0.5071, 0.4865, 0.4409), _float32(0.2673, 0.2564, 0.2762)
    return data


@register("dataset")
def svhn(data_dir: Path, split_seed: int) -> Data:
    """SVHN, 73,257 + 26,032 house numbers from street views: uint8 (N, 3, 32, 32), 10 classes."""
    from torchvision.datasets import SVHN

    urls = ", ".join(SVHN.split_list[split][0] for split in ("train", "test"))
    by_hand = f"get by hand, into {data_dir}: {urls}"
    parts = {split: _open("svhn", partial(SVHN, split=split), data_dir, by_hand) for split in ("train", "test")}
    splits = {
        split: Split(np.ascontiguousarray(part.data), np.asarray(part.labels, dtype=np.int64))
        for split, part in parts.items()
    }
    return Data("svhn", "classification", splits, classes=[str(digit) for digit in range(10)])


def _cifar(name: str, torchvision_name: str, data_dir: Path) -> Data:
    from torchvision import datasets

    dataset: Any = getattr(datasets, torchvision_name)
    by_hand = f"get {dataset.url} by hand and unpack it in {data_dir}"
    parts = {
        split: _open(name, partial(dataset, train=split == "train"), data_dir, by_hand) for split in ("train", "test")
    }
    splits = {
        split: Split(np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)), np.asarray(part.targets, dtype=np.int64))
        for split, part in parts.items()
    }
    return Data(name, "classification", splits, classes=list(parts["train"].classes))


def _open(name: str, dataset: Callable[..., Any], data_dir: Path, by_hand: str) -> Any:
    """torchvision's data set object; downloads where no intact copy is in `data_dir`. Raises DataError."""
    try:
        return dataset(root=data_dir, download=False)
    except RuntimeError:  # "Dataset not found or corrupted"
        download(name, lambda scratch: dataset(root=scratch, download=True), data_dir, by_hand)
    except OSError as error:
        raise DataError(f"dataset {name}: {data_dir} cannot be read ({error})") from error
    return dataset(root=data_dir, download=False)


def _float32(*values: float) -> Any:
    return np.array(values, dtype=np.float32)
