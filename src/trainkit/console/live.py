"""The live view: one line below those that stay, which a terminal shows until the run is done.

It costs at most half a percent of the time, however slow the terminal: after drawings that take t seconds the next one
is at least 200 t away. The cursor is never hidden, so that a run that is killed leaves a terminal that works. There is
no thread: the line moves when a step is done.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, TextIO

from trainkit.console.line import ASCII, BLOCKS, Part, duration, fit, fold, sparkline
from trainkit.loggers.facts import EpochFacts, Metrics, Plan, Read, StepFacts

WAIT = 0.1  # share of an epoch spent waiting for data that is worth a word
PAUSE = 0.1  # seconds between two drawings, at least
COST = 1 / 200  # the share of the time that drawing may take
SETTLED = 0.5  # seconds after which an epoch's samples per second say something
ERASE = "\r\x1b[K"
NARROWEST, WIDEST = 5, 40  # places of the bar
BAR = 1  # its rank
HISTORY = 30  # epochs of the sparkline, at most


def is_watched(stream: TextIO) -> bool:
    """Whether a stream is a terminal that obeys, with somebody before it who has not asked for plain text."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb", "unknown")
    in_ci = os.environ.get("CI", "") not in ("", "0", "false")
    return stream.isatty() and not plain and not in_ci


def columns_of(stream: TextIO) -> int:
    """The width of a terminal now; one that does not know is taken for 80."""
    return os.get_terminal_size(stream.fileno()).columns or 80


def encodable(text: str, stream: TextIO) -> bool:
    """Whether a stream can write these characters."""
    try:
        text.encode(stream.encoding)
    except UnicodeEncodeError:
        return False
    return True


