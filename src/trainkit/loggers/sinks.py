"""Where the facts of a run go. A sink is told them, returns nothing and changes nothing."""

from __future__ import annotations

import collections
import csv
import io
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from trainkit import storage
from trainkit.errors import Interrupted
from trainkit.loggers.facts import EpochFacts, Plan, Read, StepFacts
from trainkit.tasks.metrics import describe_metrics
from trainkit.text import visible

log = logging.getLogger("trainkit")


class Sink(Protocol):
    """What a sink is told."""

    def begin(self, plan: Plan) -> None: ...
    def step(self, facts: StepFacts) -> None: ...
    def epoch(self, facts: EpochFacts) -> None: ...
    def end(self, result: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class OwnSink(Sink, Protocol):
    """The console and the files of the run folder, which are also told of every step and what the user should know."""

    def note(self, text: str) -> None: ...
    def tick(self, step: int, read: Read | None) -> None: ...


class Logger(Sink, Protocol):
    """A sink that `loggers=` has chosen; `look` is the command that shows what it has written."""

    name: str

    def look(self) -> str: ...


class Report:
    """Hands every fact to every sink. A logger that fails, in whatever way, is reported once and not told any more."""

    def __init__(self, sinks: Sequence[OwnSink], loggers: Sequence[Logger] = ()) -> None:
        self.sinks = sinks
        self.loggers = list(loggers)

    def note(self, text: str) -> None:
        """Something the user should know once."""
        for sink in self.sinks:
            sink.note(text)

    def begin(self, plan: Plan) -> None:
        """Training begins, or goes on."""
        self._tell(lambda sink: sink.begin(plan))

    def step(self, facts: StepFacts) -> None:
        """A step is done that is logged."""
        self._tell(lambda sink: sink.step(facts))

    def tick(self, step: int, read: Read | None) -> None:
        """A step is done, logged or not. A sink may take no time; read: where looking makes no device wait."""
        for sink in self.sinks:
            sink.tick(step, read)

    def epoch(self, facts: EpochFacts) -> None:
        """An epoch is done and evaluated."""
        self._tell(lambda sink: sink.epoch(facts))

    def end(self, result: dict[str, Any]) -> None:
        """The run is done."""
        self._tell(lambda sink: sink.end(result))

    def close(self) -> None:
        """Nothing more will be reported, whether the run is done or not."""
        self._tell(lambda sink: sink.close())

    def _tell(self, fact: Callable[[Sink], None]) -> None:
        # loggers first: a note about one that fails stands above what the console says next
        for logger in list(self.loggers):
            try:
                fact(logger)
            except Interrupted:
                raise
            except Exception as error:
                self.loggers.remove(logger)
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                self.note(f"loggers={logger.name} failed and is off for the rest of this run: {reason}")
                log.warning("loggers=%s failed", logger.name, exc_info=error)
        for sink in self.sinks:
            fact(sink)


class Files:
    """metrics.jsonl (every measurement), results.csv (a row an epoch) and train.log (what was said).

    `time` is seconds since this object was made, which is after the imports and before the data; the first line of
    metrics.jsonl says when that was, as seconds since 1970. In a resumed run it goes on from the last line.
    `train_seconds` is an epoch without evaluation and saving.
    """

    def __init__(self, folder: Path) -> None:
        self.metrics = folder / "metrics.jsonl"
        self.results = folder / "results.csv"
        self.started, self._at = time.monotonic(), time.time()

    def begin(self, plan: Plan) -> None:
        """Write the first line, or go on after the lines that are there."""
        if storage.size(self.metrics) == 0:
            measured = describe_metrics(plan.metrics)
            self._line({"event": "start", "at": round(self._at, 3), "measured": measured})
            return
        self.started = time.monotonic() - _last_time(self.metrics)

    def note(self, text: str) -> None:
        log.info("%s", visible(text))

    def step(self, facts: StepFacts) -> None:
        row = {"step": facts.step, "epoch": facts.epoch, "loss": facts.loss, "lr": facts.lr}
        self._line({"event": "step", "time": self._time(), **row})

    def tick(self, step: int, read: Read | None) -> None:
        """The files hold the logged steps only."""

    def epoch(self, facts: EpochFacts) -> None:
        numbers, place = facts.numbers, {"epoch": facts.epoch, "step": facts.step}
        seconds = {"time": self._time(), "train_seconds": round(facts.train_seconds, 4)}
        wait = {"data_wait": round(facts.data_wait, 4)}
        self._line({"event": "epoch", **seconds, **place, "lr": facts.lr, **numbers, **wait, "best": facts.is_best})
        self._row({**place, "time": self._time(), "lr": facts.lr, **numbers, **wait})
        log.info("epoch %d %s", facts.epoch, " ".join(f"{name}={value:.6g}" for name, value in numbers.items()))

    def end(self, result: dict[str, Any]) -> None:
        self._line({"event": "end", "time": self._time(), **result})
        storage.flush(self.metrics)  # before the status says that the run is complete
        log.info("done: %s", json.dumps(finite(result)))

    def close(self) -> None:
        """Nothing is kept open between two lines."""

    def _time(self) -> float:
        return round(time.monotonic() - self.started, 3)

    def _line(self, record: dict[str, Any]) -> None:
        storage.append(self.metrics, json.dumps(finite(record), allow_nan=False))

    def _row(self, row: dict[str, Any]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if storage.size(self.results) == 0:
            writer.writeheader()
        writer.writerow({name: f"{value:.8g}" if isinstance(value, float) else value for name, value in row.items()})
        storage.append(self.results, text.getvalue().rstrip("\n"))


def _last_time(log: Path) -> float:
    """The `time` of the last line; 0 where it has none."""
    try:
        (line,) = collections.deque(storage.read_lines(log), maxlen=1)
        return float(json.loads(line)["time"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return 0.0


def finite(value: Any) -> Any:
    """JSON data with not-a-number and infinity as null, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
