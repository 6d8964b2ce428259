"""`trainkit plan`: what `trainkit train` with the same words would do, measured, without doing it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from trainkit.config.words import common_flags, train_config
from trainkit.errors import ConfigError, TrainkitError
from trainkit.text import say_json

HELP = """\
usage: trainkit plan [group=option …] [key=value …] [flags]

What `trainkit train` with the same words would do: layers, parameters, FLOPs, memory, the lr over the steps, the time
from a few timed steps, and warnings. Trains nothing that is kept and writes no run folder.

examples:
  trainkit plan
  trainkit plan dataset=mnist model=cnn optim=adam epochs=3
  trainkit plan model=cnn optim=adam --lr-range --plot lr.png
      try learning rates over seven decades in 300 steps
  trainkit plan model=cnn device=cuda --max-batch --memory 2GB
      the largest batch whose step fits, tested

flags:
  --lr-range               train a little with a growing lr; says where the loss falls fastest
  --plot FILE.png          the sweep of --lr-range as a picture
  --max-batch              the largest batch that fits on a CUDA device, tested by real steps
  --memory SIZE            what --max-batch may use, as in 2GB or 500MB; default: what is free
  --json                   the result as JSON on stdout
  -cd, --config-dir DIR    config files of your own
  -cn, --config-name NAME  compose NAME.yaml of such a folder instead"""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def plan(argv: Sequence[str]) -> int:
    """Print the plan of a training run. Raises what building and trying that run raises."""
    parser = common_flags("plan")
    parser.add_argument("--lr-range", action="store_true")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--max-batch", action="store_true")
    parser.add_argument("--memory")
    flags = parser.read(argv)
    memory = parse_size(flags.memory) if flags.memory is not None else None
    check_flags(flags)
    config = train_config(flags)
    from trainkit.launch.outcome import refusal
    from trainkit.planning.measure import measure
    from trainkit.planning.text import show

    try:
        facts = measure(config, flags, memory)
    except TrainkitError:
        raise
    except Exception as error:
        known = refusal(error, config)
        if known is None:
            raise
        raise known from error
    if flags.json:
        from trainkit.loggers.sinks import finite

        say_json(finite(facts), indent=2)
    else:
        show(facts)
    return 0


def parse_size(text: str) -> int:
    """Bytes of a size such as 2GB, 500 MB or 1.5GiB. Raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)", text.strip().upper())
    unit = match[2] if match else "?"
    unit = unit if unit in UNITS else f"{unit}B"
    if match is None or unit not in UNITS or float(match[1]) == 0:
        raise ConfigError(f"--memory {text}: expected a size such as 2GB, 500MB or 1.5GiB")
    return int(float(match[1]) * UNITS[unit])


def check_flags(flags: argparse.Namespace) -> None:
    """Raise ConfigError for flags that would have no effect, and for a picture that could not be drawn or written."""
    if flags.memory is not None and not flags.max_batch:
        raise ConfigError("--memory is the limit of --max-batch: add --max-batch")
    if flags.plot is None:
        return
    if not flags.lr_range:
        raise ConfigError("--plot draws the sweep of --lr-range: add --lr-range")
    if not flags.plot.absolute().parent.is_dir():
        raise ConfigError(f"--plot {flags.plot}: there is no folder {flags.plot.absolute().parent}")
