"""Config to objects, one component each: device, data, model, loss, optimizer, schedule; see `run.py` too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from trainkit import registry
from trainkit.config.frame import Choice, Export, Frame, Predict, Train
from trainkit.data.augment.base import Augment
from trainkit.data.checks import finish, refuse_other_kinds
from trainkit.data.dataset import Data, Source, limit, strata_of
from trainkit.data.holdout import Holdout, hold_out_val
from trainkit.data.placement import place
from trainkit.data.spec import DataSpec, TargetSpec
from trainkit.errors import ConfigError, kind_of
from trainkit.init.weights import Weights
from trainkit.losses.base import Loss, as_loss
from trainkit.losses.choose import resolve
from trainkit.machine import default_data_dir
from trainkit.optim.finetune import Finetune
from trainkit.optim.schedules import Factor, scheduled
from trainkit.optim.step import leave_untraced
from trainkit.randomness import reseed
from trainkit.tasks.base import Metric, find_task, num_outputs, sums_of, task_of
from trainkit.tasks.meter import Meter
from trainkit.training import speed
from trainkit.training.probe import check_rows
from trainkit.training.run import LAST, Monitor

KINDS: dict[str, tuple[Any, str]] = {  # what the builders of a group return; data sets are judged in `data/checks.py`
    "device": (torch.device, "a torch.device"),
    "model": (nn.Module, "a torch.nn.Module"),
    "init": (Weights, "a trainkit.init.weights.Weights"),
    "finetune": (Finetune, "a trainkit.optim.finetune.Finetune"),
    "loss": (nn.Module, "a torch.nn.Module"),
    "optim": (torch.optim.Optimizer, "a torch.optim.Optimizer"),
    "sampler": (Callable, "a function of the epoch"),
    "schedule": (Callable, "a function of the step"),
    "holdout": (Holdout, "a trainkit.data.holdout.Holdout"),
    "augment": (Augment, "a trainkit.data.augment.base.Augment"),
}


def component(group: str, choice: Choice, known: Mapping[str, Any]) -> Any:
    """What the chosen component's builder returns for what it asks of `known`, and its config arguments.

    Raises ConfigError when that is not what its group is for.
    """
    return checked(group, choice.name, registry.get(group, choice.name).make(known, choice.arguments))


def checked(group: str, name: str, built: Any) -> Any:
    """What a builder returned. Raises ConfigError when it is not of its group's kind."""
    kind, wanted = KINDS[group]
    if not isinstance(built, kind):
        raise ConfigError(f"the builder of {group} '{name}' returned {kind_of(built)}; it must return {wanted}")
    return built


def facts_of(spec: DataSpec) -> dict[str, Any]:
    """What models, losses and augmentations may ask for: the specification of the data, and its usual parts."""
    return {
        "spec": spec,
        "in_shape": spec.in_shape,
        "num_outputs": num_outputs(spec),
        "classes": spec.target.classes,
        "target": spec.target,
    }


def build_device(config: Frame | Predict) -> torch.device:
    """The device, with all its flags set."""
    device: torch.device = component("device", config.device, {})
    return device


def find_data(config: Frame | Export) -> Data | Source:
    """The data set, or where it lies, as its builder gives it."""
    known = {"data_dir": config.data_dir or default_data_dir(), "split_seed": config.split_seed}
    found: Data | Source = registry.get("dataset", config.dataset.name).make(known, config.dataset.arguments)
    refuse_other_kinds(found, config.dataset.name)
    return found


def build_data(config: Frame | Export, device: torch.device) -> Data:
    """The data set where `loader` wants it, val held out, checked, and with the statistics of its train split."""
    data = place(find_data(config), config.loader, None if config.workers == "auto" else config.workers, device)
    hold_out_val(data, build_holdout(config))
    finish(data)
    if isinstance(config, Train) and config.limit_batches is not None:
        limit(data, config.limit_batches * config.batch_size, config.split_seed)
    return data


def build_holdout(config: Frame | Export) -> Holdout:
    """How val is held out of the train split."""
    known = {"val_fraction": config.val_fraction, "split_seed": config.split_seed}
    holdout: Holdout = component("holdout", config.holdout, known)
    return holdout


def build_augment(config: Train, data: Data) -> Augment | None:
    """What happens to training batches, None for nothing.

    Raises ConfigError for data without images, and for mixing where the loss takes no class probabilities.
    """
    if config.augment.name == "none":
        return None
    if not data.spec.input.is_image or data.spec.input.dtype != "uint8":
        raise ConfigError(f"augment is for images, dataset {data.name} has none: use augment=none")
    augment: Augment = component("augment", config.augment, facts_of(data.spec))
    task = task_of(data.spec.target)
    loss = resolve(config.loss.name, task, config.dataset.name)
    mixed = find_task(task.mixed) if task.mixed else None
    if augment.mix is not None and (mixed is None or not mixed.accepts(loss.name, loss.serves)):
        raise ConfigError(
            f"augment.mixup and augment.cutmix mix classes, which {task.name} with loss {loss.name} cannot take: "
            "use loss=cross_entropy on classes, or switch them off"
        )
    return augment


