"""What the live view costs: python -m bench.live_view [REPEATS]

Trains the digits with the view on a pseudo terminal and with plain lines on the same one, in one process and in turns,
each with a warm-up that is not counted. Prints the ratio of the medians, and what a clock around every call of the
console says: the share of the training time that was spent in it, which the noise of the machine hardly moves.
"""

from __future__ import annotations

import contextlib
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import loop
from trainkit.building import components
from trainkit.building.run import build_checkpoints, build_run
from trainkit.commands.train import plan_of
from trainkit.config import folders
from trainkit.config.compose import check_jobs
from trainkit.config.frame import Train
from trainkit.console.console import Console
from trainkit.loggers.sinks import Files, Report
from trainkit.training.signals import Stop

if TYPE_CHECKING:
    from trainkit.loggers.facts import EpochFacts, Read, StepFacts

WORKS = {
    "mlp, short epochs": ["device=cpu", "device.threads=1", "epochs=30"],
    "cnn, longer epochs": ["device=cpu", "device.threads=1", "model=cnn", "batch_size=32", "optim=adam", "epochs=12"],
}


class Clocked(Console):
    """A console that knows how long it took."""

    seconds = 0.0

    def step(self, facts: StepFacts) -> None:
        begin = time.perf_counter()
        super().step(facts)
        self.seconds += time.perf_counter() - begin

    def tick(self, step: int, read: Read | None) -> None:
        begin = time.perf_counter()
        super().tick(step, read)
        self.seconds += time.perf_counter() - begin

    def epoch(self, facts: EpochFacts) -> None:
        begin = time.perf_counter()
        super().epoch(facts)
        self.seconds += time.perf_counter() - begin


def train(words: list[str], live: bool) -> tuple[float, float]:
    """Seconds of a training run from its first step to its last save, and those of them inside the console."""
    (config,) = check_jobs("train", words, False, [])
    assert isinstance(config, Train)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        device = components.build_device(config)
        data = components.build_data(config, device)
        run = build_run(config, data, device, Stop())
        checkpoints = build_checkpoints(config, data, run, folder)
        console = Clocked(live=live)
        report = Report([console, Files(folder)])
        report.begin(plan_of(run))
        begin = time.perf_counter()
        loop.fit(run, report, checkpoints)
        seconds = time.perf_counter() - begin
        report.close()
    return seconds, console.seconds


def main() -> None:
    """Print a line for each work."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    folders.install([])
    for name in ("NO_COLOR", "CI"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm-256color"
    master, slave = pty.openpty()
    reader: subprocess.Popen[Any] = subprocess.Popen(
        ["cat"], stdin=master, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        for title, words in WORKS.items():
            found: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
            for number in range(repeats + 1):
                for live in (True, False) if number % 2 else (False, True):
                    with contextlib.redirect_stdout(terminal):
                        reading = train(words, live)
                    found[live] += [reading] if number else []
            seconds = {live: statistics.median(total for total, _ in runs) for live, runs in found.items()}
            share = {live: statistics.median(own / total for total, own in runs) for live, runs in found.items()}
            ratio = seconds[True] / seconds[False]
            times = f"{seconds[False]:.2f} s plain, {seconds[True]:.2f} s with the view, ratio {ratio:.3f}"
            print(f"{title}: {times}; in the console {share[False]:.2%} plain, {share[True]:.2%} with it", flush=True)
    reader.terminate()
    reader.wait()


if __name__ == "__main__":
    main()
