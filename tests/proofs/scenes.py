"""The run that the proofs are made on: everything that has a state, small enough to be run a hundred times."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainkit.checkpoints import record
from trainkit.checkpoints.state import LOGS
from trainkit.data.datasets.tables import digits
from trainkit.run_folders.rundir import read_status

# Batch normalization, dropout, augmentation, Adam, a moving average, a schedule, early stopping: from the third epoch
# on the learning rate is far too high, so that nothing gets better, on any machine.
BUSY = [
    *("model=cnn", "model.channels=[4,8]", "model.hidden=16", "model.norm=batch", "model.dropout=0.2"),
    *("augment=flip_crop", "augment.padding=1", "optim=adam", "optim.lr=0.01", "ema=0.9"),
    *("schedule=multistep", "schedule.milestones=[2]", "schedule.gamma=100"),
    *("patience=2", "monitor=loss", "batch_size=64", "device=cpu", "device.threads=1", "log_every=1"),
]


def write_images(root: Path, each: int) -> None:
    """The first `each` digits of every class as PNG files in a folder of each class."""
    train = digits(root, 0).splits["train"]
    pixels, labels = np.asarray(train.inputs), np.asarray(train.targets)
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for number, image in enumerate(pixels[labels == label][:each]):
            Image.fromarray(image[0]).save(root / str(label) / f"{number}.png")


def only_run(folder: Path) -> Path:
    """The run folder of the one run that was started in `folder`."""
    (run,) = (folder / "outputs" / "train").iterdir()
    return run


def copy_as_it_is(run: Path, to: Path) -> Path:
    """Copy a run folder, as a process that dies now would leave it. Checkpoints, never changed in place, are linked."""
    (to / "checkpoints").mkdir(parents=True)
    for path in run.iterdir():
        if path.is_file() and path.name != ".lock":
            shutil.copyfile(path, to / path.name)
    for path in (run / "checkpoints").iterdir():
        if path.is_symlink():
            (to / "checkpoints" / path.name).symlink_to(os.readlink(path))
        elif path.suffix == ".safetensors":
            os.link(path, to / "checkpoints" / path.name)
        else:
            shutil.copyfile(path, to / "checkpoints" / path.name)
    return to


@contextmanager
def states_kept(states: Path) -> Iterator[None]:
    """Copy the run folder after each save in this process, to `states/<number>`."""
    commit = record.commit

    def commit_and_copy(folder: Path, *args: object, **options: object) -> record.Record:
        found = commit(folder, *args, **options)  # type: ignore[arg-type]
        copy_as_it_is(folder.parent, states / f"{len(list(states.iterdir())):03d}")
        return found

    states.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "commit", commit_and_copy)
        yield


def add_later_lines(run: Path, whole: Path) -> None:
    """Let the logs of a stopped run hold all lines of the whole one: they were written, and then it was killed."""
    for name in LOGS:
        known = (run / name).read_bytes() if (run / name).exists() else b""
        assert (whole / name).read_bytes().startswith(known)
        shutil.copyfile(whole / name, run / name)


def logged_step(run: Path) -> int:
    """The last step that the run has written down, with log_every=1; 0 before the first."""
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):  # a line that is being written, or the first one
            continue
    return 0


def resumed_at(run: Path, times: int) -> int | None:
    """After which step the run went on when it was resumed for the n-th time; None as long as it has not."""
    resumed = read_status(run).get("resumed", [])
    return resumed[times - 1].get("step") if len(resumed) >= times else None
