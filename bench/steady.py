"""`python -m bench loop`: the training loops alone, trainkit's against the bare one, in one process, taking turns.

Both hold the same images in memory and have run an epoch before the clock starts. trainkit does all that it does in a
run: training accuracy, learning rate of every step, random state of every step, metrics.jsonl.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from bench.contestants import bare, trainkit
from bench.sections import Say, Section, interleave
from bench.works import Work
from trainkit import loop
from trainkit.building import components
from trainkit.building.run import build_checkpoints, build_run
from trainkit.checkpoints.state import Checkpoints
from trainkit.config import folders
from trainkit.config.compose import check_jobs
from trainkit.config.frame import Train
from trainkit.loggers.sinks import Files, Report
from trainkit.training.run import Run
from trainkit.training.signals import Stop


def compose(words: Sequence[str]) -> Train:
    """trainkit's checked config of these overrides."""
    folders.install([])
    (config,) = check_jobs("train", list(words), False, [])
    assert isinstance(config, Train)
    return config


def build_both(work: Work, data_dir: Path, folder: Path) -> tuple[Run, Checkpoints, bare.Bare]:
    """trainkit's run, which saves into `folder`, and the bare loop's parts, for `loop_samples` images of train."""
    config = compose(trainkit.overrides(work, 0, data_dir))
    device = components.build_device(config)
    data = components.build_data(config, device)
    train = data.splits["train"]
    train.inputs, train.targets = train.inputs[: work.loop_samples], train.targets[: work.loop_samples]
    run = build_run(config, data, device, Stop())
    return run, build_checkpoints(config, data, run, folder), bare.prepare(work, device)


def loop_section(work: Work, data_dir: Path, repeats: int, say: Say) -> Section:
    """Milliseconds per step of both loops. `repeats` counts epochs of each after the first."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        return time_both(work, *build_both(work, data_dir, Path(folder)), Path(folder), repeats, say)


def time_both(
    work: Work, run: Run, checkpoints: Checkpoints, hand: bare.Bare, folder: Path, repeats: int, say: Say
) -> Section:
    """Epochs of both in turns, trainkit's log going into `folder`."""
    images, labels = run.train.inputs, run.train.targets
    report = Report([Files(folder)])

    def wait() -> None:
        if run.device.type == "cuda":
            torch.cuda.synchronize()

    def timed(epoch: Callable[[], None]) -> dict[str, float]:
        begin = time.perf_counter()
        epoch()
        wait()
        return {"step_ms": 1000 * (time.perf_counter() - begin) / run.train.steps_per_epoch}

    def by_hand() -> None:
        bare.train_epoch(hand, images, labels, torch.randperm(len(labels)).to(run.device), None)

    def by_trainkit() -> None:
        loop.train_epoch(run, report, checkpoints)
        run.epoch, run.sums = run.epoch + 1, None

    by_trainkit()
    by_hand()
    options = ", bf16 and channels_last" if work.bf16 else ""
    title = f"{work.title.partition(', 1 epoch')[0]}{options}: one step, steady state"
    section = Section(work.name + " loop", "loop", title)
    interleave(section, {"trainkit": lambda _: timed(by_trainkit), "bare": lambda _: timed(by_hand)}, repeats, say)
    return section
