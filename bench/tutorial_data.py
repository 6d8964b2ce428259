"""Data as the tutorials have it: a torchvision dataset with transforms for each sample, in a DataLoader.

The number of workers is that of PyTorch's own tutorials: none for MNIST-like data ("Quickstart"), two for CIFAR-10
("Training a Classifier"). The tutorial loop, Lightning and fastai take these, and Keras for image files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import MNIST, ImageFolder

from bench.digits import digits
from bench.works import STATS, Work


class Digits(Dataset[Any]):
    """(transform(image), label) of arrays, one sample at a time."""

    def __init__(self, images: Any, labels: Any, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[index, 0]), int(self.labels[index])


def datasets(work: Work, data_dir: Path) -> tuple[Dataset[Any], Dataset[Any]]:
    """Train and test, with the work's augmentation on train."""
    plain = [transforms.ToTensor(), transforms.Normalize(*STATS[work.data])]
    changes = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(work.in_shape[1], padding=4)]
    for_train = transforms.Compose([*(changes if work.flip_crop else []), *plain])
    for_test = transforms.Compose(plain)
    if work.data == "mnist":
        return MNIST(data_dir, train=True, transform=for_train), MNIST(data_dir, train=False, transform=for_test)
    if work.data == "cifar10":
        root = data_dir / "cifar10"
        return ImageFolder(root / "train", transform=for_train), ImageFolder(root / "test", transform=for_test)
    train, train_labels, test, test_labels = digits()
    return Digits(train, train_labels, for_train), Digits(test, test_labels, for_test)


def workers(work: Work) -> int:
    """DataLoader workers, as the tutorials have them."""
    return 2 if work.data == "cifar10" else 0


def loaders(work: Work, data_dir: Path) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """DataLoaders of train (shuffled) and test."""
    train, test = datasets(work, data_dir)
    options: dict[str, Any] = {
        "batch_size": work.batch_size,
        "num_workers": workers(work),
        "pin_memory": torch.cuda.is_available(),
    }
    return DataLoader(train, shuffle=True, **options), DataLoader(test, **options)
