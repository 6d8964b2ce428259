"""Contestants as processes: started one at a time, timed and weighed from outside, all in the same way.

This process imports nothing heavy. A child's peak memory begins with that of the process it was made from, so a parent
with torch in it would lift every figure.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.contestants import trainkit
from bench.stopwatch import STARTED
from bench.works import Work

ROOT = Path(__file__).resolve().parents[1]
MODULES = {"lightning": "lightning", "keras": "keras", "fastai": "fastai"}
Reading = dict[str, Any]


class Failed(Exception):
    """A process that did not do its work; the message says why, in one line."""


@dataclasses.dataclass(frozen=True)
class Done:
    """How a process ended. total_s: seconds from just before it was made to its end. peak_rss_mb: MiB, its largest
    resident memory, or that of its largest worker process if that is more."""

    code: int
    out: str
    err: str
    started: float
    total_s: float
    peak_rss_mb: float


def run(command: Sequence[str], cwd: Path | None = None) -> Done:
    """Run a command to its end in `cwd`, else in an empty folder, with this checkout importable."""
    if cwd is None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            return run(command, Path(scratch))
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH")]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started, mark = time.time(), time.perf_counter()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), STARTED: repr(started)}
        process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait, says what the child used
        total_s = time.perf_counter() - mark
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Done(process.returncode, texts[0], texts[1], started, total_s, usage.ru_maxrss / unit)


def not_installed(contestant: str) -> str | None:
    """Why a contestant cannot run here; None when it can."""
    module = MODULES.get(contestant)
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed: pip install -e '.[bench]'"


def contest(contestant: str, work: Work, seed: int, data_dir: Path) -> Reading:
    """Do the work once; returns the readings named in `stopwatch.py`, with total_s and peak_rss_mb. Raises Failed."""
    if contestant == "trainkit":
        return trained(trainkit.overrides(work, seed, data_dir))
    module = f"bench.contestants.{contestant}"
    done = succeed([sys.executable, "-m", module, work.name, str(seed), str(data_dir)])
    return {**last_line(done), "total_s": done.total_s, "peak_rss_mb": done.peak_rss_mb}


def trained(words: Sequence[str]) -> Reading:
    """The readings of `trainkit train` with these overrides. Raises Failed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        done = succeed([*trainkit.program(), "train", *words], Path(name))
        reading = trainkit.read(Path(name), done.started)
    return {**reading, "total_s": done.total_s, "peak_rss_mb": done.peak_rss_mb}


def succeed(command: Sequence[str], cwd: Path | None = None) -> Done:
    """As `run`. Raises Failed with the last line of what the process said when it ends with another code than 0."""
    done = run(command, cwd)
    if done.code != 0:
        lines = done.err.strip().splitlines() or ["no message"]
        raise Failed(f"exit {done.code}: {lines[-1][-200:]}")
    return done


def last_line(done: Done) -> Reading:
    """What a process printed last, as JSON."""
    reading: Reading = json.loads(done.out.strip().splitlines()[-1])
    return reading
