"""The state of a run: everything the next step depends on, to a checkpoint and back, and when that is saved.

model/<name>  ema/<name>           weights and buffers, and their moving average
optim/<parameter>/<state>          the optimizer's tensors, by parameter name
meter/<sum>                        the sums of an epoch that has begun
header: progress, monitor, optim, scaler, guard, lr is none of it: it is a function of the step, as all randomness is
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainkit import storage
from trainkit.checkpoints import checkpoint, record
from trainkit.config.changes import differences, refuse_other_meaning
from trainkit.data.dataset import Data
from trainkit.errors import CheckpointError, NumericsError
from trainkit.loggers.sinks import finite
from trainkit.loop import refuse_bad_steps
from trainkit.tasks.meter import Metrics
from trainkit.training.guard import is_finite
from trainkit.training.run import Run

LOGS = ("metrics.jsonl", "results.csv")  # cut back on resume to what the checkpoint knows of


@dataclasses.dataclass(frozen=True)
class Restored:
    """passed: a line for each newer checkpoint that is damaged. changes: what makes the bits others than they were.

    lost: a line for each log of which something is gone.
    """

    passed: list[str]
    changes: list[str]
    lost: list[str]


class Checkpoints:
    """Saves a run: when it is due within an epoch, after every or some epochs, and whenever an epoch is the best.

    every: how often, as (number, unit), unit one of `epoch`, `step`, `minute`. facts: what the header holds besides
    the state: config, data, runtime.
    """

    def __init__(self, folder: Path, every: tuple[float, str], keep: int, facts: Mapping[str, Any], data: Data) -> None:
        self.folder = folder / "checkpoints"
        storage.make_folder(self.folder)
        self._run_folder = folder
        self._number, self._unit = every
        self._keep = keep
        self._facts = dict(facts)
        self._data = data
        self._metrics: dict[str, Metrics | None] = {}
        self._saved: tuple[int, int] | None = None
        self._saved_at = time.monotonic()

    @property
    def best(self) -> Path | None:
        """The file of the best epoch so far."""
        found = record.read(self.folder)
        return self.folder / found.best.file if found and found.best else None

    def due(self, run: Run) -> bool:
        """Whether a checkpoint is to be saved after this step, within the epoch."""
        if self._unit == "step":
            return run.step % self._number == 0
        return self._unit == "minute" and time.monotonic() - self._saved_at >= 60 * self._number

    def end_epoch(self, run: Run, metrics: dict[str, Metrics | None], is_best: bool) -> None:
        """Save after an epoch if it is time, or if the epoch is the best or the last."""
        self._metrics = finite(metrics)
        last = run.epoch == run.epochs or run.out_of_patience
        if is_best or last or (self._unit == "epoch" and run.epoch % self._number == 0):
            self.save(run, is_best)

    def save(self, run: Run, is_best: bool = False) -> None:
        """Save the run as it stands between two steps. Raises ResourceError; what was saved before stays.

        Raises NumericsError, and saves nothing, when anything in it is not finite.
        """
        if self._saved == (run.epoch, run.step):
            return
        refuse_bad_steps(run)
        tensors, state = capture(run)
        for name, tensor in tensors.items():
            if not is_finite(tensor):
                raise NumericsError(f"not saved: {name} is not finite after step {run.step} (lr {run.lr:g})")
        logs = flush_logs(self._run_folder)
        header = {**self._facts, "fingerprint": self.fingerprint, **state, "metrics": self._metrics}
        record.commit(
            self.folder,
            checkpoint.pack(tensors, header),
            epoch=run.epoch,
            step=run.step,
            logs=logs,
            is_best=is_best,
            keep=self._keep,
        )
        self._saved = (run.epoch, run.step)
        self._saved_at = time.monotonic()

    @functools.cached_property
    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of the samples that decide what is learned: those of train, and of val."""
        return {name: split.digest() for name, split in self._data.splits.items() if name != "test"}

    def restore(self, run: Run, allow: Sequence[str] = ()) -> Restored | None:
        """Put the newest whole checkpoint into a fresh run and cut the logs back to it; None when nothing was saved.

        Raises CheckpointError when no file is whole, and when config or data differ in a way that `allow` does not
        name: dotted keys, or `data`.
        """
        storage.remove_temporaries(self.folder)
        passed: list[str] = []
        files = record.candidates(self.folder)
        for path in files:
            try:
                tensors, header = checkpoint.load(path)
            except CheckpointError as error:
                passed.append(str(error))
                continue
            try:
                changes = self._judge(header, path, allow)
                restore(run, tensors, header, path)
                self._metrics = header["metrics"]
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise CheckpointError(f"'{path}' does not hold the state of this run ({error!r})") from error
            lengths = log_lengths(self._run_folder, path, run.epoch, run.step)
            known = record.read(self.folder)
            if passed or known is None:
                mend_record(self._run_folder, path, header["monitor"]["best_epoch"], self._keep)
            else:  # it may have been killed before the links followed the record
                record.settle(self.folder, known)
            self._saved = (run.epoch, run.step)
            return Restored(passed, changes, self._cut_logs(lengths, run.step))
        if files:
            raise CheckpointError("; ".join(passed))
        for name in LOGS:
            storage.truncate(self._run_folder / name, 0)
        return None

    def _cut_logs(self, lengths: dict[str, int], step: int) -> list[str]:
        """Cut the logs back to what a checkpoint knows of. Returns a line for each of which something is gone."""
        kept = {name: storage.truncate(self._run_folder / name, length) for name, length in lengths.items()}
        lost = [name for name, length in lengths.items() if kept[name] < length]
        if lost:
            shorten_logs(self.folder, kept)
        return [
            f"{name} is lost: what it said up to step {step}"
            if kept[name] == 0
            else f"{name} has lost {lengths[name] - kept[name]:,} of its {lengths[name]:,} bytes up to step {step}"
            for name in lost
        ]

    def _judge(self, header: dict[str, Any], path: Path, allow: Sequence[str]) -> list[str]:
        """What is not as it was and changes bits, a line each. Raises CheckpointError for what changes the meaning."""
        meant = refuse_other_meaning(header["config"], self._facts["config"], allow)
        other = [name for name, digest in header["fingerprint"].items() if self.fingerprint.get(name) != digest]
        if other and "data" not in allow:
            raise CheckpointError(
                f"the {' and '.join(other)} samples are not those that '{path}' was trained on; allow=[data] goes on"
            )
        meant += [f"other {name} samples" for name in other]
        was, now = (_digest_of(origin) for origin in (header.get("init"), self._facts.get("init")))
        if was != now and "init" not in allow:
            raise CheckpointError(f"init has SHA-256 {now} here and {was} in '{path}'; allow=[init] goes on")
        meant += [] if was == now else ["other initial weights"]
        runtime = differences(header["runtime"], self._facts["runtime"])
        if header["runtime"]["cudnn.benchmark"] and header["runtime"]["device"] != "cpu":
            meant.append("device.cudnn.benchmark=true chooses kernels by their speed")
        return meant + [f"{key} {old} -> {new}" for key, (old, new) in runtime.items()]


