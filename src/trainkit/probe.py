"""A look at what model, loss and augmentation give before the first step, while nothing can be lost yet."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.config.frame import Train
from trainkit.data.files import Files, Stream
from trainkit.data.loaders import Loader, make_loader
from trainkit.data.splits import Data
from trainkit.errors import ConfigError, TrainkitError
from trainkit.loop import Run
from trainkit.speed import Forward, untracked

FEW = 2  # samples: enough to see a kind, and for batch norm


def try_out(config: Train, data: Data, run: Run, forward: Forward) -> None:
    """Pass a few training samples through all that a step and an evaluation call; the run stays as it is.

    forward: the model's, not compiled. Raises ConfigError when the model or the loss gives another kind of thing than
    is needed. What they raise themselves is raised with a note that says in whose code.
    """
    try:
        _pass(config, data, run, forward, FEW)
    except TrainkitError:
        raise
    except Exception:
        if run.train.batch_size <= FEW:
            raise
        _pass(config, data, run, forward, run.train.batch_size)  # a model may need more samples at once than a few


def _pass(config: Train, data: Data, run: Run, forward: Forward, count: int) -> None:
    with _unchanged(run.model):
        loader = _first(data, run, count)
        with _naming(f"augment '{config.augment.name}'"):
            inputs, targets = next(loader.epoch(0))
        run.model.train()
        loss = _answer(config, run, forward, data.num_outputs, inputs, targets)
        if not loss.requires_grad:
            raise ConfigError(
                f"the loss has no gradient, so that nothing would be learnt: model '{config.model.name}' or loss "
                f"'{config.loss.name}' cuts it off (detach, no_grad, item)"
            )
        inputs, targets = next(iter(loader))
        run.model.eval()
        with torch.no_grad():
            _answer(config, run, forward, data.num_outputs, inputs, targets)


def _answer(
    config: Train, run: Run, forward: Forward, num_outputs: int, inputs: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """The loss of a batch, if it and the model's outputs are of the right kind."""
    with _naming(f"model '{config.model.name}' on train samples {_kind(inputs)}"):
        outputs: Any = forward(inputs)
    wanted = (len(inputs), num_outputs)
    if not _is_float(outputs) or outputs.shape != wanted:
        mode = "training" if run.model.training else "evaluation"
        raise ConfigError(
            f"model '{config.model.name}' gave {_kind(outputs)} in {mode} for inputs {tuple(inputs.shape)}; "
            f"it must give one float tensor of shape {wanted}"
        )
    with _naming(f"loss '{config.loss.name}' on outputs {_kind(outputs)} and targets {_kind(targets)}"):
        loss: Any = run.loss_fn(outputs, targets)
    if not _is_float(loss) or loss.ndim:
        raise ConfigError(
            f"loss '{config.loss.name}' gave {_kind(loss)}; it must give one number, the mean over the batch: "
            "a float tensor of shape ()"
        )
    return loss  # type: ignore[no-any-return]


def _first(data: Data, run: Run, count: int) -> Loader:
    """A loader of the first training samples alone, which reads and changes them as the run's own."""
    train = data.splits["train"].take(np.arange(min(count, run.train.num_samples)))
    if isinstance(train.inputs, Files):  # decoded here: workers take longer to start
        stream = train.inputs.stream
        train.inputs = Files(train.inputs.paths, Stream(stream.shape, stream.mode, 0))
    small = dataclasses.replace(data, splits={"train": train})
    own = run.train
    return make_loader(small, "train", count, own.normalize, own.device, seed=own.seed, augment=own.augment)


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Take back what forward passes do to the model: its buffers, parameters (`max_norm` of an embedding), modes."""
    modes = [(module, module.training) for module in model.modules()]
    kept = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    try:
        with untracked(model):
            yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _naming(whose: str) -> Iterator[None]:
    try:
        yield
    except TrainkitError:
        raise
    except Exception as error:
        error.add_note(whose)
        raise


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _kind(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return "None" if value is None else f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
