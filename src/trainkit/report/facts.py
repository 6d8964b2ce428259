"""A run folder as a report needs it, whatever state it is in: what cannot be read is left out and said. No torch."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from trainkit import registry, storage
from trainkit.checkpoints import checkpoint
from trainkit.data.spec import DataSpec, TargetSpec
from trainkit.errors import CheckpointError
from trainkit.report import pictures
from trainkit.run_folders import predictions, rundir
from trainkit.run_folders.configs import parse_config
from trainkit.run_folders.predictions import Predictions
from trainkit.run_folders.records import mapping
from trainkit.tasks.base import Metric, Task, reading_task
from trainkit.tasks.metrics import headline, read_metrics

Row = dict[str, Any]
Value = TypeVar("Value")
MAX_BYTES = 200_000_000  # of metrics.jsonl


@dataclasses.dataclass
class Facts:
    """One run.

    state: as in status.json, or `killed` where that says running and no process holds the folder. epochs, steps: the
    lines of metrics.jsonl. measured: split -> metrics of the best epoch. metrics: what is known of each, by its name.
    missing: what could not be read, a line each.
    """

    path: Path
    status: Row = dataclasses.field(default_factory=dict)
    state: str = "unknown"
    config: Row = dataclasses.field(default_factory=dict)
    environment: Row = dataclasses.field(default_factory=dict)
    command: str = ""
    epochs: list[Row] = dataclasses.field(default_factory=list)
    steps: list[Row] = dataclasses.field(default_factory=list)
    measured: dict[str, Row] = dataclasses.field(default_factory=dict)
    metrics: dict[str, Metric] = dataclasses.field(default_factory=lambda: read_metrics(None))
    predictions: Predictions | None = None
    pictures: dict[str, NDArray[Any]] | None = None
    header: Row = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)

    @property
    def verb(self) -> str:
        return str(self.status.get("verb", "train"))

    @property
    def result(self) -> Row:
        return mapping(self.status.get("result"))

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def label(self) -> str:
        """`<data> <model>`, as far as the config tells."""
        return f"{self.data} {mapping(self.config.get('model')).get('name', '?')}"

    @property
    def data(self) -> str:
        """What the user calls the data: the name of its folder or file, else that of the data set."""
        chosen = mapping(self.config.get("dataset"))
        name = str(chosen.get("name", "?"))
        component = registry.find("dataset", name)
        fields = [] if component is None else component.schema.values()
        places = (chosen.get(field.name) for field in fields if field.annotation is Path)
        place = next((Path(place) for place in places if isinstance(place, str)), Path())
        return place.name.removesuffix(".npz") or name

    @property
    def split(self) -> str | None:
        """The split that judges the run: test, else what was measured last."""
        return "test" if "test" in self.measured else next(reversed(self.measured), None)

    @property
    def monitor(self) -> str:
        """What chose the best epoch: `val/accuracy`."""
        known = self.result.get("monitor") or mapping(self.header.get("monitor")).get("metric")
        if known is None:
            return "val/loss"
        return str(known) if "/" in str(known) else f"{'val' if self.has_val else 'train'}/{known}"

    @property
    def has_val(self) -> bool:
        return any("val/loss" in row for row in self.epochs)

    @property
    def best_epoch(self) -> int | None:
        """The epoch that was kept, 1 for the first; None when there is none yet."""
        best = [int(row["epoch"]) for row in self.epochs if row.get("best") is True]
        return best[-1] if best else None

    @functools.cached_property
    def target(self) -> TargetSpec | None:
        """What was predicted, as far as it is known."""
        if self.predictions is not None:
            return self.predictions.target
        try:
            return DataSpec.from_json(self.header.get("spec"), self.path).target
        except CheckpointError:
            return None

    @property
    def task(self) -> Task:
        return reading_task("" if self.target is None else self.target.task)

    @property
    def headline(self) -> str:
        """The metric that says how good the run is, on `split`: `test/accuracy`."""
        name = self.task.headline or headline(self.metrics)
        known = self.measured.get(self.split or "", {})
        return f"{self.split}/{name if name in known else 'loss'}"

    def described(self, name: str) -> Metric:
        """What is known of a metric; name: with its split or without."""
        short = name.rpartition("/")[2]
        return self.metrics.get(short) or Metric(short, "min")

    def metric(self, name: str) -> float | None:
        """`test/accuracy` of the best epoch, where it was measured."""
        split, _, metric = name.partition("/")
        return number(self.measured.get(split, {}).get(metric))


def number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else None


def is_run(folder: Path) -> bool:
    """Whether a folder is, or once was meant to be, a run folder."""
    return any((folder / name).is_file() for name in ("status.json", "config.yaml", "metrics.jsonl"))


def read_facts(folder: Path) -> Facts:
    """Read all that a run folder holds."""
    facts = Facts(Path(os.path.abspath(folder)))
    facts.status = mapping(_try(facts, "status.json", lambda path: json.loads(_text(path)), {}))
    facts.state = "killed" if rundir.is_killed(folder, facts.status) else str(facts.status.get("state", "unknown"))
    facts.config = _try(facts, "config.yaml", lambda path: parse_config(_text(path), path), {})
    facts.environment = mapping(_try(facts, "env.json", lambda path: json.loads(_text(path)), {}))
    facts.command = _try(facts, "command.txt", _text, "").strip()
    if facts.verb == "train":
        _read_metrics(facts)
        facts.header = _header(facts)
        facts.measured = facts.measured or _measured(facts.result.get("metrics"))
        if "measured" in facts.result:
            facts.metrics = read_metrics(facts.result["measured"])
        if not facts.measured:
            _measure_by_checkpoint(facts)
    else:
        facts.header = _header(facts)
        measured = mapping(_try(facts, "metrics.json", lambda path: json.loads(_text(path)), {}))
        facts.measured = _measured(measured.get("metrics"))
        facts.metrics = read_metrics(measured.get("measured"))
    ended = facts.state == "completed"
    for file, reader in ((predictions.FILE, predictions.read), (pictures.FILE, pictures.read)):
        try:
            found = reader(folder)
        except (ValueError, TypeError) as error:
            facts.missing.append(f"{file} is damaged: {error}")
            continue
        if found is None and ended and file == predictions.FILE and facts.measured:
            facts.missing.append(f"{file} is not there; `trainkit eval ckpt=…` makes a folder that has one")
        setattr(facts, file.partition(".")[0], found)
    return facts


def _try(facts: Facts, name: str, read: Callable[[Path], Value], otherwise: Value) -> Value:
    """What `read` makes of a file of the folder; else `otherwise`, and a line in `missing`."""
    try:
        return read(facts.path / name)
    except FileNotFoundError:
        facts.missing.append(f"{name} is not there")
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        facts.missing.append(f"{name} cannot be read: {reason}")
    return otherwise


def _text(path: Path) -> str:
    return storage.read_text(path, MAX_BYTES if path.suffix == ".jsonl" else storage.MAX_SMALL)


def _header(facts: Facts) -> Row:
    """The header of the run's best checkpoint, or of the one that was evaluated; empty where there is none."""
    place = facts.path if facts.verb == "train" else Path(str(facts.config.get("ckpt", "")))
    try:
        return checkpoint.read_header(checkpoint.locate(place))
    except CheckpointError as error:
        if facts.verb == "train" and facts.epochs:
            facts.missing.append(f"checkpoint: {error}")
        return {}


