"""What a person sees: one line an epoch that stays, a bar while an epoch runs, the result and what to type next."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from trainkit.errors import ResourceError
from trainkit.report.sinks import finite, scalars
from trainkit.safety import visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from trainkit.loop import Run
    from trainkit.metrics import Metrics

WAIT = 0.1  # share of an epoch spent waiting for data that is worth a word
# Of the many metrics, those of an epoch's line, under names that let it fit into 80 columns.
SHOWN = {"loss": "loss", "accuracy": "acc", "rmse": "rmse", "r2": "r2"}


class Console:
    """Plain lines to a stream; on a terminal also a bar. A closed or full stream ends the output, not the run."""

    def __init__(self, *, live: bool = True, as_json: bool = False, prefix: str = "") -> None:
        self.stream: TextIO = sys.stderr if as_json else sys.stdout
        self.as_json = as_json
        self.prefix = prefix  # set for the jobs of a sweep, whose lines may mix
        self._mark = time.monotonic()
        self._hinted = False
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._live = live and self.stream.isatty() and os.environ.get("TERM") != "dumb"

    def begin(self, run: Run) -> None:
        """The first epoch begins now."""
        self._mark = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, above the bar when there is one."""
        text = self.prefix + "\n".join(map(visible, text.split("\n")))
        try:
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            else:
                print(text, file=self.stream, flush=True)
        except OSError:
            self._drop_stream()

    def say_json(self, value: Any) -> None:
        """Print the result for a program to read (a sweep's comes at its end); all else then goes to stderr.

        Raises ResourceError when it cannot be written, but for a reader that has gone.
        """
        if self.prefix:
            return
        try:
            print(json.dumps(finite(value)), flush=True)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                raise ResourceError(f"the result cannot be written to standard output ({error.strerror})") from error

    def _drop_stream(self) -> None:
        # The reader has gone (`| head`) or the disk behind it is full. Python would fail again when it flushes at
        # exit, so the stream's descriptor is pointed at nothing.
        self._live = False
        self._bar = None
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def note(self, text: str) -> None:
        self.say(f"note: {text}")

    def step(self, run: Run, loss: float) -> None:
        if not self._live:
            return
        try:
            self._advance(run, loss)
        except OSError:
            self._drop_stream()

    def _advance(self, run: Run, loss: float) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        steps = run.train.steps_per_epoch
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=RichConsole(file=self.stream), transient=True)
            self._task = self._bar.add_task("", total=run.epochs * steps)
            self._bar.start()
        assert self._task is not None
        text = f"epoch {run.epoch + 1}/{run.epochs} loss {loss:.4f} lr {run.lr:.3g}"
        self._bar.update(self._task, completed=run.step, description=text)

    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None:
        now = time.monotonic()
        width = len(str(run.epochs))
        parts = [f"epoch {run.epoch:{width}}/{run.epochs}", *_shown(train)]
        parts += ["| val", *_shown(val)] if val else []
        late = run.train.hint is not None and run.data_wait > WAIT
        wait = f"(data wait {run.data_wait:.0%})" if late else ""
        end = [f"| {now - self._mark:.2f} s", wait, "*" if is_best else ""]
        self.say(" ".join(filter(None, [*parts, *end])))
        if late and not self._hinted:
            self._hinted = True
            self.note(f"the model waits for data: {run.train.hint}")
        self._mark = now

    def close(self) -> None:
        """Take the bar away, if there is one."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def end(self, result: dict[str, Any]) -> None:
        self.close()


def _shown(metrics: Metrics) -> list[str]:
    return [f"{SHOWN[name]} {value:.4f}" for name, value in scalars(metrics).items() if name in SHOWN]


def table(title: str, metrics: Metrics) -> list[str]:
    """The numbers of a split as lines."""
    numbers = scalars(metrics)
    width = max(map(len, numbers))
    return [title, *(f"  {name:{width}}  {value:.6f}" for name, value in numbers.items())]
