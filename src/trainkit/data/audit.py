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
from trainkit.data.files import Files
from trainkit.data.splits import Array, Data, Source, Split, hold_out
from trainkit.errors import DataError

BATCH = 256
EXAMPLES = 5  # pairs of duplicates that are named
FEW = 10  # samples of a class in train, below which it is hardly learnt
SKEW = 10  # times more samples of the most frequent class than of the least


@dataclasses.dataclass
class Audit:
    """What was found, as JSON data, and in words: `errors` would break training, `warnings` would not."""

    facts: dict[str, Any]
    errors: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)


def audit(found: Data | Source, val_fraction: float, split_seed: int) -> Audit:
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
        hold_out(data, "val", val_fraction, split_seed)
        finish(data)
    except DataError as fault:
        result.errors += fault.problems
    data.splits = {name: data.splits[name] for name in ("train", "val", "test") if name in data.splits}
    result.warnings += [note for note in data.notes if "could not be read" not in note]
    result.facts |= {"name": data.name, "task": data.task, "classes": data.classes, "shape": list(data.in_shape)}
    result.facts["splits"] = {name: _facts(split, data) for name, split in data.splits.items()}
    _judge_classes(data, result)
    _judge_values(data, result)
    _judge_contents(data, result)
    return result


def _facts(split: Split, data: Data) -> dict[str, Any]:
    """Samples, targets and sizes of a split."""
    facts: dict[str, Any] = {"samples": len(split)}
    targets = split.targets
    if not len(split):
        return facts
    if data.task == "classification" and data.classes is not None:
        inside = targets[(targets >= 0) & (targets < len(data.classes))]
        facts["class_counts"] = np.bincount(inside, minlength=len(data.classes)).tolist()
    elif data.task == "regression":
        facts["targets"] = [
            {"min": float(column.min()), "mean": float(column.mean()), "max": float(column.max())}
            for column in targets.T.astype(np.float64)
        ]
    else:
        facts["class_counts"] = [round(float(total), 3) for total in targets.sum(axis=0)]
    if isinstance(split.inputs, Files):
        facts["sizes"] = _sizes(split.inputs)
    return facts


def _sizes(files: Files) -> list[dict[str, Any]]:
    """Format, colour mode, width and height of the files as they are on the disk, the most frequent first."""
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


def _judge_classes(data: Data, result: Audit) -> None:
    """Classes with few samples, and a skew between them. That some are missing is in the notes already."""
    if data.task != "classification" or data.classes is None:
        return
    counts = np.array(result.facts["splits"]["train"].get("class_counts", []))
    present = counts[counts > 0]
    few = [name for name, count in zip(data.classes, counts, strict=False) if 0 < count < FEW]
    if few:
        result.warnings.append(f"train has fewer than {FEW} samples of {_listed(few)}")
    if len(present) and present.max() >= SKEW * present.min():
        most, least = data.classes[int(counts.argmax())], data.classes[int(np.where(counts, counts, 1 << 62).argmin())]
        result.warnings.append(
            f"classes are uneven in train: {present.max():,} of {most}, {present.min():,} of {least}; "
            "judge by macro_f1 rather than accuracy"
        )
    repeated = [name for name, count in Counter(data.classes).items() if count > 1]
    if repeated:
        result.warnings.append(f"classes of the same name: {_listed(repeated)}")


def _judge_values(data: Data, result: Audit) -> None:
    """Columns that carry nothing."""
    train = data.splits["train"]
    inputs = train.inputs
    if isinstance(inputs, Files) or not len(train):
        return
    if inputs.ndim == 2:
        low, high = inputs.min(axis=0), inputs.max(axis=0)
        constant = np.flatnonzero(low == high)
        if len(constant):
            result.warnings.append(f"constant in train: columns {_listed(constant.tolist())}")
        result.facts["columns"] = {"min": low.tolist(), "max": high.tolist()}
    if data.task == "regression":
        flat = np.flatnonzero(train.targets.min(axis=0) == train.targets.max(axis=0))
        if len(flat):
            result.warnings.append(f"constant in train: targets {_listed(flat.tolist())}")


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
        targets = [data.splits[names[split_of[p]]].targets[row_of[p]] for p in group]
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
    digests: list[Array] = [np.empty((0, 2), np.int64)]
    spans: list[exposure.Ranges] = []
    for batch in _batches(split):
        digests += [
            np.frombuffer(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), np.int64)[None] for row in batch
        ]
        if batch.dtype == np.uint8 and batch.ndim == 4:
            spans.append(exposure.ranges(batch))
    return np.concatenate(digests), np.concatenate(spans) if spans else None


def _batches(split: Split) -> Iterator[Array]:
    bounds = [(start, min(start + BATCH, len(split))) for start in range(0, len(split), BATCH)]
    if isinstance(split.inputs, Files):
        yield from split.inputs.batches([np.arange(start, end) for start, end in bounds])
        return
    for start, end in bounds:
        yield split.inputs[start:end]


def _listed(items: list[Any]) -> str:
    return ", ".join(map(str, items[:10])) + (", …" if len(items) > 10 else "")
