"""What is measured and kept: sections of readings. Each part below makes one, its rows interleaved and repeated."""

from __future__ import annotations

import dataclasses
import functools
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.processes import ROOT, Failed, Reading, contest, not_installed, run
from bench.works import Work

Say = Callable[[str], None]


@functools.cache
def commit() -> str:
    """The checkout's commit, or `unknown` where git cannot say."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


@dataclasses.dataclass
class Section:
    """The readings of one part.

    kind: "work", "startup", "data", "loop", "options" or "recipe"; decides the columns of the table.
    readings: row -> its repeats. skipped: row -> why there is none. tolerance: of the accuracy, for works.
    """

    name: str
    kind: str
    title: str
    date: str = dataclasses.field(default_factory=lambda: time.strftime("%Y-%m-%d"))
    commit: str = dataclasses.field(default_factory=commit)
    readings: dict[str, list[Reading]] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)
    tolerance: float | None = None

    def median(self, row: str, value: Callable[[Reading], float]) -> float:
        """The median of a value over the repeats of a row."""
        return statistics.median(value(reading) for reading in self.readings[row])


def interleave(section: Section, measures: dict[str, Callable[[int], Reading]], repeats: int, say: Say) -> None:
    """Take every row's reading once a round, each round in an order of its own; a row that fails is left out."""
    for repeat in range(repeats):
        rows = [row for row in measures if row not in section.skipped]
        random.Random(repeat).shuffle(rows)
        for row in rows:
            try:
                reading = measures[row](repeat)
            except Failed as failure:
                section.skipped[row] = str(failure)
                section.readings.pop(row, None)
                say(f"{section.name}: {row} left out: {failure}")
                continue
            section.readings.setdefault(row, []).append(reading)
            shown = " ".join(f"{k}={v:.3f}" for k, v in reading.items() if isinstance(v, float))
            say(f"{section.name} {repeat + 1}/{repeats}: {row} {shown}")
    section.readings = {row: section.readings[row] for row in measures if row in section.readings}


def work_section(work: Work, contestants: Sequence[str], data_dir: Path, repeats: int, say: Say) -> Section:
    """A work by these contestants. Repeat number n has seed n, for all of them."""
    section = Section(work.name, "work", work.title, tolerance=work.tolerance)
    for name in contestants:
        if reason := not_installed(name):
            section.skipped[name] = reason
    measures = {
        name: (lambda seed, name=name: contest(name, work, seed, data_dir))
        for name in contestants
        if name not in section.skipped
    }
    interleave(section, measures, repeats, say)
    return section


def wrong(section: Section) -> list[str]:
    """The rows of a work whose median accuracy lies further from the bare loop's than the tolerance."""
    if section.tolerance is None or "bare" not in section.readings:
        return []
    tolerance, aim = section.tolerance, section.median("bare", accuracy)
    return [row for row in section.readings if abs(section.median(row, accuracy) - aim) > tolerance]


def accuracy(reading: Reading) -> float:
    return float(reading["accuracy"])


def startup_section(work: Work, data_dir: Path | None, reason: str | None, repeats: int, say: Say) -> Section:
    """Short commands from start to end, and `trainkit train` on MNIST to its first step, against importing torch."""
    from bench.contestants.trainkit import program

    commands: dict[str, tuple[list[str], int]] = {
        'python -c "import torch"': ([sys.executable, "-c", "import torch"], 0),
        "trainkit --help": ([*program(), "--help"], 0),
        "trainkit train --help": ([*program(), "train", "--help"], 0),
        "trainkit train epochs=x (a config error)": ([*program(), "train", "epochs=x"], 2),
    }

    def measure(command: list[str], code: int) -> Reading:
        done = run(command)
        if done.code != code:
            raise Failed(f"exit {done.code}, expected {code}: {done.err.strip()[-200:]}")
        return {"seconds": done.total_s, "peak_rss_mb": done.peak_rss_mb}

    def first_step(seed: int) -> Reading:
        if data_dir is None or reason is not None:
            raise Failed(reason or "no --data-dir")
        reading = contest("trainkit", work, seed, data_dir)
        return {"seconds": reading["first_step_s"], "peak_rss_mb": reading["peak_rss_mb"]}

    measures: dict[str, Callable[[int], Any]] = {
        row: (lambda _, command=command, code=code: measure(command, code)) for row, (command, code) in commands.items()
    }
    measures["trainkit train dataset=mnist: the first step"] = first_step
    section = Section("startup", "startup", "From the command to an answer")
    interleave(section, measures, repeats, say)
    return section
