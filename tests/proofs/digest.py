"""What two runs must share when they are the same, as digests: a run's tensors, judgements, logs and result."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from trainkit.checkpoints import checkpoint, record
from trainkit.run_folders.rundir import read_status

TIMES = ("time", "at", "train_seconds", "data_wait")  # seconds, which no two runs share
JUDGEMENTS = ("progress", "monitor", "metrics", "optim", "skipped", "scaler")
Facts = dict[str, str]


def facts(run: Path, *, steps: bool = True) -> Facts:
    """The digest of each part of a finished run, by name, so that a difference says where it is.

    Each tensor of the last and the best checkpoint (dtype, shape, bytes), what their headers judge and count, whether
    the links lead to them, each line of metrics.jsonl and results.csv without times, and the result. steps: with the
    lines of single steps, which are others when `log_every` is.
    """
    known = record.read(run / "checkpoints")
    assert known is not None
    found: Facts = {}
    for role, entry in (("last", known.last), ("best", known.best)):
        if entry is not None:
            tensors, header = checkpoint.load(run / "checkpoints" / entry.file)
            found |= {f"{role} {name}": of_tensor(tensor) for name, tensor in tensors.items()}
            found |= {f"{role} {name}": of_json(header[name]) for name in JUDGEMENTS}
            link = (run / "checkpoints" / f"{role}.safetensors").resolve()
            found[f"{role} link"] = "right" if link.name == entry.file else f"leads to {link.name}"
    for line in measurements(run / "metrics.jsonl"):
        if steps or line["event"] != "step":
            name = f"metrics.jsonl {line['event']} {line.get('step', '')}"
            found[name] = of_json([found.get(name), line])  # a line that is there twice is a difference
    found["results.csv"] = of_json(table(run / "results.csv"))
    found["result"] = of_json(read_status(run).get("result"))
    return found


def digest(run: Path) -> str:
    """One SHA-256 of all facts."""
    return of_json(facts(run))


def of_tensor(tensor: torch.Tensor) -> str:
    """Of its dtype, shape and bytes."""
    content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + content).hexdigest()


def of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def measurements(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without times."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines(path)]


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    """The rows of results.csv without times."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]
