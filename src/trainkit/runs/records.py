"""One run folder as a record: what ran, with which config, how it ended, what it measured."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainkit import storage
from trainkit.config.changes import flat
from trainkit.errors import ConfigError
from trainkit.runs import rundir
from trainkit.tasks.base import Metric
from trainkit.tasks.metrics import read_metrics

STAMPED = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_(?P<label>.+))?_(?P<uid>[0-9a-f]{6})")


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
    measured: dict[str, Metric]  # what is known of each metric, by its name without the split

    @property
    def verb(self) -> str:
        return str(self.status["verb"])

    @property
    def result(self) -> dict[str, Any]:
        return mapping(self.status.get("result"))

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The config by dotted key, a component's name under its group: `model` and `model.hidden`. Empty if lost."""
        return read_config(self.path / "config.yaml")

    @property
    def label(self) -> str:
        """`<dataset>-<model>`."""
        stamped = STAMPED.fullmatch(self.path.name)
        return str(stamped["label"]) if stamped and stamped["label"] else "-".join(self._components())

    def _components(self) -> Iterator[str]:
        for group in ("dataset", "model"):
            yield str(self.config.get(group, "?"))

    @property
    def origin(self) -> tuple[str, Path] | None:
        """What it came from: (`extends`, `reproduces` or `evaluates`, that run's folder)."""
        for field, relation in (("parent", "extends"), ("reproduces", "reproduces")):
            if isinstance(self.status.get(field), str):
                return relation, Path(self.status[field])
        if self.verb == "eval" and isinstance(self.config.get("ckpt"), str):
            return "evaluates", evaluated_run(Path(self.config["ckpt"]))
        return None

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What is known beside config and metrics, by the names that `runs` filters and sorts by."""
        resumed = self.status.get("resumed")
        overrides = self.status.get("overrides")
        return {
            "run": self.id,
            "path": str(self.path),
            "verb": self.verb,
            "state": self.state,
            "label": self.label,
            **{name: self.status.get(name) for name in ("started", "ended", "seconds", "exit_code", "error")},
            **{name: self.result.get(name) for name in ("monitor", "objective", "best_epoch")},
            "epoch": self.epoch,
            "step": self.step,
            "resumed": len(resumed) if isinstance(resumed, list) else 0,
            "overrides": " ".join(map(str, overrides)) if isinstance(overrides, list) else "",
        }

    def value(self, key: str) -> Any:
        """A fact, a metric or a config key; None where the run has no such value."""
        for values in (self.facts, self.metrics):
            if key in values:
                return values[key]
        return self.config.get(key)


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
    metrics = {f"{split}/{name}": value for split, values in splits for name, value in _numbers(values).items()}
    epoch, step = _count(result.get("epochs")), _count(result.get("steps"))
    described = result.get("measured")
    if not result and status["verb"] == "train":
        metrics, epoch, step, described = _progress(folder / "metrics.jsonl")
    return Record(folder, short_id(folder), state, status, metrics, epoch, step, read_metrics(described))


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


def _age(record: Record) -> tuple[str, Path, int, str]:
    name = record.path.name  # job 10 of a sweep comes after job 9
    number = int(name) if name.isdecimal() else 0
    return str(record.status.get("started", "")), record.path.parent, number, name


def _walk(folder: Path, seen: set[tuple[int, int]], records: list[Record], skipped: list[Path]) -> bool:
    """Collect what is in and below a folder; returns whether any of it is, or was, a run."""
    try:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link to what was looked at already
            return True
        seen.add((stat.st_dev, stat.st_ino))
        if (folder / "status.json").exists():
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


def read_config(file: Path) -> dict[str, Any]:
    """A run's config by dotted key; empty when the file is missing or damaged."""
    try:
        return flat(parse_config(storage.read_text(file), file))
    except (OSError, ValueError, RecursionError):
        return {}


def parse_config(text: str, file: Path) -> dict[str, Any]:
    """The config in the text of a run's config.yaml, whoever wrote it. Raises ValueError for anything else."""
    import yaml

    try:
        if "&" in text:  # an alias can stand for billions of nodes; the careful reader refuses that
            from trainkit.config.folders import read_yaml

            return read_yaml(text, file)
        return mapping(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # eight times as fast
    except (yaml.YAMLError, ConfigError) as error:
        raise ValueError(str(error)) from error


def _read_status(folder: Path) -> dict[str, Any] | None:
    try:
        status = rundir.read_status(folder)
    except RecursionError:
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
    metrics = {name: value for name, value in _numbers(best).items() if "/" in name}
    return metrics, _count(last.get("epoch")), _count(last.get("step")), start.get("measured")


def mapping(value: Any) -> dict[str, Any]:
    """What was read from a file, if it is a mapping; else an empty one."""
    return value if isinstance(value, dict) else {}


def _numbers(value: Any) -> dict[str, float]:
    numbers = mapping(value).items()
    return {str(k): v for k, v in numbers if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
