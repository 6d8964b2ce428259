"""Config to objects, in order: device, data, model, loss, optimizer, schedule. The only torch-side reader of config."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit import checkpoint, losses, registry, speed
from trainkit.averaging import Ema
from trainkit.config.frame import Choice, Export, Frame, Predict, Train, to_plain
from trainkit.data import facts as data_facts
from trainkit.data.augment import Augment
from trainkit.data.checks import finish
from trainkit.data.loaders import Normalize, make_loader
from trainkit.data.machine import default_data_dir
from trainkit.data.placement import place
from trainkit.data.splits import Data, hold_out, limit
from trainkit.errors import ConfigError
from trainkit.loop import Monitor, Run, optimize
from trainkit.metrics import Meter, metric_names
from trainkit.numerics import Guard
from trainkit.randomness import numpy_generator, reseed
from trainkit.runtime import environment
from trainkit.schedules import extended
from trainkit.signals import Stop
from trainkit.state import Checkpoints
from trainkit.statistics import monitored
from trainkit.stepping import bare_step, leave_untraced


def component(group: str, choice: Choice, *runtime: Any) -> Any:
    """What the chosen component's builder returns for these runtime values and its config arguments."""
    return registry.get(group, choice.name).build(*runtime, **choice.arguments)


def build_device(config: Frame | Predict) -> torch.device:
    """The device, with all its flags set."""
    device = component("device", config.device)
    assert isinstance(device, torch.device)
    return device


def build_data(config: Frame | Export, device: torch.device) -> Data:
    """The data set where `loader` wants it, val held out, checked, and with the statistics of its train split."""
    found = component("dataset", config.dataset, config.data_dir or default_data_dir(), config.split_seed)
    data = place(found, config.loader, None if config.workers == "auto" else config.workers, device)
    hold_out(data, "val", config.val_fraction, config.split_seed)
    finish(data)
    if isinstance(config, Train) and config.limit_batches is not None:
        limit(data, config.limit_batches * config.batch_size, config.split_seed)
    return data


def build_augment(config: Train, data: Data) -> Augment | None:
    """What happens to training batches, None for nothing.

    Raises ConfigError for data without images, and for mixing where the loss takes no class probabilities.
    """
    if config.augment.name == "none":
        return None
    if len(data.in_shape) != 3 or data.splits["train"].inputs.dtype != np.uint8:
        raise ConfigError(f"augment is for images, dataset {data.name} has none: use augment=none")
    augment = component("augment", config.augment, data.in_shape, data.num_outputs)
    assert isinstance(augment, Augment)
    loss = losses.resolve(config.loss.name, data.task, config.dataset.name)
    if augment.mix is not None and (data.task not in ("classification", "soft") or "soft" not in loss.serves):
        raise ConfigError(
            f"augment.mixup and augment.cutmix mix classes, which {data.task} with loss {loss.name} cannot take: "
            "use loss=cross_entropy on classes, or switch them off"
        )
    return augment


def build_model(config: Frame, data: Data, device: torch.device) -> nn.Module:
    """The model on the device, its initial weights a function of the seed alone (drawn on the CPU for every device)."""
    reseed(torch.device("cpu"), config.seed, "init")
    model = component("model", config.model, data.in_shape, data.num_outputs)
    assert isinstance(model, nn.Module)
    return model.to(device)


def initialize_from_data(config: Train, data: Data, model: nn.Module) -> None:
    """Let a model that has a method `initialize` see normalised training images (N, C, H, W) before it is trained.

    They are up to 5,000, chosen by the seed, on the CPU like the other initial weights.
    """
    initialize = getattr(model, "initialize", None)
    if initialize is None:
        return
    train, cpu = data.splits["train"], torch.device("cpu")
    chosen = numpy_generator(config.seed, "initialize").permutation(len(train))[:5000]
    sample = Normalize(data, cpu).inputs(torch.from_numpy(train.take(chosen).inputs))
    device = next(model.parameters()).device
    model.cpu()
    initialize(sample)
    model.to(device)


def build_loss(config: Frame, data: Data, device: torch.device) -> nn.Module:
    """The loss on the device. Raises ConfigError when it does not serve the data set's task."""
    loss = losses.resolve(config.loss.name, data.task, config.dataset.name)
    arguments = config.loss.arguments if loss.name == config.loss.name else {}
    module = loss.build(data.num_outputs, **arguments)
    assert isinstance(module, nn.Module)
    return module.to(device)


def build_meter(
    config: Frame, data: Data, normalize: Normalize, loss_fn: nn.Module, device: torch.device, full: bool
) -> Meter:
    """An empty meter for the data set's task and the loss; `full` for evaluation, else what training can afford."""
    return Meter(
        data.task,
        data.num_outputs,
        device,
        full=full,
        topk=config.topk,
        target_std=normalize.target_std,
        class_weight=losses.class_weight(loss_fn),
    )


def mirrors(config: Frame | Predict, data: Data) -> bool:
    """Whether `tta` asks for mirror images in evaluation. Raises ConfigError for data without images."""
    if config.tta == "flip" and len(data.in_shape) != 3:
        raise ConfigError(f"tta=flip is for images, dataset {data.name} has none: use tta=none")
    return config.tta == "flip"


def build_monitor(config: Train, data: Data) -> Monitor:
    """`monitor=` as name and direction. Raises ConfigError when the metric is not one that will be produced."""
    name, mode = monitored(config.monitor, data.task)
    known = metric_names(data.task, data.num_outputs, config.topk)
    if "val" not in data.splits:  # then the training split's own numbers, which are fewer
        known = ["loss", "accuracy"] if "accuracy" in known and data.task != "multilabel" else ["loss"]
    if name not in known or mode not in ("min", "max"):
        choices = ", ".join(["auto", *known])
        raise ConfigError(f"monitor={config.monitor}: choose from: {choices}; with :min or :max if need be")
    return Monitor(name, mode)


