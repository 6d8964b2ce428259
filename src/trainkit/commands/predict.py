"""`trainkit predict`: what a checkpoint's model says of new inputs, without the data set that it was trained on."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainkit import storage
from trainkit.building import components
from trainkit.config.frame import Predict
from trainkit.console.console import Console
from trainkit.data.placement import default_workers
from trainkit.data.spec import TargetSpec
from trainkit.errors import ConfigError, DataError, ResourceError
from trainkit.predict import inputs, rows
from trainkit.predict.inputs import Batch
from trainkit.predict.model import Outputs, build_outputs, restore_model
from trainkit.predict.writers import FORMATS, Fields, Row, Stream
from trainkit.run_folders import rundir
from trainkit.tasks.base import task_of
from trainkit.tasks.scores import THRESHOLD
from trainkit.text import pass_on, say
from trainkit.training.signals import Stop
from trainkit.training.speed import mirrored

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SHOWN = 20  # failures that are told one by one


def predict(config: Predict, *, as_json: bool) -> None:
    """Write a row for each input, in their order, to `output` or stdout.

    Raises DataError at the end when an input could not be read; all other rows are then written.
    """
    kind = choose_format(config, as_json)
    arguments = [config.input] if isinstance(config.input, str) else config.input
    if config.output is not None:
        storage.check_output(config.output, config.overwrite)
    device = components.build_device(config)
    model, spec, header = restore_model(config.model, config.ckpt)
    if len(spec.inputs) > 1:
        raise ConfigError(f"predict is for models of one input, this one takes {', '.join(spec.inputs)}")
    task = task_of(spec.target)
    if config.topk > 1 and not task.ranks:
        raise ConfigError(f"topk={config.topk}: a {task.name} model does not choose one of its classes; leave topk out")
    threshold = threshold_of(config, spec.target, header)
    inputs.check(arguments, spec.input)
    workers = default_workers(device) if config.workers == "auto" else config.workers
    mirror = components.mirrors(config, spec, "of the model")
    forward = components.build_forward(config, model.to(device), spec, device)
    outputs_of = build_outputs(mirrored(forward) if mirror else forward, spec, device, config.seed)
    numbered = any(map(rows.table_suffix, arguments))
    columns: Fields = {"input": str, **({"row": int} if numbered else {}), **task.fields(spec.target, topk=config.topk)}
    done = failed = 0
    stop = Stop()
    with (
        stop.catching(),
        stop.deferred(),
        destination(config.output) as stream,
        FORMATS[kind](stream, columns | {"error": str}) as write,
    ):
        for batch in inputs.read(arguments, spec.input, config.batch_size, workers, by_position=config.by_position):
            found = predicted(batch, outputs_of, spec.target, config.topk, threshold)
            write(found)
            done += len(found)
            for row in found:
                if row["error"] is not None:
                    failed += 1
                    say_failure(row, failed)
            stop.check()
    if config.output is not None:
        console = Console(live=False, as_json=as_json)
        if as_json:
            result = {"output": str(config.output), "ckpt": str(config.ckpt), "inputs": done, "failed": failed}
            console.say_json(result)
        console.say(f"{rundir.shown(config.output)}: {done:,} inputs, {failed:,} failed")
    if failed:
        rest = "; the others are done" if failed < done else ""
        raise DataError(f"{failed:,} of {done:,} inputs could not be predicted{rest}")


def choose_format(config: Predict, as_json: bool) -> str:
    """The format asked for, else that of the output's suffix. Raises ConfigError for what cannot be."""
    if config.output is not None:
        return storage.format_of(config.output, config.format, SUFFIXES)
    if config.format == "parquet":
        raise ConfigError("format=parquet needs a file: add output=FILE")
    if as_json and config.format == "csv":
        raise ConfigError("--json and format=csv contradict each other: leave one out, or add output=FILE")
    return config.format or ("jsonl" if as_json else "csv")


class Screen(io.RawIOBase):
    """A terminal as a place for rows: whole lines of UTF-8, which it only shows."""

    def write(self, content: Any) -> int:
        pass_on(bytes(content).decode())
        return len(content)


@contextlib.contextmanager
def destination(output: Path | None) -> Iterator[Stream]:
    """Where the bytes go: the output file, which appears when all is written, or stdout."""
    if output is not None:
        with storage.replacing(output) as file:
            yield file
        return
    try:
        yield Screen() if sys.stdout.isatty() else sys.stdout.buffer
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails once more at exit
        raise ResourceError(f"cannot write to stdout ({error.strerror})") from error


def threshold_of(config: Predict, target: TargetSpec, header: dict[str, Any]) -> float | None:
    """The probability from which on the second of two classes is the answer; None: the likeliest is.

    Raises ConfigError where one is asked for and there are not two classes.
    """
    if config.threshold != "stored":
        if config.threshold is not None and len(target.classes or []) != 2:
            raise ConfigError(f"threshold={config.threshold}: it decides between two classes; leave threshold out")
        return config.threshold
    metrics = header.get("metrics")
    found = (metrics.get("val") or {}).get(THRESHOLD.name) if isinstance(metrics, dict) else None
    if not isinstance(found, float) or not 0 <= found <= 1:
        return None
    second = (target.classes or ["", ""])[1]
    told = f"{second} from a probability of {found:.3g} on, as suited val best; threshold=null takes the likeliest"
    say(f"note: {told}", stream=sys.stderr)
    return found


def predicted(batch: Batch, outputs_of: Outputs, target: TargetSpec, topk: int, threshold: float | None) -> list[Row]:
    """The rows of a batch, with an error for what could not be read, or gave no finite number."""
    readings: Iterator[Row] = iter(())
    if len(batch.values):
        told = outputs_of(torch.from_numpy(batch.values))
        finite = torch.isfinite(told).flatten(1).all(dim=1).tolist()
        task = task_of(target)
        if threshold is None:
            rows = task.rows(told, target, topk=topk)
        else:
            rows = task.rows_by_threshold(told, target, topk=topk, threshold=threshold)
        bad = {"error": "the model's output is not finite"}
        readings = iter([row if good else bad for row, good in zip(rows, finite, strict=True)])
    found = []
    for name, number, error in zip(batch.names, batch.rows, batch.errors, strict=True):
        # A name that is no UTF-8 text (it holds surrogates) is shown with � where it is not.
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        found.append({"input": shown, "row": number, "error": error, **({} if error else next(readings))})
    return found


def say_failure(row: Row, number: int) -> None:
    """Say on stderr why an input has no prediction; from the 21st on only that there are more."""
    where = row["input"] if row["row"] is None else f"{row['input']}: row {row['row']}"
    if number <= _SHOWN:
        say(f"trainkit: error: {where}: {row['error']}", stream=sys.stderr)
    elif number == _SHOWN + 1:
        say("trainkit: error: … and more; the column error has them all", stream=sys.stderr)
