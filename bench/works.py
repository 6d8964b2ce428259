"""What is done: data, model, batch size, optimizer, epochs. Every contestant reads its work from here. No torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

PEERS = ["tutorial", "lightning", "keras", "fastai"]
CONTESTANTS = ["trainkit", "bare", *PEERS]
# mean and standard deviation of each channel of train, pixels as value / 255
STATS = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "digits": ((0.3055,), (0.3767,)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """One piece of work: train `epochs` epochs on all of train with Adam, then measure accuracy on test once.

    hidden: widths of the linear layers before the output. channels: of the 3x3 convolutions, each followed by ReLU
    and max pooling by 2; empty for an mlp. flip_crop: mirror and random crop with 4 pixels of padding. bf16: autocast
    and channels_last. tolerance: how far a contestant's median accuracy may lie from the bare loop's.
    loop_samples: how many samples an epoch of `python -m bench loop` has.
    """

    name: str
    title: str
    data: Literal["mnist", "cifar10", "digits"]
    hidden: tuple[int, ...]
    channels: tuple[int, ...] = ()
    epochs: int = 1
    batch_size: int = 128
    lr: float = 1e-3
    flip_crop: bool = False
    bf16: bool = False
    tolerance: float
    loop_samples: int = 0
    contestants: tuple[str, ...] = tuple(CONTESTANTS)

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return {"mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}[self.data]


# The tolerances: seeds alone spread these accuracies by about a third of them.
WORKS = [
    Work(
        name="mnist_mlp",
        title="MNIST, mlp 784-64-128-64-10, 1 epoch",
        data="mnist",
        hidden=(64, 128, 64),
        tolerance=0.015,
        loop_samples=60_000,
    ),
    Work(
        name="mnist_cnn",
        title="MNIST, cnn 32-64 + 128, 1 epoch",
        data="mnist",
        hidden=(128,),
        channels=(32, 64),
        tolerance=0.01,
        loop_samples=6_400,
    ),
    Work(
        name="mnist_cnn_bf16",
        title="MNIST, cnn 32-64 + 128, 1 epoch, bf16 + channels_last (peers: fp32)",
        data="mnist",
        hidden=(128,),
        channels=(32, 64),
        bf16=True,
        tolerance=0.01,
        loop_samples=6_400,
        contestants=("trainkit", "bare", "tutorial", "lightning"),
    ),
    Work(
        name="cifar10_cnn",
        title="CIFAR-10 from JPEG files, cnn 32-64 + 128, flip and crop, 2 epochs",
        data="cifar10",
        hidden=(128,),
        channels=(32, 64),
        epochs=2,
        flip_crop=True,
        tolerance=0.05,
    ),
    Work(
        name="digits",
        title="digits, mlp 64-256-128-10, 10 epochs",
        data="digits",
        hidden=(256, 128),
        epochs=10,
        tolerance=0.05,
    ),
]
BY_NAME = {work.name: work for work in WORKS}
LOOPS = [work.name for work in WORKS if work.loop_samples]
OTHERS = ["startup", "data", "photos"]  # measured by parts of their own: see sections.py, data_only.py and photos.py


def missing(data: str, data_dir: Path | None) -> str | None:
    """Why the files of a data set cannot be used, in one line; None when they can."""
    places = {"mnist": ("MNIST", "raw"), "cifar10": ("cifar10", "train"), "hymenoptera": ("hymenoptera", "train")}
    place = Path(*places[data]) if data in places else None
    if place is None:
        return None
    if data_dir is None:
        return f"{data} needs files: give --data-dir, which holds {place}"
    if not (data_dir / place).is_dir():
        return f"there is no folder {data_dir / place}"
    return None
