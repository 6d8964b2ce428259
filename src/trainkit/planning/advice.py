"""What people usually did not mean: a config that will run, and probably disappoint. Each is one sentence."""

from __future__ import annotations

import math

from torch import nn

from trainkit.config.frame import Train
from trainkit.data.dataset import Data
from trainkit.data.spec import TARGET, named
from trainkit.data.splits import in_memory
from trainkit.losses.choose import AUTO
from trainkit.planning.rehearsal import Rehearsal
from trainkit.tasks.base import task_of
from trainkit.training.run import Run

# Peak learning rates outside of these are rare in published recipes for training from scratch.
USUAL_LR = {
    "sgd": (1e-3, 2.0),
    "adam": (1e-5, 1e-2),
    "adamw": (1e-5, 1e-2),
    "nadam": (1e-5, 1e-2),
    "radam": (1e-5, 1e-2),
    "adamax": (1e-5, 2e-2),
    "rmsprop": (1e-5, 1e-2),
    "adagrad": (1e-3, 0.5),
    "adadelta": (0.1, 2.0),
    "muon": (1e-3, 0.3),
    "lbfgs": (0.01, 2.0),
}
NORMS = (nn.modules.batchnorm._BatchNorm,)


def advise(config: Train, data: Data, run: Run, rehearsal: Rehearsal) -> list[str]:
    """All warnings for this run, those about the data first."""
    return [
        *_about_splits(config, data, run),
        *_about_lr(config, run),
        *_about_batches(config, run),
        *_about_model(config, data, run, rehearsal),
    ]


def _about_splits(config: Train, data: Data, run: Run) -> list[str]:
    found = []
    if "val" not in data.splits:
        found.append("there is no val split: the best epoch is chosen by the numbers of the train split")
    for name, target in data.spec.targets.items():
        columns = {split: named(part.targets, TARGET)[name] for split, part in data.splits.items()}
        known = {split: column for split, column in columns.items() if in_memory(column)}
        if "train" in known:
            found += task_of(target).advice(known, target, run.monitor.metric)
    if "test" not in data.splits:
        found.append("there is no test split: the final number is the one that chose the epoch, and is flattering")
    return found


def _about_lr(config: Train, run: Run) -> list[str]:
    found = []
    total = run.epochs * run.train.steps_per_epoch
    factors = [run.lr_factor(step) for step in range(total)]
    peak = run.base_lr * max(factors)
    if config.optim.name in USUAL_LR:
        low, high = USUAL_LR[config.optim.name]
        if not low <= peak <= high:
            side = "above" if peak > high else "below"
            found.append(
                f"the lr reaches {peak:g}, {side} what is usual for {config.optim.name} ({low:g} to {high:g}); "
                "see trainkit plan --lr-range"
            )
    warmup = round(float(config.schedule.arguments.get("warmup", 0)) * run.train.steps_per_epoch)
    if warmup > total / 2:
        found.append(f"the warm-up takes {warmup} of {total} steps: more than half of the run")
    if config.schedule.name != "constant" and total > warmup and len({*factors[warmup:]}) == 1:
        found.append(f"schedule={config.schedule.name} never changes the lr in {config.epochs} epochs")
    late = [epoch for epoch in config.schedule.arguments.get("milestones", []) if epoch >= config.epochs]
    if late:
        found.append(f"schedule.milestones: {', '.join(map(str, late))} never come in {config.epochs} epochs")
    if config.optim.name in ("adam", "nadam", "radam") and config.optim.arguments.get("weight_decay"):
        decoupled = config.optim.arguments.get("decoupled_weight_decay", False)
        if not decoupled:
            found.append(f"optim={config.optim.name} scales weight_decay like a gradient; optim=adamw decays weights")
    return found


def _about_batches(config: Train, run: Run) -> list[str]:
    found = []
    if config.patience is not None and config.patience >= config.epochs:
        found.append(f"patience={config.patience} can never stop a run of {config.epochs} epochs")
    smallest = _smallest_part(config, run)
    if smallest == 1 and any(isinstance(module, NORMS) for module in run.model.modules()):
        found.append("batch norm would see a part of one sample: raise batch_size, or lower accumulate")
    return found


def _smallest_part(config: Train, run: Run) -> int:
    """Samples in the smallest forward pass of an epoch."""
    samples, size = run.train.num_samples, min(config.batch_size, run.train.num_samples)
    last = samples % size or size
    last = size + 1 if run.train.lone_sample else last
    parts = []
    for batch in (size, last):
        chunk = math.ceil(batch / config.accumulate)
        parts.append(batch % chunk or chunk)
    return min(parts)


def _about_model(config: Train, data: Data, run: Run, rehearsal: Rehearsal) -> list[str]:
    found = []
    if rehearsal.bad_steps:
        found.append(
            f"in {rehearsal.bad_steps} of the first steps the loss or a gradient is not finite: training would stop; "
            "lower optim.lr, add warm-up (schedule.warmup=1), or set clip=1"
        )
    if rehearsal.no_gradient:
        names = ", ".join(rehearsal.no_gradient[:3]) + (", …" if len(rehearsal.no_gradient) > 3 else "")
        found.append(f"{len(rehearsal.no_gradient)} parameters get no gradient and are never trained: {names}")
    task = task_of(data.spec.target)
    chance = task.chance(data.spec.target) if config.loss.name in (AUTO, *task.losses[:1]) else None
    if chance is not None and not rehearsal.bad_steps and rehearsal.first_loss > 2 * chance:
        found.append(
            f"the untrained model's loss is {rehearsal.first_loss:.3g}, far from chance ({chance:.3g}): "
            "look at the scale of the inputs and of the last layer's weights"
        )
    if config.channels_last and not any(one.is_image for one in data.spec.inputs.values()):
        found.append(f"channels_last=true does nothing: dataset {data.name} has no images")
    if rehearsal.data_wait > 0.25:
        found.append(
            f"{rehearsal.data_wait:.0%} of a step is waiting for data"
            + (f": {run.train.hint}" if run.train.hint else "")
        )
    return found
