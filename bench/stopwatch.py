"""What every contestant measures of itself, in the same way, and the JSON line it prints at the end. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.works import BY_NAME, Work

STARTED = "BENCH_STARTED"  # time.time() just before the process was made


def arguments() -> tuple[Work, int, Path]:
    """The work, the seed and the data folder that this process was started with."""
    name, seed, data_dir = sys.argv[1:]
    return BY_NAME[name], int(seed), Path(data_dir)


class Stopwatch:
    """Seconds since the process was started: imports, first step; and the length of epochs and of the evaluation.

    `wait` is called before the clock is read, so that work queued on a GPU is counted.
    """

    def __init__(self) -> None:
        self.started = float(os.environ.get(STARTED) or time.time())
        self.wait: Callable[[], object] = lambda: None
        self.import_s = 0.0
        self.first_step_s: float | None = None
        self.epoch_s: list[float] = []
        self.eval_s = 0.0

    def imported(self) -> None:
        """All imports are done."""
        self.import_s = time.time() - self.started

    def stepped(self) -> None:
        """An optimizer step is done; only the first call does anything."""
        if self.first_step_s is None:
            self.wait()
            self.first_step_s = time.time() - self.started

    @contextlib.contextmanager
    def epoch(self) -> Iterator[None]:
        """Around one training epoch."""
        begin = time.perf_counter()
        yield
        self.wait()
        self.epoch_s.append(time.perf_counter() - begin)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Around the evaluation on test."""
        begin = time.perf_counter()
        yield
        self.wait()
        self.eval_s = time.perf_counter() - begin

    def finish(self, accuracy: float) -> None:
        """Print the readings; the parent adds total_s and peak_rss_mb, which it alone can know."""
        names = ("import_s", "first_step_s", "epoch_s", "eval_s")
        print(json.dumps({**{name: getattr(self, name) for name in names}, "accuracy": accuracy}), flush=True)