def _digest_of(origin: Any) -> Any:
    return origin.get("sha256") if isinstance(origin, dict) else None


def log_lengths(run_folder: Path, path: Path, epoch: int, step: int) -> dict[str, int]:
    """Bytes of each log when this checkpoint was saved: by the record, or without one by what the lines say.

    Raises CheckpointError when they cannot be read.
    """
    known = record.read(path.parent)
    for entry in known.kept if known else ():
        if entry.file == path.name:
            return entry.logs
    try:
        return _lengths_by_lines(run_folder / LOGS[0], run_folder / LOGS[1], epoch, step)
    except OSError as error:
        raise CheckpointError(f"'{error.filename}' cannot be read ({error.strerror})") from error


def _lengths_by_lines(metrics: Path, results: Path, epoch: int, step: int) -> dict[str, int]:
    length = 0
    for line in storage.read_lines(metrics) if metrics.exists() else ():
        event = _event(line)
        later = event.get("step", 0) > step or (event["event"] == "epoch" and event.get("epoch", 0) > epoch)
        if later or event["event"] in ("end", "torn"):
            break
        length += len(line)
    rows = storage.read_lines(results) if results.exists() else iter(())
    return {LOGS[0]: length, LOGS[1]: sum(map(len, itertools.islice(rows, 1 + epoch if epoch else 0)))}


def shorten_logs(folder: Path, kept: dict[str, int]) -> None:
    """Have the record ask for no more of a log than is left: what is written from here on comes after all it names."""
    known = record.read(folder)
    assert known is not None  # it was mended before

    def shorten(entry: record.Entry) -> record.Entry:
        return dataclasses.replace(entry, logs={name: min(size, kept[name]) for name, size in entry.logs.items()})

    best = None if known.best is None else shorten(known.best)
    record.write(folder, record.Record(shorten(known.last), tuple(map(shorten, known.previous)), best))


