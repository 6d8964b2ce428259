"""`trainkit plan`: what `trainkit train` with the same words would do, measured, without doing it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.config.words import common_flags, train_config
from trainkit.errors import ConfigError, TrainkitError
from trainkit.text import say, say_json

if TYPE_CHECKING:
    import torch

    from trainkit.config.frame import Train
    from trainkit.data.batch import Batch
    from trainkit.data.dataset import Data
    from trainkit.training.run import Run

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
    from trainkit.planning.text import show

    facts = make(config, flags, memory)
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


def make(config: Train, flags: argparse.Namespace, memory: int | None) -> dict[str, Any]:
    """All facts of a plan, as JSON data."""
    from trainkit import build
    from trainkit.launch.outcome import refusal

    device = build.build_device(config)
    if flags.max_batch and device.type != "cuda":
        peak = f"`peak of a step` of trainkit plan batch_size={config.batch_size} says what a batch takes"
        raise ConfigError(f"--max-batch searches on CUDA devices, and this run is on {device}: {peak}")
    data = build.build_data(config, device)
    build.mirrors(config, data.spec, data.name)
    try:
        facts = examine(config, data, device)
        if flags.lr_range:
            facts["lr_range"] = try_lrs(config, data, device, flags.plot)
        if flags.max_batch:
            facts["max_batch"] = try_batches(config, data, device, memory)
    except TrainkitError:
        raise
    except Exception as error:
        known = refusal(error, config)
        if known is None:
            raise
        raise known from error
    return facts


def examine(config: Train, data: Data, device: torch.device) -> dict[str, Any]:
    """What one build of the run shows."""
    import dataclasses

    from trainkit import build
    from trainkit.planning.advice import advise
    from trainkit.planning.layers import measure_work
    from trainkit.planning.rehearsal import rehearse
    from trainkit.training.signals import Stop

    run = build.build_run(config, data, device, Stop())
    batch = next(run.train.epoch(0))
    part = -(-len(batch) // config.accumulate)
    batch = batch.first(part)
    activations = _activations(config, data, run, batch)  # before the model is trained, and its gradients exist
    work = measure_work(run.model, run.loss_fn, batch.first(2))
    del batch
    rehearsal = rehearse(run)
    return {
        "data": _data(data),
        "model": {
            "name": config.model.name,
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "trained": sum(p.numel() for p in run.parameters),
            "layers": [dataclasses.asdict(layer) for layer in work.layers],
        },
        "flops_per_sample": {"forward": work.forward_flops, "backward": work.backward_flops},
        "memory": {**_memory(run), "activations": activations, "activations_of": part},
        **_steps(config, run),
        "monitor": {"metric": run.monitor.metric, "mode": run.monitor.mode},
        "device": str(device),
        "time": _times(config, data, run, rehearsal),
        "first_loss": rehearsal.first_loss,
        "notes": build.notes(config, data, run),
        "warnings": advise(config, data, run, rehearsal),
    }


def _data(data: Data) -> dict[str, Any]:
    from trainkit.tasks.base import num_outputs

    return {
        "name": data.name,
        "task": data.spec.target.task,
        "shape": list(data.spec.in_shape),
        "outputs": num_outputs(data.spec),
        "splits": {name: len(split) for name, split in data.splits.items()},
        "loader": data.loading.kind,
    }


def _activations(config: Train, data: Data, run: Run, batch: Batch) -> int:
    """Bytes kept for the backward pass, without compilation, which would take minutes here."""
    import dataclasses

    from trainkit import build
    from trainkit.planning.memory import activation_bytes

    plain = dataclasses.replace(config, compile=None)
    forward = build.build_forward(plain, run.model, data.spec, run.device, recompute=config.recompute)
    return activation_bytes(run, forward, batch)


def _memory(run: Run) -> dict[str, int]:
    """Bytes that a run in progress takes; trains one step more."""
    from trainkit import loop
    from trainkit.planning import memory

    def step() -> None:
        loop.optimize(run, next(run.train.epoch(0)))

    peak = memory.peak_of(run, step)
    return {
        "weights": memory.weight_bytes(run),
        "average": memory.average_bytes(run),
        "gradients": memory.tensor_bytes(iter(run.parameters)),
        "optimizer": memory.optimizer_bytes(run),
        "peak": peak,
    }


def _steps(config: Train, run: Run) -> dict[str, Any]:
    """How many steps, and the lr over them."""
    steps = run.train.steps_per_epoch
    total = steps * run.epochs
    base = float(run.optimizer.param_groups[0]["initial_lr"])
    lrs = [base * run.lr_factor(step) for step in range(min(total, 1_000_000))]
    ends = {"first": lrs[0], "max": max(lrs), "last": lrs[-1]}
    return {
        "steps": {"epochs": run.epochs, "per_epoch": steps, "total": total, "batch": run.train.batch_size},
        "optim": {"name": config.optim.name, "lr": base},
        "schedule": {"name": config.schedule.name, "lrs": _thinned(lrs), **ends},
    }


def _thinned(values: list[float]) -> list[float]:
    """At most 400 of the values, the first and the last among them: enough for any terminal."""
    if len(values) <= 400:
        return values
    return [values[round(i * (len(values) - 1) / 399)] for i in range(400)]


def _times(config: Train, data: Data, run: Run, rehearsal: Any) -> dict[str, Any]:
    """Seconds of a run, from the timed steps. Start-up and the writing of checkpoints are not counted."""
    train = run.train.steps_per_epoch * rehearsal.step_seconds

    def evaluation(split: str) -> float:
        size = len(data.splits[split]) if split in data.splits else 0
        return -(-size // run.train.batch_size) * float(rehearsal.eval_seconds)

    final = (evaluation("val") + evaluation("test")) * (2 if config.tta == "flip" else 1)
    return {
        "timed_steps": rehearsal.steps,
        "step_seconds": rehearsal.step_seconds,
        "samples_per_second": run.train.num_samples / train,
        "data_wait": rehearsal.data_wait,
        "timed_eval_batches": rehearsal.eval_batches,
        "eval_batch_seconds": rehearsal.eval_seconds,
        "train_epoch_seconds": train,
        "eval_epoch_seconds": evaluation("val"),
        "final_eval_seconds": final,
        "total_seconds": run.epochs * (train + evaluation("val")) + final,
    }


def try_lrs(config: Train, data: Data, device: torch.device, plot: Path | None) -> dict[str, Any]:
    """The lr range test, on a run of its own, about the lr that the optimizer has by default."""
    import dataclasses

    from trainkit import build, registry
    from trainkit.planning import lr_range
    from trainkit.schema import REQUIRED
    from trainkit.training.signals import Stop

    field = registry.get("optim", config.optim.name).schema.get("lr")
    run = build.build_run(config, data, device, Stop())
    given = float(run.optimizer.param_groups[0]["initial_lr"])
    center = given if field is None or field.default is REQUIRED else float(field.default)
    found = lr_range.sweep_lr(run, center)
    if plot is not None and found.lrs:
        lr_range.draw(found, plot)
    return {**dataclasses.asdict(found), "configured": given, "plot": str(plot) if plot is not None else None}


def try_batches(config: Train, data: Data, device: torch.device, memory: int | None) -> dict[str, Any]:
    """The largest batch, on a run of its own; trials are told on stderr as they come."""
    import dataclasses
    import sys

    from trainkit import build
    from trainkit.planning.max_batch import Trial, find_max_batch
    from trainkit.planning.text import in_bytes
    from trainkit.training.signals import Stop

    def tell(trial: Trial) -> None:
        result = f"{in_bytes(trial.peak)}, {trial.seconds:.2f} s" if trial.peak and trial.seconds else "out of memory"
        say(f"batch {trial.batch_size:,}: {result}{'' if trial.fits else ', too large'}", stream=sys.stderr)

    run = build.build_run(dataclasses.replace(config, compile=None), data, device, Stop())
    return dataclasses.asdict(find_max_batch(run, memory, tell))