def _read_metrics(facts: Facts) -> None:
    """The lines of metrics.jsonl."""
    text = _try(facts, "metrics.jsonl", _text, "")
    torn = 0
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            torn += 1
            continue
        if not isinstance(row, dict):
            torn += 1
        elif row.get("event") == "epoch" and number(row.get("epoch")) is not None:
            _put(facts.epochs, row, "epoch")
        elif row.get("event") == "step" and number(row.get("step")) is not None:
            _put(facts.steps, row, "step")
        elif row.get("event") in ("start", "end"):
            facts.measured, facts.metrics = _measured(row.get("metrics")), read_metrics(row.get("measured"))
    if torn:
        facts.missing.append(f"metrics.jsonl: {torn} of {len(text.splitlines())} lines cannot be read")


def _measure_by_checkpoint(facts: Facts) -> None:
    """Take what the best checkpoint says for the result of a run that has not come to its end."""
    facts.measured = _measured({"val": mapping(facts.header.get("metrics")).get("val")})
    if facts.measured:
        facts.missing.append("the final evaluation: the run did not come to it; the numbers are of its best epoch")


def _put(rows: list[Row], row: Row, key: str) -> None:
    """Append a line; it replaces those that a resumed run has done again."""
    while rows and rows[-1][key] >= row[key]:
        rows.pop()
    rows.append(row)


def _measured(value: Any) -> dict[str, Row]:
    return {str(split): metrics for split, metrics in mapping(value).items() if isinstance(metrics, dict) and metrics}
