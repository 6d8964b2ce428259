"""Color images 32x32 that torchvision downloads and reads: SVHN.

Its files are .mat files. torchvision compares every one with its known MD5 before opening it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.dataset import Data
from trainkit.data.datasets.download import download
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.errors import DataError
from trainkit.registry import register


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
    return Data("svhn", splits, TargetSpec("classification", classes=[str(digit) for digit in range(10)]))


def _open(name: str, dataset: Callable[..., Any], data_dir: Path, by_hand: str) -> Any:
    """torchvision's data set object; downloads where no intact copy is in `data_dir`. Raises DataError."""
    try:
        return dataset(root=data_dir, download=False)
    except RuntimeError:  # "Dataset not found or corrupted"
        download(name, lambda scratch: dataset(root=scratch, download=True), data_dir, by_hand)
    except OSError as error:
        raise DataError(f"dataset {name}: {data_dir} cannot be read ({error})") from error
    return dataset(root=data_dir, download=False)
