"""What a person sees: one line an epoch that stays, a bar while an epoch runs, the result and what to type next."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from trainkit import text as texts
from trainkit.console.ending import Row, print_frame
from trainkit.console.live import WAIT, View, columns_of, is_watched
from trainkit.errors import ResourceError
from trainkit.loggers.facts import EpochFacts, Metrics, Plan, Read, StepFacts
from trainkit.loggers.sinks import finite
from trainkit.text import visible


class Console:
    """Plain lines to a stream; on a terminal also a bar. A closed or full stream ends the output, not the run."""

    def __init__(self, *, live: bool = True, as_json: bool = False, prefix: str = "") -> None:
        self.stream: TextIO = sys.stderr if as_json else sys.stdout
        self.as_json = as_json
        self.prefix = prefix  # set for the jobs of a sweep, whose lines may mix
        self.last: tuple[int, str, Metrics] | None = None  # the last epoch: number, split that judged it, its metrics
        self._mark = time.monotonic()
        self._hinted = False
        self._live = live and is_watched(self.stream)
        self._view: View | None = None
        self._plan: Plan | None = None

    def begin(self, plan: Plan) -> None:
        """The first epoch begins now."""
        self._plan = plan
        if self._live:
            self._view = View(self.stream, self.prefix, plan)
            self._view.begin()
        self._mark = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, above the bar when there is one."""
        self._print("\n".join(map(visible, text.split("\n"))))

    def _print(self, text: str) -> None:
        text = self.prefix + text
        if self._view is not None:
            self._show(lambda view: view.print(text))
            return
        try:
            texts.say(*text.split("\n"), stream=self.stream)
        except OSError:
            self._drop_stream()

    def _show(self, act: Callable[[View], None]) -> None:
        if self._view is None:
            return
        try:
            act(self._view)
        except OSError:
            self._drop_stream()

    def say_json(self, value: Any) -> None:
        """Print the result for a program to read (a sweep's comes at its end); all else then goes to stderr.

        Raises ResourceError when it cannot be written, but for a reader that has gone.
        """
        if self.prefix:
            return
        try:
            texts.say_json(finite(value))
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                raise ResourceError(f"the result cannot be written to standard output ({error.strerror})") from error

    def _drop_stream(self) -> None:
        # The reader has gone (`| head`, a closed terminal) or the disk behind it is full. Python would fail again when
        # it flushes at exit, so the stream's descriptor is pointed at nothing.
        self._live = False
        self._leave_view()
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def note(self, text: str) -> None:
        self._print(visible(f"note: {text}"))

    def step(self, facts: StepFacts) -> None:
        self._show(lambda view: view.step(facts))

    def tick(self, step: int, read: Read | None) -> None:
        if self._view is not None:
            self._show(lambda view: view.tick(step, read))

    def epoch(self, facts: EpochFacts) -> None:
        now, plan = time.monotonic(), self._plan
        assert plan is not None
        self.last = facts.epoch, plan.judged_by, facts.judged
        self._show(lambda view: view.epoch(facts))
        width = len(str(plan.epochs))
        late = plan.hint is not None and facts.data_wait > WAIT
        groups = [
            " ".join([f"epoch {facts.epoch:{width}}/{plan.epochs}", *_in_words(facts.train, plan.words)]),
            *([" ".join(["val", *_in_words(facts.val, plan.words)])] if facts.val else []),
            f"{now - self._mark:.2f} s" + (f" (data wait {facts.data_wait:.0%})" if late else ""),
        ]
        if self._view is None:
            self._print(" | ".join(groups) + (" *" if facts.is_best else ""))
        else:
            self._show(lambda view: view.print_epoch(groups, facts.is_best))
        if late and not self._hinted:
            self._hinted = True
            self.note(f"the model waits for data: {plan.hint}")
        self._mark = now

    def frame(self, title: str, rows: Sequence[Row]) -> bool:
        """Print rows in a frame. False where there is no terminal that is wide enough."""
        if not self._live:
            return False
        try:
            return print_frame(self.stream, columns_of(self.stream), title, rows)
        except OSError:
            self._drop_stream()
            return True

    def close(self) -> None:
        """Take the bar away, if there is one."""
        self._show(lambda view: view.clear())
        self._leave_view()

    def _leave_view(self) -> None:
        if self._view is not None:
            self._view.end()
            self._view = None

    def end(self, result: dict[str, Any]) -> None:
        self.close()


def _in_words(metrics: Metrics, words: dict[str, str]) -> list[str]:
    return [f"{words[name]} {value:.4f}" for name, value in metrics.items() if name in words]


def table(title: str, metrics: Metrics) -> list[str]:
    """The numbers of a split as lines."""
    width = max(map(len, metrics))
    shown = {name: "–" if math.isnan(value) else f"{value:.6f}" for name, value in metrics.items()}
    return [title, *(f"  {name:{width}}  {value}" for name, value in shown.items())]
