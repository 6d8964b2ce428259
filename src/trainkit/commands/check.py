"""`trainkit check`: read a whole data set as training would, and say all that is wrong with it. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trainkit import registry
from trainkit.config.words import common_flags, train_config
from trainkit.console.columns import UNLIMITED, fitted, lines_of, prose_width
from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.tasks.base import reading_task
from trainkit.text import say, say_json

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


def check(argv: Sequence[str]) -> int:
    """Print what is found. Raises DataError with everything that would break training."""
    flags = common_flags("check").read(argv)
    config = train_config(flags)
    from trainkit.data.audit import Audit, audit
    from trainkit.data.checks import refuse_other_kinds
    from trainkit.machine import default_data_dir

    try:
        builder = registry.get("dataset", config.dataset.name).build
        found = builder(config.data_dir or default_data_dir(), config.split_seed, **config.dataset.arguments)
        refuse_other_kinds(found, config.dataset.name)
        known = {"val_fraction": config.val_fraction, "split_seed": config.split_seed}
        holdout = registry.get("holdout", config.holdout.name).make(known, config.holdout.arguments)
        result = audit(found, holdout)
    except DataError as fault:
        result = Audit({"name": config.dataset.name}, errors=list(fault.problems))
    if flags.json:
        say_json({**result.facts, "errors": result.errors, "warnings": result.warnings}, indent=2)
    else:
        if "splits" in result.facts:
            say(*report(result.facts, result.warnings, prose_width()))
        if not result.errors:
            count = len(result.warnings)
            say(f"nothing would stop training; {count or 'no'} warning{'' if count == 1 else 's'}")
    if result.errors:
        raise DataError(*result.errors)
    return 0


def report(facts: dict[str, Any], warnings: list[str], width: int) -> list[str]:
    """The facts as lines for a person."""
    splits = facts["splits"]
    sizes = ", ".join(f"{name} {splits[name]['samples']:,}" for name in ("train", "val", "test") if name in splits)
    lines = [f"{facts['name']} {'x'.join(map(str, facts['shape']))}, {facts['task']}: {sizes} samples"]
    target = TargetSpec(facts["task"], facts["classes"])
    table = reading_task(target.task).table(splits, target)
    if table is not None:
        lines += ["", *lines_of([table.heads, *table.rows], [True] + [False] * (len(table.heads) - 1), UNLIMITED)]
        lines += [table.note] if table.note else []
    for name, split in splits.items():
        lines += _file_sizes(name, split.get("sizes", []))
    duplicates = facts["duplicates"]
    copies = ", ".join(f"{name} {count:,}" for name, count in duplicates["within"].items())
    across = ", ".join(f"{pair} {found['contents']:,}" for pair, found in duplicates["across"].items())
    lines += ["", f"copies within a split: {copies}", f"the same across splits: {across or 'none'}"]
    lines += [f"the same with different targets: {facts['conflicts']['contents'] or 'none'}", ""]
    lines += [f"warning: {text}" for text in warnings]
    return [part for line in lines for part in fitted(line, width)]


def _file_sizes(split: str, sizes: list[dict[str, Any]]) -> list[str]:
    if not sizes:
        return []
    shown = [
        f"{kind['files']:,} {kind['format']} {kind['mode']} {kind['width']}x{kind['height']}" for kind in sizes[:5]
    ]
    more = f", and {len(sizes) - 5} other kinds" if len(sizes) > 5 else ""
    return [f"files of {split}: {', '.join(shown)}{more}"]
