"""`trainkit predict`: what a checkpoint's model says of new inputs, without the data set that it was trained on."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from trainkit import build, losses, rundir, storage
from trainkit.config.frame import Predict
from trainkit.data import inputs, rows
from trainkit.data.inputs import Batch
from trainkit.data.loaders import Normalize
from trainkit.data.placement import default_workers
from trainkit.data.splits import Data
from trainkit.errors import ConfigError, DataError, ResourceError
from trainkit.report.console import Console
from trainkit.report.rows import FORMATS, Fields, Row, Stream
from trainkit.safety import pass_on, say
from trainkit.signals import Stop

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_SHOWN = 20  # failures that are told one by one
_LIKELY = 0.5  # from this probability on a multilabel model says yes

Outputs = Callable[[torch.Tensor], torch.Tensor]


def predict(config: Predict, *, as_json: bool) -> None:
    """Write a row for each input, in their order, to `output` or stdout.

    Raises DataError at the end when an input could not be read; all other rows are then written.
    """
    kind = choose_format(config, as_json)
    arguments = [config.input] if isinstance(config.input, str) else config.input
    if config.output is not None:
        storage.check_output(config.output, config.overwrite)
    device = build.build_device(config)
    model, data, _ = build.restore_model(config.model, config.ckpt)
    if config.topk > 1 and data.task in ("regression", "multilabel"):
        raise ConfigError(f"topk={config.topk}: a {data.task} model does not choose one of its classes; leave topk out")
    inputs.check(arguments, data)
    workers = default_workers(device) if config.workers == "auto" else config.workers
    outputs_of = build_outputs(config, model, data, device)
    columns = fields(data, config.topk, numbered=any(map(rows.table_suffix, arguments)))
    done = failed = 0
    stop = Stop()
    with (
        stop.catching(),
        stop.deferred(),
        destination(config.output) as stream,
        FORMATS[kind](stream, columns) as write,
    ):
        for batch in inputs.read(arguments, data, config.batch_size, workers, by_position=config.by_position):
            found = predicted(batch, outputs_of, data, config.topk)
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


def build_outputs(config: Predict, model: torch.nn.Module, data: Data, device: torch.device) -> Outputs:
    """Raw inputs on the host -> what the rows tell, float32 on the host.

    Probabilities (N, C); of a regression, predictions (N, T) in the targets' own unit.
    """
    mirror = build.mirrors(config, data)
    forward = build.build_forward(config, model.to(device), device)
    normalize = Normalize(data, device)

    @torch.inference_mode()
    def outputs_of(raw: torch.Tensor) -> torch.Tensor:
        batch = normalize.inputs(raw.to(device))
        outputs = forward(batch)
        if mirror:
            outputs = (outputs + forward(batch.flip(-1))) / 2
        if data.task == "regression":
            return normalize.predictions(outputs).cpu()
        return losses.probabilities(outputs, data.task).cpu()

    return outputs_of


def fields(data: Data, topk: int, numbered: bool) -> Fields:
    """The columns of the output, with their types. numbered: inputs are rows of tables."""
    columns: Fields = {"input": str, **({"row": int} if numbered else {})}
    if data.classes is None:
        columns |= dict.fromkeys(_targets(data), float)
    elif data.task == "multilabel":
        columns |= {"classes": list, **dict.fromkeys(_labels(data), float)}
    else:
        for place in range(min(topk, len(data.classes))):
            columns |= {f"class{_nth(place)}": str, f"probability{_nth(place)}": float}
    return columns | {"error": str}


def _nth(place: int) -> str:
    return f"_{place + 1}" if place else ""


def _targets(data: Data) -> list[str]:
    return ["prediction"] if data.num_outputs == 1 else [f"prediction_{index}" for index in range(data.num_outputs)]


def _labels(data: Data) -> list[str]:
    return [f"probability_{name}" for name in data.classes or []]


def predicted(batch: Batch, outputs_of: Outputs, data: Data, topk: int) -> list[Row]:
    """The rows of a batch, with an error for what could not be read, or gave no finite number."""
    readings: Iterator[Row] = iter(())
    if len(batch.values):
        readings = iter(_readings(outputs_of(torch.from_numpy(batch.values)), data, topk))
    found = []
    for name, number, error in zip(batch.names, batch.rows, batch.errors, strict=True):
        # A name that is no UTF-8 text (it holds surrogates) is shown with � where it is not.
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        found.append({"input": shown, "row": number, "error": error, **({} if error else next(readings))})
    return found


def _readings(outputs: torch.Tensor, data: Data, topk: int) -> list[Row]:
    finite = torch.isfinite(outputs).all(dim=1).tolist()
    if data.classes is None:
        found = [dict(zip(_targets(data), values, strict=True)) for values in outputs.tolist()]
    elif data.task == "multilabel":
        found = [
            _yes(values, data.classes) | dict(zip(_labels(data), values, strict=True)) for values in outputs.tolist()
        ]
    else:
        best, index = outputs.topk(min(topk, len(data.classes)), dim=1)
        pairs = zip(best.tolist(), index.tolist(), strict=True)
        found = [_likeliest(values, [data.classes[i] for i in labels]) for values, labels in pairs]
    return [
        row if good else {"error": "the model's output is not finite"} for row, good in zip(found, finite, strict=True)
    ]


def _yes(values: list[float], classes: list[str]) -> Row:
    return {"classes": [name for name, value in zip(classes, values, strict=True) if value >= _LIKELY]}


def _likeliest(values: list[float], names: list[str]) -> Row:
    row: dict[str, Any] = {}
    for place, (name, value) in enumerate(zip(names, values, strict=True)):
        row |= {f"class{_nth(place)}": name, f"probability{_nth(place)}": value}
    return row


def say_failure(row: Row, number: int) -> None:
    """Say on stderr why an input has no prediction; from the 21st on only that there are more."""
    where = row["input"] if row["row"] is None else f"{row['input']}: row {row['row']}"
    if number <= _SHOWN:
        say(f"trainkit: error: {where}: {row['error']}", stream=sys.stderr)
    elif number == _SHOWN + 1:
        say("trainkit: error: … and more; the column error has them all", stream=sys.stderr)
