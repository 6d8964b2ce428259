"""Reading a whole data set to say what is wrong with it. Memory: a digest a sample, and a batch of images at a time.

Errors would break training; warnings make its numbers mean less than they seem to. Duplicates are samples whose
content, as the model gets it (decoded and resized pixels, or the numbers of a row), is the same byte for byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainkit.data import exposure
from trainkit.data.checks import finish
from trainkit.data.dataset import Data, Source
from trainkit.data.holdout import Holdout, hold_out_val
from trainkit.data.images.files import Files
from trainkit.data.spec import INPUT, TARGET, named
from trainkit.data.splits import Array, Split, in_memory
from trainkit.errors import DataError
from trainkit.tasks.base import listed, task_of

BATCH = 256
EXAMPLES = 5  # pairs of duplicates that are named


@dataclasses.dataclass
class Audit:
    """What was found, as JSON data, and in words: `errors` would break training, `warnings` would not."""

    facts: dict[str, Any]
    errors: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def audit(found: Data | Source, holdout: Holdout) -> Audit:
    """Read everything of a data set, in the splits that training would make, and judge it."""
    result = Audit({})
    if isinstance(found, Data):
        data = found
    else:
        data, bad = found.surveyed()
        result.facts["unreadable"] = [{"path": path, "reason": reason} for path, reason in bad]
        said = [f"{path}: not a readable image ({reason})" for path, reason in bad]
        (result.errors if found.on_bad == "fail" else result.warnings).extend(said)
    try:
        hold_out_val(data, holdout)
        finish(data)
    except DataError as fault:
        result.errors += fault.problems
    data.splits = {name: data.splits[name] for name in ("train", "val", "test") if name in data.splits}
    result.warnings += [note for note in data.notes if "could not be read" not in note]
    target = data.spec.target
    result.facts |= {
        "name": data.name,
        "task": target.task,
        "classes": target.classes,
        "shape": list(data.spec.in_shape),
    }
    result.facts["splits"] = {name: _facts(split, data) for name, split in data.splits.items()}
    _judge_targets(data, result)
    _judge_values(data, result)
    _judge_contents(data, result)
    return result


def _facts(split: Split, data: Data) -> dict[str, Any]:
    """Samples, targets and sizes of a split."""
    facts: dict[str, Any] = {"samples": len(split)}
    if not len(split):
        return facts
    for name, target in data.spec.targets.items():
        column = named(split.targets, TARGET)[name]
        if in_memory(column):
            facts |= task_of(target).summary(column, target)
    for column in named(split.inputs, INPUT).values():
        if isinstance(column, Files):
            facts["sizes"] = _sizes(column)
    return facts


def _sizes(files: Files) -> list[dict[str, Any]]:
    """Format, color mode, width and height of the files as they are on the disk, the most frequent first."""
    from PIL import Image

    counts: Counter[tuple[str, str, int, int]] = Counter()
    for path in files.paths:
        try:
            with Image.open(path) as image:
                counts[image.format or "?", image.mode, *image.size] += 1
        except (OSError, ValueError, Image.DecompressionBombError):  # gone or changed since it was decoded
            counts["?", "?", 0, 0] += 1
    names = ("format", "mode", "width", "height", "files")
    return [dict(zip(names, (*kind, count), strict=True)) for kind, count in counts.most_common()]


def _judge_targets(data: Data, result: Audit) -> None:
    """What each task finds odd in its targets."""
    for name, target in data.spec.targets.items():
        columns = {split: named(part.targets, TARGET)[name] for split, part in data.splits.items() if len(part)}
        known = {split: column for split, column in columns.items() if in_memory(column)}
        if "train" in known:
            result.warnings += task_of(target).warnings(known, target)


def _judge_values(data: Data, result: Audit) -> None:
    """Columns that carry nothing."""
    train = data.splits["train"]
    for name, spec in data.spec.inputs.items():
        values = named(train.inputs, INPUT)[name]
        if not in_memory(values) or not len(train):
            continue
        if spec.kind == "features":
            low, high = values.min(axis=0), values.max(axis=0)
            constant = np.flatnonzero(low == high)
            if len(constant):
                result.warnings.append(f"constant in train: columns {listed(constant.tolist())}")
            result.facts["columns"] = {"min": low.tolist(), "max": high.tolist()}


def _judge_contents(data: Data, result: Audit) -> None:
    """Read each sample once: images that show nothing, and the same content twice."""
    read = {name: _read(split) for name, split in data.splits.items()}
    spans = {name: found for name, (_, found) in read.items() if found is not None}
    if spans:
        result.facts["pixels"], said = exposure.judge(spans, lambda split, row: _name(data, split, row))
        result.warnings += said
    _judge_duplicates(data, [digests for digests, _ in read.values()], result)


def _name(data: Data, split: str, row: int) -> str:
    known = data.splits[split].names
    return f"{split} row {row}" if known is None else str(known[row])


def _judge_duplicates(data: Data, digests: list[Array], result: Audit) -> None:
    """Samples of the same content: in one split, across splits, with different labels."""
    names = list(data.splits)
    split_of = np.concatenate([np.full(len(part), i) for i, part in enumerate(digests)])
    row_of = np.concatenate([np.arange(len(part)) for part in digests])
    _, content = np.unique(np.concatenate(digests), axis=0, return_inverse=True)
    content = content.reshape(-1)

    def name(position: int) -> str:
        return _name(data, names[split_of[position]], int(row_of[position]))

    order = np.argsort(content, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(content[order])) + 1) if len(order) else []
    groups = [group for group in groups if len(group) > 1]
    inside: Counter[str] = Counter()
    across: dict[str, list[list[str]]] = {}
    conflicts: list[list[str]] = []
    for group in groups:
        found = sorted({int(i) for i in split_of[group]})
        for i in found:
            inside[names[i]] += int((split_of[group] == i).sum()) - 1
        for i, j in itertools.combinations(found, 2):
            pair = [group[split_of[group] == i][0], group[split_of[group] == j][0]]
            across.setdefault(f"{names[i]}-{names[j]}", []).append([name(int(p)) for p in pair])
        targets = [_targets_of(data.splits[names[split_of[p]]], row_of[p]) for p in group]
        other = next((k for k, target in enumerate(targets) if not np.array_equal(target, targets[0])), None)
        if other is not None:
            conflicts.append([name(int(group[0])), name(int(group[other]))])
    result.facts["duplicates"] = {
        "within": {split: inside[split] for split in names},
        "across": {pair: {"contents": len(all_), "examples": all_[:EXAMPLES]} for pair, all_ in across.items()},
    }
    result.facts["conflicts"] = {"contents": len(conflicts), "examples": conflicts[:EXAMPLES]}
    _say_duplicates(inside, across, conflicts, result)


def _say_duplicates(
    inside: Counter[str], across: dict[str, list[list[str]]], conflicts: list[list[str]], result: Audit
) -> None:
    for pair, examples in across.items():
        first, second = pair.split("-")
        plural = "s are" if len(examples) > 1 else " is"
        result.warnings.append(
            f"{len(examples):,} sample{plural} in both {first} and {second}, which flatters the result: "
            f"{examples[0][0]} = {examples[0][1]}"
        )
    for split, count in inside.items():
        if count:
            result.warnings.append(f"{split} holds {count:,} cop{'ies' if count > 1 else 'y'} of its own samples")
    if conflicts:
        result.warnings.append(
            f"{len(conflicts):,} content{'s have' if len(conflicts) > 1 else ' has'} different targets: "
            f"{conflicts[0][0]} and {conflicts[0][1]}"
        )


def _read(split: Split) -> tuple[Array, exposure.Ranges | None]:
    """128 bits of each sample's content, int64 (N, 2); what each spans, where they are 8-bit images."""
    digests: list[Array] = []
    spans: list[exposure.Ranges] = []
    for batch in _batches(split):
        digests += [
            np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), np.int64) for content in _samples(batch)
        ]
        images = named(batch, INPUT).get(INPUT)
        if images is not None and images.dtype == np.uint8 and images.ndim == 4:
            spans.append(exposure.ranges(images))
    found = np.stack(digests) if digests else np.empty((0, 2), np.int64)
    return found, np.concatenate(spans) if spans else None


def _batches(split: Split) -> Iterator[Any]:
    """Inputs, a batch at a time."""
    starts = range(0, len(split), BATCH)
    for inputs, _ in split.batches([np.arange(start, min(start + BATCH, len(split))) for start in starts]):
        yield inputs


def _samples(batch: Any) -> Iterator[bytes]:
    """The content of each sample of a batch."""
    columns = list(named(batch, INPUT).values())
    for row in range(len(columns[0])):
        yield b"".join(column[row].tobytes() for column in columns)


def _targets_of(split: Split, row: int) -> Any:
    """The targets of a sample, as one array; empty where they are unread."""
    columns = [column for column in named(split.targets, TARGET).values() if in_memory(column)]
    return np.concatenate([np.asarray(column[row]).reshape(-1) for column in columns]) if columns else np.empty(0)