def build_model(config: Frame, spec: DataSpec, device: torch.device) -> nn.Module:
    """The model on the device, its initial weights a function of the seed alone (drawn on the CPU for every device)."""
    reseed(torch.device("cpu"), config.seed, "init")
    model: nn.Module = component("model", config.model, facts_of(spec))
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ConfigError(f"model '{config.model.name}' has lazy parameters; give its layers their sizes from in_shape")
    return model.to(device)


def build_loss(config: Frame, spec: DataSpec, device: torch.device, model: nn.Module | None = None) -> Loss:
    """The loss on the device; it may ask for the model. Raises ConfigError when it cannot train the data's task."""
    loss = resolve(config.loss.name, task_of(spec.target), config.dataset.name)
    arguments = config.loss.arguments if loss.name == config.loss.name else {}
    module = checked("loss", loss.name, loss.make({**facts_of(spec), "model": model}, arguments))
    return as_loss(module, labeled=task_of(spec.target).labeled).to(device)


def build_meter(config: Frame, spec: DataSpec, device: torch.device, full: bool) -> Meter:
    """An empty meter for the data's target; `full` for evaluation, else what training can afford."""
    return Meter(sums_of(spec.target, full=full, topk=config.topk), device)


def mirrors(config: Frame | Predict, spec: DataSpec, name: str) -> bool:
    """Whether `tta` asks for mirror images in evaluation. Raises ConfigError for data without images."""
    if config.tta == "flip" and not spec.input.is_image:
        raise ConfigError(f"tta=flip is for images, dataset {name} has none: use tta=none")
    return config.tta == "flip"


def build_monitor(config: Train, metrics: Sequence[Metric], target: TargetSpec) -> Monitor:
    """What `monitor=` asks for of these metrics. Raises ConfigError when they do not have it."""
    monitor = Monitor.of(config.monitor, metrics, task_of(target).monitor)
    if monitor.metric == LAST and config.patience is not None:
        raise ConfigError("monitor=last takes every epoch for the best: patience would never stop; set patience=null")
    return monitor


def build_order(config: Train, data: Data) -> Callable[[int], torch.Tensor]:
    """The rows of the train split in each epoch. Raises ConfigError for a sampler that does not fit the targets."""
    train = data.splits["train"]
    known = {"num_samples": len(train), "strata": strata_of(train, data.spec), "seed": config.seed}
    order: Callable[[int], torch.Tensor] = component("sampler", config.sampler, known)
    check_rows(order(0), len(train), config.sampler.name)
    return order


def build_schedule(config: Train, steps_per_epoch: int, history: list[float]) -> Factor:
    """The factor on the lr at each step; history: the monitor's values of the epochs done, which a schedule may read.

    Raises ConfigError for extensions that are not in order or within `epochs`, and for a schedule that is not pure.
    """

    def make(total_steps: int) -> Any:
        known = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        return component("schedule", config.schedule, known)

    return scheduled(make, config.schedule.name, config.extensions, config.epochs, steps_per_epoch, history)


def build_forward(
    config: Frame | Predict, model: nn.Module, spec: DataSpec, device: torch.device, *, recompute: bool = False
) -> speed.Forward:
    """The model's forward pass in the config's precision, memory format and compilation."""
    return speed.prepare(
        model,
        device,
        dtype=speed.set_precision(config.precision, device),
        channels_last=[name for name, one in spec.inputs.items() if config.channels_last and one.is_image],
        compile=config.compile,
        recompute=recompute,
        several=len(spec.inputs) > 1,
    )


def build_optimizer(
    config: Train, model: nn.Module, device: torch.device, frozen: Sequence[str] = ()
) -> torch.optim.Optimizer:
    """The optimizer over the model's named parameters; each group keeps its base lr as `initial_lr`.

    frozen: the names of parameters that are never trained.
    """
    if config.compile is None:
        leave_untraced()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad and name not in frozen]
    if not trained:
        raise ConfigError(f"model '{config.model.name}' has no parameters to train")
    optimizer: torch.optim.Optimizer = component("optim", config.optim, {"named_params": trained})
    if config.channels_last and isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("optim=lbfgs does not work with channels_last=true, whose weights it cannot lay out in a row")
    if config.precision == "fp16" and isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("optim=lbfgs does not work with precision=fp16; use bf16 or fp32")
    if config.cuda_graph:
        speed.make_capturable(optimizer, device, scaled=config.precision == "fp16")
    for group in optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    return optimizer
