"""Where the facts of a run go. A sink has four methods, returns nothing and changes nothing."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainkit import storage
from trainkit.safety import visible

if TYPE_CHECKING:
    from trainkit.loop import Run
    from trainkit.metrics import Metrics

log = logging.getLogger("trainkit")


class Sink(Protocol):
    """What a sink is told."""

    def note(self, text: str) -> None: ...
    def step(self, run: Run, loss: float) -> None: ...
    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None: ...
    def end(self, result: dict[str, Any]) -> None: ...


class Report:
    """Hands every fact to every sink."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = sinks

    def note(self, text: str) -> None:
        """Something the user should know once."""
        for sink in self.sinks:
            sink.note(text)

    def step(self, run: Run, loss: float) -> None:
        """A logged step: `loss` is that batch's mean."""
        for sink in self.sinks:
            sink.step(run, loss)

    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None:
        """An epoch is done, evaluated and saved."""
        for sink in self.sinks:
            sink.epoch(run, train, val, is_best)

    def end(self, result: dict[str, Any]) -> None:
        """The run is done."""
        for sink in self.sinks:
            sink.end(result)


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

    def begin(self) -> None:
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

    def epoch(self, run: Run, train: Metrics, val: Metrics | None, is_best: bool) -> None:
        numbers = {f"train/{name}": value for name, value in scalars(train).items()}
        numbers |= {f"val/{name}": value for name, value in scalars(val or {}).items()}
        row = {"epoch": run.epoch, "step": run.step, "lr": run.lr, **numbers}
        seconds = {"time": self._time(), "train_seconds": round(run.train_seconds, 4)}
        wait = {"data_wait": round(run.data_wait, 4)}
        self._line({"event": "epoch", **seconds, **row, **wait, "best": is_best})
        self._row({"epoch": run.epoch, "step": run.step, "time": self._time(), "lr": run.lr, **numbers, **wait})
        log.info("epoch %d %s", run.epoch, " ".join(f"{name}={value:.6g}" for name, value in numbers.items()))

    def end(self, result: dict[str, Any]) -> None:
        self._line({"event": "end", "time": self._time(), **result})
        log.info("done: %s", json.dumps(finite(result)))

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


def finite(value: Any) -> Any:
    """JSON data with not-a-number and infinity as null, which JSON has no words for."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
