"""A run that is killed again and again with SIGKILL, at random moments, until it has been killed often enough."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nursery import SRC
from scenes import BUSY, logged_step, only_run, resumed_at

from trainkit.checkpoints import record
from trainkit.run_folders.rundir import read_status

EVERY = ("1steps", "3steps")  # checkpoint_every
WORKERS = (0, 1, 2)
PATIENCE = 120  # seconds that a life may take to its first step; then it hangs


class Life(Protocol):
    """A run of the command in a process that leads its own group."""

    pid: int

    @property
    def output(self) -> str: ...
    def wait(self) -> int: ...


class Start(Protocol):
    """Starts the command."""

    def __call__(self, *words: str, cwd: Path) -> Life: ...


@dataclasses.dataclass(frozen=True)
class Kill:
    """A SIGKILL that took a life. step: the last that was logged. saved: the last that the record named.

    moment: what lay in the folder: `between`, or `saving` when a file was only half put into its place.
    """

    step: int
    saved: int
    workers: int
    moment: str


class Command:
    """The command as a user starts it: a new interpreter."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._count = 0

    def __call__(self, *words: str, cwd: Path) -> Life:
        self._count += 1
        return _Process(words, cwd, self._scratch / f"command{self._count}.txt")


class _Process:
    def __init__(self, words: Sequence[str], cwd: Path, output: Path) -> None:
        self._output = output
        paths = os.pathsep.join(filter(None, [str(SRC), os.environ.get("PYTHONPATH")]))
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainkit", *words],
                **{"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file},
                cwd=cwd,
                env=os.environ | {"PYTHONPATH": paths},
                process_group=0,
            )
        self.pid = self._process.pid

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        return self._process.wait()


def words(images: Path, every: str, epochs: int) -> list[str]:
    """The run that is killed: everything that has a state, its images decoded while it trains."""
    data = ["dataset=folder", f"dataset.root={images}", "dataset.image_size=8", "loader=streaming", "batch_size=16"]
    late = f"schedule.milestones=[{epochs - 2}]"  # so that it stops early, near its end
    return ["train", *BUSY, *data, f"epochs={epochs + 2}", f"checkpoint_every={every}", late]


def survive(
    start: Start, command: Sequence[str], folder: Path, kills: int, draw: random.Random, always: Sequence[str] = ()
) -> list[Kill]:
    """Run the command in `folder`, kill it up to `kills` times, each time after its first step, and let it end.

    Each life has 0, 1 or 2 workers, and the words `always`. Returns the kills that took a life before it had ended by
    itself.
    """
    folder.mkdir(exist_ok=True)
    found: list[Kill] = []
    for number in range(kills + 1):
        workers = draw.choice(WORKERS)
        words = command if number == 0 else ["resume", str(only_run(folder))]
        life = start(*words, *always, f"workers={workers}", cwd=folder)
        if number == kills or not wait_for_steps(life, folder, number, draw.randint(1, 4)):
            break
        time.sleep(draw.uniform(0, 0.03))
        os.killpg(life.pid, signal.SIGKILL)
        if life.wait() != -signal.SIGKILL:  # it had ended
            return found
        found.append(describe(only_run(folder), workers))
    code = life.wait()
    assert code == 0, life.output
    return found


def wait_for_steps(life: Life, folder: Path, times_resumed: int, steps: int) -> bool:
    """Wait until the life has made so many steps; False when it has ended before."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        for run in folder.glob("outputs/train/*"):
            begun = resumed_at(run, times_resumed) if times_resumed else 0
            if begun is not None and logged_step(run) >= begun + steps:
                return True
            if read_status(run).get("state") in ("completed", "failed"):
                return False
        time.sleep(0.001)
    raise AssertionError(f"no step after {PATIENCE} s: {life.output}")


def describe(run: Path, workers: int) -> Kill:
    known = record.read(run / "checkpoints")
    names = [path.name for path in (run / "checkpoints").iterdir() if not path.is_symlink()]
    kept = {entry.file for entry in (*known.kept, known.best) if entry} if known else set()
    strays = [name for name in names if name not in kept | {record.NAME}]
    return Kill(logged_step(run), known.last.step if known else 0, workers, "saving" if strays else "between")
