"""A training run put together: everything `loop.fit` needs, from what `components.py` makes of the config."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainkit.building import components
from trainkit.checkpoints.state import Checkpoints
from trainkit.config.frame import Train, to_plain
from trainkit.data.augment.base import Augment
from trainkit.data.dataset import Data
from trainkit.data.loaders import Loader, Normalize, make_loader, sample_inputs
from trainkit.errors import ConfigError
from trainkit.init import fit
from trainkit.init.weights import Weights
from trainkit.loop import optimize
from trainkit.optim.finetune import Finetune, Frozen, regroup, rules_of
from trainkit.optim.step import bare_step
from trainkit.runtime import Cudnn, environment
from trainkit.training import features, speed
from trainkit.training.ema import Ema
from trainkit.training.guard import Guard
from trainkit.training.probe import try_out
from trainkit.training.run import Run
from trainkit.training.signals import Stop


def build_run(config: Train, data: Data, device: torch.device, stop: Stop) -> Run:
    """Everything `loop.fit` needs. Raises ConfigError for what does not go together.

    Initial weights of others bring their own normalization of the input, which `data.spec` then has.
    """
    refuse_contradictions(config)
    model, origin = start_model(config, data, device)
    optimizer, base_lr, frozen = start_optimizer(config, model, device)
    ema = None if config.ema is None else Ema(model, config.ema)
    served, head = served_data(config, data, model, frozen, device, stop)
    module = model if head is None else model.get_submodule(head)
    judged = None if ema is None else ema.model if head is None else ema.model.get_submodule(head)
    normalize = Normalize(served.spec, device)
    augment = None if head is not None else components.build_augment(config, data)
    train, val = build_loaders(config, served, normalize, device, augment)
    forward = components.build_forward(config, module, served.spec, device, recompute=config.recompute)
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    history: list[float] = []
    run = Run(
        model=model,
        module=module,
        data=served,
        forward=forward,
        parameters=[parameter for parameter in model.parameters() if id(parameter) in owned],
        loss_fn=components.build_loss(config, data.spec, device, model),
        optimizer=optimizer,
        base_lr=base_lr,
        update=bare_step(optimizer),
        scaler=torch.amp.GradScaler(device.type) if config.precision == "fp16" else None,
        guard=Guard(model, optimizer, device, config.on_nonfinite, scaled=config.precision == "fp16"),
        ema=ema,
        judged=model if ema is None else ema.model,
        judged_forward=forward if judged is None else components.build_forward(config, judged, served.spec, device),
        lr_factor=components.build_schedule(config, train.steps_per_epoch, history),
        train=train,
        val=val,
        device=device,
        meter=lambda full: components.build_meter(config, data.spec, device, full),
        stop=stop,
        seed=config.seed,
        epochs=config.epochs,
        patience=config.patience,
        clip=config.clip,
        accumulate=config.accumulate,
        max_skipped=config.max_skipped,
        log_every=config.log_every,
        history=history,
        frozen=frozen,
        origin=origin,
    )
    if config.cuda_graph:
        run.graphed = speed.GraphedStep(functools.partial(optimize, run))
    # compiled for a few samples, it would be another program for more
    plain = dataclasses.replace(config, compile=None)
    terms = try_out(
        config, served, run, components.build_forward(plain, module, served.spec, device, recompute=config.recompute)
    )
    run.metrics = [*run.meter(True).metrics, *terms]
    run.monitor = components.build_monitor(config, [*run.meter(val is not None).metrics, *terms], data.spec.target)
    return run


def refuse_contradictions(config: Train) -> None:
    """Raise ConfigError for keys that cannot both be meant."""
    if config.overfit and config.profile is not None:
        raise ConfigError("overfit=true and profile=N are two questions: ask one at a time")
    if config.anomaly and (config.compile is not None or config.cuda_graph):
        raise ConfigError("anomaly=true looks at every operation: set compile=null cuda_graph=false")


def start_model(config: Train, data: Data, device: torch.device) -> tuple[nn.Module, dict[str, Any] | None]:
    """The model with the weights that training begins with, and where they came from, where `init` says so."""
    model = components.build_model(config, data.spec, device)
    weights: Weights | None = None
    if config.init.name != "none":
        weights = components.component("init", config.init, {"model": model})
        assert weights is not None
        fitted = fit.fit(model, weights, data.spec.target.classes, config.seed)
        data.spec = fit.normalized(data.spec, weights)
        origin = fit.facts(weights, fitted, data.spec)
        data.notes.append(fit.sentence(origin, fitted, weights.mean is not None))
        return model, origin
    initialize = getattr(model, "initialize", None)  # some take weights from the inputs that they will be trained on
    if initialize is not None:  # on the CPU, like the other initial weights
        model.cpu()
        initialize(sample_inputs(data, 5000, config.seed))
        model.to(device)
    return model, None


def start_optimizer(
    config: Train, model: nn.Module, device: torch.device
) -> tuple[torch.optim.Optimizer, float, Frozen | None]:
    """The optimizer, with the groups that `finetune` asks for; the lr that the schedule is on; what is frozen."""
    if config.finetune.name == "none":
        optimizer = components.build_optimizer(config, model, device)
        return optimizer, float(optimizer.param_groups[0]["initial_lr"]), None
    tuning: Finetune = components.component("finetune", config.finetune, {})
    published = getattr(model, "published", None)
    rules = rules_of(model, tuning, fit.head_of(model) if published is None else published.head)
    optimizer = components.build_optimizer(
        config, model, device, [name for name, rule in rules.items() if rule.begin is None]
    )
    base_lr = float(optimizer.param_groups[0]["initial_lr"])
    regroup(optimizer, rules, dict(model.named_parameters()))
    if config.cuda_graph and any(rule.begin for rule in rules.values()):
        raise ConfigError("cuda_graph=true repeats one step: it cannot unfreeze; leave out finetune.unfreeze")
    return optimizer, base_lr, Frozen(model, rules)


def served_data(
    config: Train, data: Data, model: nn.Module, frozen: Frozen | None, device: torch.device, stop: Stop
) -> tuple[Data, str | None]:
    """What a step reads: the samples; or the features of a frozen backbone, and the name of the head they are for."""
    head = None if frozen is None else features.trained_module(model, frozen)
    if head is None or config.augment.name != "none" or config.tta != "none" or len(data.spec.inputs) > 1:
        return data, None
    assert frozen is not None
    plain, part = dataclasses.replace(config, compile=None), model.get_submodule(head)
    forward = components.build_forward(plain, model, data.spec, device)
    head_forward = components.build_forward(dataclasses.replace(plain, channels_last=False), part, data.spec, device)
    normalize = Normalize(data.spec, device)

    def loader(split: str) -> Loader:
        return make_loader(data, split, config.batch_size, normalize, device, seed=config.seed)

    def train_mode() -> None:
        model.train()
        frozen.enter(0)

    found = features.probe(model, forward, part, head_forward, data, loader, stop, train_mode)
    if isinstance(found, str):
        data.notes.append(f"features are computed in every epoch: {found}")
        return data, None
    width = "x".join(map(str, found.spec.in_shape))
    data.notes.append(f"the features of the frozen backbone, {width} a sample, are computed once")
    return found, head


def build_loaders(
    config: Train, data: Data, normalize: Normalize, device: torch.device, augment: Augment | None
) -> tuple[Loader, Loader | None]:
    """Augmented batches of the train split, in the order of the sampler; and those of val, where there is one."""
    order = components.build_order(config, data)
    train = make_loader(
        data, "train", config.batch_size, normalize, device, seed=config.seed, augment=augment, order=order
    )
    if "val" not in data.splits:
        return train, None
    return train, make_loader(data, "val", config.batch_size, normalize, device, seed=config.seed)


def notes(config: Train, data: Data, run: Run) -> list[str]:
    """What is to be said before training: what was done to the data, and what will run but may not be meant."""
    found = list(data.notes)
    if run.device.type == "cpu" and config.device.arguments.get("cudnn", Cudnn()) != Cudnn():
        found.append("the flags of device.cudnn have no effect on the CPU")
    if run.train.lone_sample:
        found.append("the last batch would hold one sample; it joins the batch before it")
    if config.batch_size > run.train.num_samples:
        samples = f"the train split ({run.train.num_samples})"
        found.append(f"batch_size={config.batch_size} is larger than {samples}: a step is an epoch")
    if run.val is None and config.patience is not None:
        found.append(f"patience={config.patience} watches the {run.monitor.metric} of train: there is no val split")
    return found


def build_checkpoints(config: Train, data: Data, run: Run, folder: Path) -> Checkpoints:
    """What saves the run into its folder, with all that `eval` and `resume` need to rebuild it."""
    match = re.fullmatch(r"(\d+)(epoch|step|min)\w*", config.checkpoint_every)
    assert match is not None
    unit = "minute" if match[2] == "min" else match[2]
    facts = {"config": to_plain(config), "spec": data.spec.to_json(), "runtime": runtime_facts(config, run.device)}
    facts |= {} if run.origin is None else {"init": run.origin}
    return Checkpoints(folder, (int(match[1]), unit), config.keep_last, facts, data)


def runtime_facts(config: Train, device: torch.device) -> dict[str, Any]:
    """What changes the bits of a result though not its meaning, flat, by the name a user would set it with."""
    found = environment(device)
    facts = {name: found[name] for name in ("device", "device_name", "cpu_capability", "threads", "deterministic")}
    facts |= {f"cudnn.{name}": value for name, value in found["cudnn"].items()}
    facts |= {name: found["versions"][name] for name in ("trainkit", "torch", "numpy", "cuda")}
    options = ("precision", "channels_last", "compile", "cuda_graph", "recompute", "accumulate")
    return facts | {name: getattr(config, name) for name in options}
