"""One run folder as a record: what ran, with which config, how it ended, what it measured."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from sys import intern
from typing import Any

from trainkit import storage
from trainkit.errors import ConfigError
from trainkit.run_folders import rundir
from trainkit.run_folders.configs import read_parts
from trainkit.tasks.base import Metric
from trainkit.tasks.metrics import read_metrics

STAMPED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_(?P<label>.+))?_(?P<uid>[0-9a-f]{6})")
# What a record keeps of status.json and of its `result`: of thousands of runs, the rest would fill the memory.
STATUS = ("verb", "started", "ended", "seconds", "exit_code", "error", "overrides", "resumed", "parent", "reproduces")
RESULT = ("monitor", "objective", "best_epoch")


@dataclasses.dataclass
class Record:
    """A run folder as it was when it was read.

    id: what to call it: the six characters at the end of the folder's name; `SWEEP/JOB` for a job of a sweep; the name
    of a folder that the user has named. state: as in status.json, or `killed` where it says running and no process
    holds the folder. metrics: `split/name` -> value of the best epoch, or of the evaluation; of a run that has not
    ended well, of the best epoch so far.
    """

    path: Path
    id: str
    state: str
    status: dict[str, Any]
    metrics: dict[str, float]
    epoch: int | None
    step: int | None
    measured: Mapping[str, Metric]  # what is known of each metric, by its name without the split; runs share it

    @property
    def verb(self) -> str:
        return str(self.status["verb"])

    @property
    def result(self) -> dict[str, Any]:
        return mapping(self.status.get("result"))

    @property
    def config(self) -> dict[str, Any]:
        """The config by dotted key, a component's name under its group: `model` and `model.hidden`. Empty if lost."""
        return {key: value for part in self._config for key, value in part.items()}

    @functools.cached_property
    def _config(self) -> tuple[dict[str, Any], ...]:
        return read_parts(os.path.join(self.path, "config.yaml"))

    def _in_config(self, key: str, default: Any = None) -> Any:
        for part in reversed(self._config):
            if key in part:
                return part[key]
        return default

    @property
    def label(self) -> str:
        """`<dataset>-<model>`."""
        stamped = STAMPED.fullmatch(self.path.name)
        return str(stamped["label"]) if stamped and stamped["label"] else "-".join(self._components())

    def _components(self) -> Iterator[str]:
        for group in ("dataset", "model"):
            yield str(self._in_config(group, "?"))

    @property
    def origin(self) -> tuple[str, Path] | None:
        """What it came from: (`extends`, `reproduces` or `evaluates`, that run's folder)."""
        for field, relation in (("parent", "extends"), ("reproduces", "reproduces")):
            if isinstance(self.status.get(field), str):
                return relation, Path(self.status[field])
        if self.verb == "eval" and isinstance(ckpt := self._in_config("ckpt"), str):
            return "evaluates", evaluated_run(Path(ckpt))
        return None

    @property
    def facts(self) -> dict[str, Any]:
        """What is known beside config and metrics, by the names that `runs` filters and sorts by."""
        return {name: read(self) for name, read in FACTS.items()}

    def value(self, key: str) -> Any:
        """A fact, a metric or a config key; None where the run has no such value."""
        if key in FACTS:
            return FACTS[key](self)
        if key in self.metrics:
            return self.metrics[key]
        return self._in_config(key)


def _in_status(name: str) -> Callable[[Record], Any]:
    return lambda record: record.status.get(name)


def _in_result(name: str) -> Callable[[Record], Any]:
    return lambda record: record.result.get(name)


def _list_in_status(record: Record, name: str) -> list[Any]:
    found = record.status.get(name)
    return found if isinstance(found, list) else []


FACTS: dict[str, Callable[[Record], Any]] = {
    "run": lambda record: record.id,
    "path": lambda record: str(record.path),
    "verb": lambda record: record.verb,
    "state": lambda record: record.state,
    "label": lambda record: record.label,
    **{name: _in_status(name) for name in ("started", "ended", "seconds", "exit_code", "error")},
    **{name: _in_result(name) for name in RESULT},
    "epoch": lambda record: record.epoch,
    "step": lambda record: record.step,
    "resumed": lambda record: len(_list_in_status(record, "resumed")),
    "overrides": lambda record: " ".join(map(str, _list_in_status(record, "overrides"))),
}


def evaluated_run(ckpt: Path) -> Path:
    """The run folder that a checkpoint file lies in."""
    return ckpt.parents[1] if ckpt.parent.name == "checkpoints" else ckpt.parent


