"""`trainkit check`: read a whole data set as training would, and say all that is wrong with it. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trainkit import registry
from trainkit.config.words import common_flags, train_config
from trainkit.errors import DataError
from trainkit.report.columns import fitted, prose_width
from trainkit.safety import visible

HELP = """\
usage: trainkit check [group=option …] [key=value …] [flags]

Reads every sample of a data set, in the splits that `trainkit train` with the same words would make: unreadable
files, values that are not finite, sizes, the classes of each split, copies within and across splits, equal samples
with different labels, constant columns, images that show nothing. Exit code 3 when something would break training,
else 0.

examples:
  trainkit check
  trainkit check dataset=folder dataset.root=photos
  trainkit check dataset=npz dataset.file=data.npz --json

flags:
  --json                   everything found as JSON on stdout
  -cd, --config-dir DIR    config files of your own
  -cn, --config-name NAME  compose NAME.yaml of such a folder instead"""

CLASSES_SHOWN = 20


def check(argv: Sequence[str]) -> int:
    """Print what is found. Raises DataError with everything that would break training."""
    flags = common_flags("check").read(argv)
    config = train_config(flags)
    from trainkit.data.audit import Audit, audit
    from trainkit.data.machine import default_data_dir

    try:
        builder = registry.get("dataset", config.dataset.name).build
        found = builder(config.data_dir or default_data_dir(), config.split_seed, **config.dataset.arguments)
        result = audit(found, config.val_fraction, config.split_seed)
    except DataError as fault:
        result = Audit({"name": config.dataset.name}, errors=list(fault.problems))
    if flags.json:
        print(json.dumps({**result.facts, "errors": result.errors, "warnings": result.warnings}, indent=2))
    else:
        width = prose_width()
        for line in report(result.facts, result.warnings, width) if "splits" in result.facts else []:
            print(visible(line))
        if not result.errors:
            count = len(result.warnings)
            print(f"nothing would stop training; {count or 'no'} warning{'' if count == 1 else 's'}")
    if result.errors:
        raise DataError(*result.errors)
    return 0


def report(facts: dict[str, Any], warnings: list[str], width: int) -> list[str]:
    """The facts as lines for a person."""
    splits = facts["splits"]
    sizes = ", ".join(f"{name} {splits[name]['samples']:,}" for name in ("train", "val", "test") if name in splits)
    lines = [f"{facts['name']} {'x'.join(map(str, facts['shape']))}, {facts['task']}: {sizes} samples"]
    if facts["classes"] is not None:
        lines += ["", *_class_table(facts["classes"], splits)]
    elif facts["task"] == "regression":
        lines += ["", *_target_table(splits)]
    for name, split in splits.items():
        lines += _file_sizes(name, split.get("sizes", []))
    duplicates = facts["duplicates"]
    copies = ", ".join(f"{name} {count:,}" for name, count in duplicates["within"].items())
    across = ", ".join(f"{pair} {found['contents']:,}" for pair, found in duplicates["across"].items())
    lines += ["", f"copies within a split: {copies}", f"the same across splits: {across or 'none'}"]
    lines += [f"the same with different targets: {facts['conflicts']['contents'] or 'none'}", ""]
    for text in warnings:
        lines.append(f"warning: {text}")
    return [part for line in lines for part in fitted(line, width)]


def _class_table(classes: list[str], splits: dict[str, Any]) -> list[str]:
    """A row for each class; of many classes the most and the least frequent in train."""
    counts = {name: split.get("class_counts", [0] * len(classes)) for name, split in splits.items()}
    chosen = list(range(len(classes)))
    if len(classes) > CLASSES_SHOWN:
        by_count = sorted(chosen, key=lambda label: -counts["train"][label])
        chosen = by_count[: CLASSES_SHOWN // 2] + by_count[-CLASSES_SHOWN // 2 :]
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in (classes[label] for label in chosen)]
    rows = [["class", *counts]]
    for label, name in zip(chosen, names, strict=True):
        rows.append([name, *(f"{counts[split][label]:,}" for split in counts)])
    left_out = len(classes) - len(chosen)
    more = [f"{left_out} classes in between are left out; --json has them"] if left_out else []
    return [*_table(rows), *more]


def _target_table(splits: dict[str, Any]) -> list[str]:
    rows = [["target", "split", "min", "mean", "max"]]
    for name, split in splits.items():
        for index, target in enumerate(split.get("targets", [])[:CLASSES_SHOWN]):
            rows.append([str(index), name, *(f"{target[key]:.4g}" for key in ("min", "mean", "max"))])
    return _table(rows)


def _file_sizes(split: str, sizes: list[dict[str, Any]]) -> list[str]:
    if not sizes:
        return []
    shown = [
        f"{kind['files']:,} {kind['format']} {kind['mode']} {kind['width']}x{kind['height']}" for kind in sizes[:5]
    ]
    more = f", and {len(sizes) - 5} other kinds" if len(sizes) > 5 else ""
    return [f"files of {split}: {', '.join(shown)}{more}"]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join([f"{row[0]:{widths[0]}}"] + [f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True)])
        for row in rows
    ]
