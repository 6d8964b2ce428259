"""The facts of a plan: a run is built as `trainkit train` would build it, measured, and thrown away."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from trainkit import loop, registry
from trainkit.building import components
from trainkit.building.run import build_run, notes
from trainkit.config.frame import Train
from trainkit.data.batch import Batch
from trainkit.data.dataset import Data
from trainkit.errors import ConfigError
from trainkit.planning import lr_range, memory
from trainkit.planning.advice import advise
from trainkit.planning.layers import measure_work
from trainkit.planning.max_batch import Trial, find_max_batch
from trainkit.planning.rehearsal import Rehearsal, rehearse
from trainkit.planning.text import in_bytes
from trainkit.schema import REQUIRED
from trainkit.tasks.base import num_outputs
from trainkit.text import say
from trainkit.training.run import Run
from trainkit.training.signals import Stop


def measure(config: Train, flags: argparse.Namespace, limit: int | None) -> dict[str, Any]:
    """All facts of a plan, as JSON data."""
    device = components.build_device(config)
    if flags.max_batch and device.type != "cuda":
        peak = f"`peak of a step` of trainkit plan batch_size={config.batch_size} says what a batch takes"
        raise ConfigError(f"--max-batch searches on CUDA devices, and this run is on {device}: {peak}")
    data = components.build_data(config, device)
    components.mirrors(config, data.spec, data.name)
    facts = examine(config, data, device)
    if flags.lr_range:
        facts["lr_range"] = try_lrs(config, data, device, flags.plot)
    if flags.max_batch:
        facts["max_batch"] = try_batches(config, data, device, limit)
    return facts


def examine(config: Train, data: Data, device: torch.device) -> dict[str, Any]:
    """What one build of the run shows."""
    run = build_run(config, data, device, Stop())
    batch = next(run.train.epoch(0))
    part = -(-len(batch) // config.accumulate)
    batch = batch.first(part)
    activations = _activations(config, data, run, batch)  # before the model is trained, and its gradients exist
    work = measure_work(run.module, run.loss_fn, batch.first(2))
    del batch
    rehearsal = rehearse(run)
    return {
        "data": _data(data),
        "model": {
            "name": config.model.name,
            "parameters": sum(p.numel() for p in run.model.parameters()),
            "trained": sum(p.numel() for p in run.parameters),
            "groups": _groups(run) if run.frozen is not None else [],
            "layers": [dataclasses.asdict(layer) for layer in work.layers],
        },
        "flops_per_sample": {"forward": work.forward_flops, "backward": work.backward_flops},
        "memory": {**_memory(run), "activations": activations, "activations_of": part},
        **_steps(config, run),
        "monitor": {"metric": run.monitor.metric, "mode": run.monitor.mode},
        "device": str(device),
        "time": _times(config, data, run, rehearsal),
        "first_loss": rehearsal.first_loss,
        "notes": notes(config, data, run),
        "warnings": advise(config, data, run, rehearsal),
    }


def _groups(run: Run) -> list[dict[str, Any]]:
    """The parameter groups of a run with `finetune`: how many parameters, which, and how they are trained."""
    found = []
    begins = {} if run.frozen is None else run.frozen.begins
    for group in run.optimizer.param_groups:
        names = group["param_names"]
        found.append(
            {
                "parameters": sum(parameter.numel() for parameter in group["params"]),
                "names": names,
                "lr": group["initial_lr"],
                "weight_decay": group.get("weight_decay"),
                "begin": begins.get(names[0], 0),
            }
        )
    return found


def _data(data: Data) -> dict[str, Any]:
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
    plain = dataclasses.replace(config, compile=None)
    forward = components.build_forward(plain, run.module, run.data.spec, run.device, recompute=config.recompute)
    return memory.activation_bytes(run, forward, batch)


def _memory(run: Run) -> dict[str, int]:
    """Bytes that a run in progress takes; trains one step more."""

    def step() -> None:
        loop.optimize(run, next(run.train.epoch(0)))

    peak = memory.peak_of(run, step)
    return {
        "weights": memory.state_bytes(run.model),
        "average": memory.average_bytes(run),
        "gradients": memory.tensor_bytes(iter(run.parameters)),
        "optimizer": memory.optimizer_bytes(run),
        "peak": peak,
    }


def _steps(config: Train, run: Run) -> dict[str, Any]:
    """How many steps, and the lr over them."""
    steps = run.train.steps_per_epoch
    total = steps * run.epochs
    base = run.base_lr
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


def _times(config: Train, data: Data, run: Run, rehearsal: Rehearsal) -> dict[str, Any]:
    """Seconds of a run, from the timed steps. Start-up and the writing of checkpoints are not counted."""
    train = run.train.steps_per_epoch * rehearsal.step_seconds

    def evaluation(split: str) -> float:
        size = len(data.splits[split]) if split in data.splits else 0
        return -(-size // run.train.batch_size) * rehearsal.eval_seconds

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
    field = registry.get("optim", config.optim.name).schema.get("lr")
    run = build_run(config, data, device, Stop())
    given = run.base_lr
    center = given if field is None or field.default is REQUIRED else float(field.default)
    found = lr_range.sweep_lr(run, center)
    if plot is not None and found.lrs:
        lr_range.draw(found, plot)
    return {**dataclasses.asdict(found), "configured": given, "plot": str(plot) if plot is not None else None}


def try_batches(config: Train, data: Data, device: torch.device, limit: int | None) -> dict[str, Any]:
    """The largest batch, on a run of its own; trials are told on stderr as they come."""

    def tell(trial: Trial) -> None:
        result = f"{in_bytes(trial.peak)}, {trial.seconds:.2f} s" if trial.peak and trial.seconds else "out of memory"
        say(f"batch {trial.batch_size:,}: {result}{'' if trial.fits else ', too large'}", stream=sys.stderr)

    run = build_run(dataclasses.replace(config, compile=None), data, device, Stop())
    return dataclasses.asdict(find_max_batch(run, limit, tell))