def build_schedule(config: Train, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the lr at each step. Raises ConfigError for extensions that are not in order or within `epochs`."""
    parts = [text.partition("@") for text in config.extensions]
    ends = [*(int(epoch) for _, _, epoch in parts), config.epochs]
    if ends != sorted(set(ends)):
        raise ConfigError(f"extensions={config.extensions}: epochs must grow, up to epochs={config.epochs}")
    make = functools.partial(component, "schedule", config.schedule)
    return extended(make, ends, [rule for rule, _, _ in parts], steps_per_epoch)


def build_run(config: Train, data: Data, device: torch.device, stop: Stop) -> Run:
    """Everything `loop.fit` needs. Raises ConfigError for what does not go together."""
    if config.overfit and config.profile is not None:
        raise ConfigError("overfit=true and profile=N are two questions: ask one at a time")
    if config.anomaly and (config.compile is not None or config.cuda_graph):
        raise ConfigError("anomaly=true looks at every operation: set compile=null cuda_graph=false")
    normalize = Normalize(data, device)
    augment = build_augment(config, data)
    train = make_loader(data, "train", config.batch_size, normalize, device, seed=config.seed, augment=augment)
    val = make_loader(data, "val", config.batch_size, normalize, device) if "val" in data.splits else None
    model = build_model(config, data, device)
    initialize_from_data(config, data, model)
    forward = build_forward(config, model, device, recompute=config.recompute)
    optimizer = build_optimizer(config, model, device)
    ema = None if config.ema is None else Ema(model, config.ema)
    loss_fn = build_loss(config, data, device)
    run = Run(
        model=model,
        forward=forward,
        parameters=[parameter for parameter in model.parameters() if parameter.requires_grad],
        loss_fn=loss_fn,
        optimizer=optimizer,
        update=bare_step(optimizer),
        scaler=torch.amp.GradScaler(device.type) if config.precision == "fp16" else None,
        guard=Guard(model, optimizer, device, config.on_nonfinite, scaled=config.precision == "fp16"),
        ema=ema,
        judged=model if ema is None else ema.model,
        judged_forward=forward if ema is None else build_forward(config, ema.model, device),
        lr_factor=build_schedule(config, train.steps_per_epoch),
        train=train,
        val=val,
        device=device,
        meter=lambda full: build_meter(config, data, normalize, loss_fn, device, full),
        monitor=build_monitor(config, data),
        stop=stop,
        seed=config.seed,
        epochs=config.epochs,
        patience=config.patience,
        clip=config.clip,
        accumulate=config.accumulate,
        max_skipped=config.max_skipped,
        log_every=config.log_every,
    )
    if config.cuda_graph:
        run.graphed = speed.GraphedStep(functools.partial(optimize, run))
    return run


def build_forward(
    config: Frame | Predict, model: nn.Module, device: torch.device, *, recompute: bool = False
) -> speed.Forward:
    """The model's forward pass in the config's precision, memory format and compilation."""
    return speed.prepare(
        model,
        device,
        dtype=speed.set_precision(config.precision, device),
        channels_last=config.channels_last,
        compile=config.compile,
        recompute=recompute,
    )


def build_optimizer(config: Train, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the model's named parameters; each group keeps its base lr as `initial_lr`."""
    if config.compile is None:
        leave_untraced()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = component("optim", config.optim, trained)
    assert isinstance(optimizer, torch.optim.Optimizer)
    if config.precision == "fp16" and isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("optim=lbfgs does not work with precision=fp16; use bf16 or fp32")
    if config.cuda_graph:
        speed.make_capturable(optimizer, device, scaled=config.precision == "fp16")
    for group in optimizer.param_groups:
        group["initial_lr"] = float(group["lr"])
    return optimizer


def build_checkpoints(config: Train, data: Data, device: torch.device, folder: Path) -> Checkpoints:
    """What saves the run into its folder, with all that `eval` and `resume` need to rebuild it."""
    match = re.fullmatch(r"(\d+)(epoch|step|min)\w*", config.checkpoint_every)
    assert match is not None
    unit = "minute" if match[2] == "min" else match[2]
    facts = {"config": to_plain(config), "data": data_facts.to_json(data), "runtime": runtime_facts(config, device)}
    return Checkpoints(folder, (int(match[1]), unit), config.keep_last, facts, data)


def runtime_facts(config: Train, device: torch.device) -> dict[str, Any]:
    """What changes the bits of a result though not its meaning, flat, by the name a user would set it with."""
    found = environment(device)
    facts = {name: found[name] for name in ("device", "device_name", "cpu_capability", "threads", "deterministic")}
    facts |= {f"cudnn.{name}": value for name, value in found["cudnn"].items()}
    facts |= {name: found["versions"][name] for name in ("trainkit", "torch", "numpy", "cuda")}
    options = ("precision", "channels_last", "compile", "cuda_graph", "recompute", "accumulate")
    return facts | {name: getattr(config, name) for name in options}


def restore_model(choice: Choice, ckpt: Path) -> tuple[nn.Module, Data, dict[str, Any]]:
    """A checkpoint's model on the CPU, in evaluation mode; its data set, without samples; and the header."""
    tensors, meta = checkpoint.load(ckpt)
    data = data_facts.from_json(meta.get("data"), ckpt)
    model = component("model", choice, data.in_shape, data.num_outputs)
    assert isinstance(model, nn.Module)
    checkpoint.load_model(model, tensors, ckpt)
    return model.eval(), data, meta
