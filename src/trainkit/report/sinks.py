"""Where the facts of a run go. A sink is told them, returns nothing and changes nothing."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainkit import storage
from trainkit.errors import Interrupted
from trainkit.safety import visible

if TYPE_CHECKING:
    from trainkit.loop import Run
    from trainkit.metrics import Metrics

log = logging.getLogger("trainkit")


class Sink(Protocol):
    """What a sink is told."""

    def begin(self, run: Run) -> None: ...
    def step(self, run: Run, loss: float) -> None: ...
    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None: ...
    def end(self, result: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


class OwnSink(Sink, Protocol):
    """The console and the files of the run folder, which are also told of every step and what the user should know."""

    def note(self, text: str) -> None: ...
    def tick(self, run: Run) -> None: ...


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

    def begin(self, run: Run) -> None:
        """Training begins, or goes on after `run.step`."""
        self._tell(lambda sink: sink.begin(run))

    def step(self, run: Run, loss: float) -> None:
        """A logged step: `loss` is that batch's mean."""
        self._tell(lambda sink: sink.step(run, loss))

    def tick(self, run: Run) -> None:
        """A step is done, logged or not. It may cost no time, and no wait for the device."""
        for sink in self.sinks:
            sink.tick(run)

    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None:
        """An epoch is done, evaluated and saved."""
        self._tell(lambda sink: sink.epoch(run, train, val, is_best))

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

    def begin(self, run: Run) -> None:
        """Write the first line, or go on after the lines that are there."""
        if storage.size(self.metrics) == 0:
            self._line({"event": "start", "at": round(self._at, 3)})
            return
        last = json.loads(self.metrics.read_bytes().splitlines()[-1])
        self.started = time.monotonic() - last.get("time", 0.0)

    def note(self, text: str) -> None:
        log.info("%s", visible(text))

    def step(self, run: Run, loss: float) -> None:
        row = {"step": run.step, "epoch": run.epoch + 1, "loss": loss, "lr": run.lr}
        self._line({"event": "step", "time": self._time(), **row})

    def tick(self, run: Run) -> None:
        """The files hold the logged steps only."""

    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None:
        numbers = of_epoch(train, val)
        row = {"epoch": run.epoch, "step": run.step, "lr": run.lr, **numbers}
        seconds = {"time": self._time(), "train_seconds": round(run.train_seconds, 4)}
        wait = {"data_wait": round(run.data_wait, 4)}
        self._line({"event": "epoch", **seconds, **row, **wait, "best": is_best})
        self._row({"epoch": run.epoch, "step": run.step, "time": self._time(), "lr": run.lr, **numbers, **wait})
        log.info("epoch %d %s", run.epoch, " ".join(f"{name}={value:.6g}" for name, value in numbers.items()))

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


def scalars(metrics: Metrics) -> dict[str, float]:
    """The metrics that are one number."""
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


def of_epoch(train: Metrics, val: Metrics | None) -> dict[str, float]:
    """The numbers of an epoch, as `train/loss` and `val/accuracy`."""
    numbers = {f"train/{name}": value for name, value in scalars(train).items()}
    return numbers | {f"val/{name}": value for name, value in scalars(val or {}).items()}


def finite(value: Any) -> Any:
    """JSON data with not-a-number and infinity as null, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
