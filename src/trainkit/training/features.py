"""Linear probing at the speed of a table: what a frozen backbone makes of each sample is computed once.

Where all but the last layers is frozen for good and nothing is augmented, the backbone gives the same features in
every epoch. They then are the samples that a step reads, and the head alone is run. The model itself stays whole: it
is what is saved, and evaluated by everybody else.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainkit.data.batch import Batch
from trainkit.data.dataset import Data, Loading
from trainkit.data.loaders import Loader
from trainkit.data.spec import INPUT, DataSpec, InputSpec
from trainkit.data.splits import Split
from trainkit.machine import free_host_memory
from trainkit.optim.finetune import Frozen
from trainkit.randomness import reseed
from trainkit.training.signals import Stop
from trainkit.training.speed import Forward

SHARE = 0.5  # of the free memory that features may take


def trained_module(model: nn.Module, frozen: Frozen) -> str | None:
    """The name of the largest module that holds all that is trained and nothing frozen; None where there is none.

    None either where something frozen is unfrozen later, and where nothing is frozen.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not frozen.for_good or not frozen.names:
        return None
    for name, module in model.named_modules():  # from the outside in
        within = {f"{name}.{inner}" for inner, _ in module.named_parameters()}
        if name and within and trained == within:
            return str(name)
    return None


def probe(
    model: nn.Module,
    forward: Forward,
    head: nn.Module,
    head_forward: Forward,
    data: Data,
    loader: Callable[[str], Loader],
    stop: Stop,
    train_mode: Callable[[], None],
) -> Data | str:
    """The data set with features for samples; or why the head's inputs do not stand for the samples.

    forward, head_forward: of the model, not compiled, and of its part that is trained. loader: the samples of a split,
    in order. train_mode: puts the model into the mode that it is trained in.
    """
    with _watched(head) as seen:
        reason = _differs(model, forward, head_forward, next(iter(loader("train"))), seen, train_mode)
        if reason is not None:
            return reason
        width = seen[0].shape[1:]
        samples = sum(len(split) for split in data.splits.values())
        if 4 * samples * math.prod(width) > SHARE * free_host_memory():
            return f"{samples:,} x {math.prod(width):,} features take more than half of the free memory"
        splits = {
            name: _features(model, forward, loader(name), split, seen, stop) for name, split in data.splits.items()
        }
    served = copy.copy(data)
    served.splits = splits
    served.spec = DataSpec({INPUT: InputSpec("array", tuple(width), "float32")}, data.spec.targets)
    served.loading = Loading("resident", "features of a frozen backbone")
    return served


@contextmanager
def _watched(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What a module is given, each time that it is called."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
    try:
        yield seen
    finally:
        handle.remove()


@torch.no_grad()
def _differs(
    model: nn.Module,
    forward: Forward,
    head_forward: Forward,
    batch: Batch,
    seen: list[torch.Tensor],
    train_mode: Callable[[], None],
) -> str | None:
    """Why the model is not its head on features that are the same in training and in evaluation; None if it is."""
    features = []
    for number, mode in enumerate((train_mode, train_mode, model.eval)):
        mode()
        seen.clear()
        reseed(batch.rows.device, 0, "features", number)  # what the backbone draws must not matter
        outputs = forward(batch.inputs)
        if len(seen) != 1 or not seen[0].is_floating_point() or len(seen[0]) != len(batch):
            return "the head is not called once, with one tensor"
        features.append(seen[0].float())
    if not torch.equal(features[0], features[1]) or not torch.equal(features[0], features[2]):
        return "the backbone draws random numbers in training"
    if not torch.equal(head_forward(features[-1]), outputs):
        return "the model's outputs are not those of its head"
    return None


@torch.inference_mode()
def _features(
    model: nn.Module, forward: Forward, loader: Loader, split: Split, seen: list[torch.Tensor], stop: Stop
) -> Split:
    model.eval()
    parts = []
    for batch in loader:
        stop.check()
        seen.clear()
        forward(batch.inputs)
        parts.append(seen[0].float().cpu())
    return Split(torch.cat(parts).numpy(), split.targets, names=split.names)