def _event(line: bytes) -> dict[str, Any]:
    """A line of metrics.jsonl; after a power cut it may be torn, or run into the next one."""
    try:
        event = json.loads(line) if line.endswith(b"\n") else {}
    except (ValueError, RecursionError):
        event = {}
    whole = isinstance(event, dict) and all(isinstance(event.get(key, 0), int) for key in ("step", "epoch"))
    return event if whole and "event" in event else {"event": "torn"}


def mend_record(run_folder: Path, path: Path, best_epoch: int, keep: int) -> None:
    """Make the record name `path` as the last checkpoint, whole ones before it, and that of the best epoch.

    What is newer than `path` goes: a better epoch that comes after it will be found again.
    """
    folder = path.parent
    files = record.scan(folder)
    entries: list[record.Entry] = []
    best = None
    for file in files[files.index(path) :]:
        try:
            _, header = checkpoint.load(file)
        except CheckpointError:
            continue
        progress = header["progress"]
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        logs = log_lengths(run_folder, file, progress["epoch"], progress["step"])
        entry = record.Entry(file.name, storage.size(file), digest, progress["epoch"], progress["step"], logs)
        entries.append(entry)
        if entry.epoch == best_epoch == header["monitor"]["best_epoch"] and "counts" not in progress:
            best = entry
    last, *previous = entries
    record.write(folder, record.Record(last, tuple(previous[: keep - 1]), best))


def flush_logs(folder: Path) -> dict[str, int]:
    """Have the disk hold the logs of a run folder; returns their sizes in bytes."""
    for name in LOGS:
        storage.flush(folder / name)
    storage.flush(folder)  # the names: of the logs, and of the folder of checkpoints
    return {name: storage.size(folder / name) for name in LOGS}


def capture(run: Run) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of a run: tensors by name, and JSON for the header."""
    tensors, optim = checkpoint.optimizer_state(run.model, run.optimizer)
    tensors |= {f"model/{name}": value for name, value in run.model.state_dict().items()}
    if run.ema is not None:
        tensors |= {f"ema/{name}": value for name, value in run.ema.model.state_dict().items()}
    progress: dict[str, Any] = {"epoch": run.epoch, "step": run.step}
    if run.sums is not None:
        sums, progress["counts"] = run.sums.state()
        tensors |= {f"meter/{name}": value for name, value in sums.items()}
    monitor = run.monitor
    return tensors, {
        "progress": progress,
        "monitor": {
            "metric": monitor.metric,
            "mode": monitor.mode,
            "best": monitor.best,
            "best_loss": monitor.best_loss if math.isfinite(monitor.best_loss) else None,
            "best_epoch": monitor.best_epoch,
            "history": run.history,
        },
        "optim": optim,
        "scaler": None if run.scaler is None else run.scaler.state_dict(),
        "skipped": {"bad": int(run.guard.bad), "first": int(run.guard.first)},
    }


def restore(run: Run, tensors: dict[str, torch.Tensor], header: dict[str, Any], path: Path) -> None:
    """Put a checkpoint's state into a freshly built run. Raises CheckpointError when it is another model's."""
    checkpoint.load_weights(run.model, tensors, "model/", path)
    if run.ema is not None:
        checkpoint.load_weights(run.ema.model, tensors, "ema/", path)
    checkpoint.load_optimizer(run.model, run.optimizer, tensors, header["optim"], path)
    if run.scaler is not None and header["scaler"] is not None:
        run.scaler.load_state_dict(header["scaler"])
    progress, monitor, skipped = header["progress"], header["monitor"], header["skipped"]
    run.epoch, run.step = progress["epoch"], progress["step"]
    if "counts" in progress:
        run.sums = run.meter(False)
        sums = {name.removeprefix("meter/"): value for name, value in tensors.items() if name.startswith("meter/")}
        run.sums.restore(sums, progress["counts"])
    run.monitor.best = monitor["best"]
    run.monitor.best_loss = math.inf if monitor["best_loss"] is None else monitor["best_loss"]
    run.monitor.best_epoch = monitor["best_epoch"]
    run.history[:] = monitor["history"]
    run.guard.steps.fill_(run.step)
    run.guard.bad.fill_(skipped["bad"])
    run.guard.first.fill_(skipped["first"])