def read(folder: Path) -> Record | None:
    """The record of a folder, or None when it holds no readable run."""
    status = _read_status(folder)
    if status is None:
        return None
    state = status["state"]
    if rundir.is_killed(folder, status):
        status = _read_status(folder) or status  # it may have ended between the two looks
        state = "killed" if status["state"] == "running" else status["state"]
    result = mapping(status.get("result"))
    splits = mapping(result.get("metrics")).items()
    metrics = {intern(f"{split}/{name}"): value for split, values in splits for name, value in _numbers(values)}
    epoch, step = _count(result.get("epochs")), _count(result.get("steps"))
    described = result.get("measured")
    if not result and status["verb"] == "train":
        metrics, epoch, step, described = _progress(folder / "metrics.jsonl")
    kept = {name: status[name] for name in STATUS if name in status}
    kept["result"] = {name: result[name] for name in RESULT if name in result}
    return Record(folder, short_id(folder), state, kept, metrics, epoch, step, _measured(json.dumps(described)))


@functools.cache
def _measured(described: str) -> dict[str, Metric]:
    """What is known of the metrics, read once for all runs that describe them alike."""
    return read_metrics(json.loads(described))


def find(root: Path) -> tuple[list[Record], list[Path]]:
    """All runs in and below a folder, oldest first, and the folders that hold none or a damaged one.

    Raises ConfigError when there is no such folder.
    """
    if not root.is_dir():
        raise ConfigError(f"folder '{root}' does not exist; train something first, or name the folder with the runs")
    records: list[Record] = []
    skipped: list[Path] = []
    _walk(Path(os.path.abspath(root)), set(), records, skipped)
    records.sort(key=_age)
    called = collections.Counter(record.id for record in records)
    for record in records:
        if called[record.id] > 1:
            record.id = str(record.path)
    return records, skipped


def _age(record: Record) -> tuple[str, str, int, str]:
    name = record.path.name  # job 10 of a sweep comes after job 9
    number = int(name) if name.isdecimal() else 0
    return str(record.status.get("started", "")), os.path.dirname(record.path), number, name


def _walk(folder: Path, seen: set[tuple[int, int]], records: list[Record], skipped: list[Path]) -> bool:
    """Collect what is in and below a folder; returns whether any of it is, or was, a run."""
    try:
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:  # a link to what was looked at already
            return True
        seen.add((stat.st_dev, stat.st_ino))
        if os.path.exists(os.path.join(folder, "status.json")):
            record = read(folder)
            if record is None:
                skipped.append(folder)
            else:
                records.append(record)
            return True
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except OSError:
        return False
    children = [Path(entry.path) for entry in sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))]
    empty = [child for child in children if not _walk(child, seen, records, skipped)]
    if len(empty) == len(children):  # a whole tree without a run counts once, where it hangs
        return False
    skipped += empty
    return True


def short_id(folder: Path) -> str:
    """What to call a run folder; see `Record`."""
    if own := STAMPED.fullmatch(folder.name):
        return own["uid"]
    if sweep := STAMPED.fullmatch(folder.parent.name):
        return f"{sweep['uid']}/{folder.name}"
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name


def _read_status(folder: Path) -> dict[str, Any] | None:
    try:
        status = mapping(json.loads(storage.read_text(folder / "status.json")))
    except (OSError, ValueError, RecursionError):
        return None
    return status if isinstance(status.get("verb"), str) and isinstance(status.get("state"), str) else None


def _progress(file: Path) -> tuple[dict[str, float], int | None, int | None, Any]:
    """Of an unfinished run: the metrics of the best epoch so far, the epochs and steps done, what is measured."""
    start: dict[str, Any] = {}
    best: dict[str, Any] = {}
    last: dict[str, Any] = {}
    try:
        for line in storage.read_lines(file):
            is_epoch, is_start = b'"event": "epoch"' in line, b'"event": "start"' in line
            if not (is_epoch or is_start):
                continue
            try:
                found = mapping(json.loads(line))
            except (ValueError, RecursionError):
                continue  # the line that was being written when the process died
            if is_start:
                start = found
                continue
            last = found
            best = last if last.get("best") is True else best
    except OSError:
        return {}, None, None, None
    metrics = {name: value for name, value in _numbers(best) if "/" in name}
    return metrics, _count(last.get("epoch")), _count(last.get("step")), start.get("measured")


def mapping(value: Any) -> dict[str, Any]:
    """What was read from a file, if it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> Iterator[tuple[str, float]]:
    return ((str(k), v) for k, v in mapping(value).items() if type(v) is float or type(v) is int)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
