"""What exactness costs: the share of the training time that goes into checkpoints, and into keyed randomness.

Each is timed where it happens, in a real run of the command in this process, because the difference of two runs would
drown in noise.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from digest import lines
from scenes import only_run

from trainkit import loop
from trainkit.checkpoints.state import Checkpoints
from trainkit.cli import main
from trainkit.data import loaders


class Stopwatch:
    """Sums the seconds that some functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return call


@contextlib.contextmanager
def timing(*functions: tuple[Any, str]) -> Iterator[Stopwatch]:
    watch = Stopwatch()
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in functions:
            patch.setattr(owner, name, watch.timed(getattr(owner, name)))
        yield watch


def train(folder: Path, data_dir: Path, *words: str) -> float:
    """Train on MNIST in `folder`; returns the seconds of training, without evaluation and saving."""
    with contextlib.chdir(folder):
        assert main(["train", "dataset=mnist", f"data_dir={data_dir}", "optim=adam", *words]) == 0
    rows = lines(only_run(folder) / "metrics.jsonl")
    return sum(float(row["train_seconds"]) for row in rows if row["event"] == "epoch")


def checkpoint_cost(folder: Path, data_dir: Path) -> float:
    """Seconds of saving after an epoch of the cnn, over those of training."""
    with timing((Checkpoints, "end_epoch")) as watch:
        seconds = train(folder, data_dir, "model=cnn", "epochs=1")
    return watch.seconds / seconds


def randomness_cost(folder: Path, data_dir: Path) -> float:
    """Seconds of seeding each step and of permuting its epoch, of the mlp, over those of training."""
    with timing((loop, "reseed"), (loaders, "permutation")) as watch:
        seconds = train(folder, data_dir, "model=mlp", "epochs=2")
    return watch.seconds / seconds