class Above:
    """A standard stream, on a terminal, for what others print while the view is up: the line makes way for it."""

    def __init__(self, stream: TextIO, view: View) -> None:
        self._stream = stream
        self._view = view

    def write(self, text: str) -> int:
        """Write where the line was; it comes back when it is drawn again."""
        self._view.clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class View:
    """The line, and what stays above it. Raises OSError when the terminal has gone.

    From `begin` to `end`, what others print to stdout and stderr goes above the line too.
    """

    def __init__(self, stream: TextIO, prefix: str, plan: Plan) -> None:
        from rich.color import ColorSystem
        from rich.style import Style

        self._stream = stream
        self._prefix = prefix
        self._plan = plan
        self._glyphs = BLOCKS if encodable(BLOCKS.done + BLOCKS.todo + BLOCKS.levels, stream) else ASCII
        self._parse, self._colors = Style.parse, ColorSystem.STANDARD
        self._shown = ""  # the line as it stands on the screen
        self._due = self._read_due = 0.0
        self._cost = 0.0  # seconds that the latest drawing took
        self._numbers: dict[str, float] = {}
        self._lr = math.nan
        self._history: deque[float] = deque(maxlen=HISTORY)
        self._rate = math.nan  # samples per second
        self._data_wait = 0.0  # of the epoch before
        self._done_before = plan.step  # when this epoch, or what a resumed run does of it, began
        self._first: tuple[float, int] | None = None  # when the first step was done here, and which
        self._first_of_epoch: tuple[float, int] | None = None
        self._replaced: dict[str, TextIO] = {}  # the standard streams, by name

    def print(self, text: str) -> None:
        """Write lines that stay."""
        self._write(f"{ERASE if self._shown else ''}{text}\n{self._shown}")

    def print_epoch(self, groups: Sequence[str], is_best: bool) -> None:
        """Write an epoch's line; in more than one on a narrow terminal."""
        width = columns_of(self._stream) - len(self._prefix)
        if is_best:
            text = "\n".join(fold([*groups[:-1], f"{groups[-1]} *"], width))
            text = text.removesuffix("*") + self.paint("*", "bold yellow")
        else:
            text = "\n".join(fold(groups, width))
        self.print(self._prefix + text)

    def paint(self, text: str, style: str) -> str:
        """A text with the codes of a style, in the sixteen colors that users choose for their terminal."""
        return self._parse(style).render(text, color_system=self._colors)

    def step(self, facts: StepFacts) -> None:
        """A step is done for which the loop has waited, so that looking at what is on the device costs no wait."""
        self._lr = facts.lr
        if time.monotonic() >= self._read_due:
            self._numbers["loss"] = facts.loss
            self._look(facts.read)

    def tick(self, step: int, read: Read | None) -> None:
        """A step is done. Looks at the clock, and at nothing else unless it is time to draw."""
        now = time.monotonic()
        if self._first_of_epoch is None:
            self._first_of_epoch = now, step
            self._first = self._first or self._first_of_epoch
        if now < self._due:
            return
        if read is not None:
            self._look(read)
        self._shown = self._line(step, now)
        self._write(ERASE + self._shown)
        end = time.monotonic()
        before, self._cost = self._cost, end - now
        self._due = end + max(PAUSE, min(before, self._cost) / COST)  # the longer one may have been interrupted

    def epoch(self, facts: EpochFacts) -> None:
        """An epoch is done."""
        self._history.append(facts.judged.get(self._plan.monitor, math.nan))
        self._keep(facts.train)
        self._lr, self._data_wait = facts.lr, facts.data_wait
        self._rate = (facts.step - self._done_before) * self._plan.batch_size / facts.train_seconds
        self._done_before = facts.step
        self._first_of_epoch = None

    def begin(self) -> None:
        """Make way for what others print."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream.isatty():
                self._replaced[name] = stream
                setattr(sys, name, Above(stream, self))

    def end(self) -> None:
        """Have the standard streams as they were."""
        while self._replaced:
            name, stream = self._replaced.popitem()
            if isinstance(getattr(sys, name), Above):
                setattr(sys, name, stream)

    def clear(self) -> None:
        """Take the line away, until it is drawn again."""
        if self._shown:
            self._shown = ""
            self._write(ERASE)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _keep(self, metrics: Metrics) -> None:
        self._numbers |= {name: value for name, value in metrics.items() if name in self._plan.words}

    def _look(self, read: Read) -> None:
        self._keep(read())
        self._read_due = time.monotonic() + PAUSE

    def _line(self, step: int, now: float) -> str:
        width = columns_of(self._stream) - 1 - len(self._prefix)  # some terminals wrap in the last column
        parts = fit(self._parts(step, now, width), width)
        spare = width - len(" ".join(part.text for part in parts))
        texts = [
            self._bar(step, min(NARROWEST + spare, WIDEST)) if part.rank == BAR else self.paint(part.text, part.style)
            for part in parts
        ]
        return self._prefix + " ".join(texts) if parts else ""

    @property
    def _total(self) -> int:
        return self._plan.epochs * self._plan.steps_per_epoch

    def _bar(self, step: int, width: int) -> str:
        """How much of the whole run is done."""
        done = width * step // self._total
        todo = self.paint(self._glyphs.todo * (width - done), "bright_black")
        return self.paint(self._glyphs.done * done, "green") + todo

    def _parts(self, step: int, now: float, width: int) -> list[Part]:
        plan, epochs = self._plan, str(self._plan.epochs)
        loss, *others = [f"{plan.words[name]} {value:.4f}" for name, value in self._numbers.items()] or [""]
        spark = sparkline(list(self._history), self._glyphs.levels, max(5, min(HISTORY, width // 8)))
        judged = f"{plan.judged_by} {plan.words.get(plan.monitor, plan.monitor)}"
        speed = self._speed(step, now)
        waits = plan.hint is not None and self._data_wait > WAIT
        epoch = min((step - 1) // plan.steps_per_epoch + 1, plan.epochs)
        parts = [
            Part(0, f"epoch {epoch:{len(epochs)}}/{epochs}", "bold"),
            Part(BAR, " " * NARROWEST),
            Part(2, loss),
            Part(4, " ".join(others)),
            Part(5, spark, "cyan", spark and f"{judged} {spark}"),
            Part(8, f"lr {self._lr:.3g}" if math.isfinite(self._lr) else ""),
            Part(7, speed and f"{speed}/s", "", speed and f"{speed} samples/s"),
            Part(6, f"data wait {self._data_wait:.0%}" if waits else "", "yellow"),
            Part(3, f"ETA {self._left(step, now)}"),
        ]
        return [part for part in parts if part.text]

    def _speed(self, step: int, now: float) -> str:
        """Samples per second of this epoch; of the one before it, until this one has gone on for a while."""
        assert self._first_of_epoch is not None
        start, first = self._first_of_epoch
        rate = self._rate
        if now - start >= SETTLED:
            rate = (step - first) * self._plan.batch_size / (now - start)
        return "" if math.isnan(rate) else f"{rate:,.{0 if rate >= 10 else 1}f}"

    def _left(self, step: int, now: float) -> str:
        """The time to the end of the run, from that of the steps here, with evaluation and saving between them.

        The first step is left out: it pays for what torch sets up once.
        """
        assert self._first is not None
        start, first = self._first
        if step == first:
            return "-:--"
        return duration((now - start) / (step - first) * (self._total - step))
