"""The recipe `cifar10_speedrun` by trainkit's command, with several seeds: seconds and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.options import BF16
from bench.processes import trained
from bench.sections import Say, Section, interleave

ROWS = {"bf16 + channels_last": BF16, "the same, compile": (*BF16, "compile=default")}


def speedrun_section(data_dir: Path, seeds: int, say: Say, more: Sequence[str] = ()) -> Section:
    """Every row once for each seed. more: overrides on top."""
    words = ["experiment=cifar10_speedrun", "dataset=folder", f"dataset.root={data_dir / 'cifar10'}", *more]
    measures = {
        row: (lambda seed, options=options: trained([*words, *options, f"seed={seed}"]))
        for row, options in ROWS.items()
    }
    section = Section("speedrun", "recipe", "CIFAR-10 from JPEG files, experiment=cifar10_speedrun")
    interleave(section, measures, seeds, say)
    return section
