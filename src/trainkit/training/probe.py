"""A look at what model, loss, metrics and augmentation give before the first step, while nothing can be lost yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.config.frame import Train
from trainkit.data.batch import Batch
from trainkit.data.dataset import Data
from trainkit.data.loaders import Loader
from trainkit.data.spec import DataSpec
from trainkit.errors import ConfigError, TrainkitError, kind_of
from trainkit.tasks.base import Metric, task_of
from trainkit.tasks.meter import sum_terms
from trainkit.training.run import Run, Step
from trainkit.training.speed import Forward, untracked

FEW = 2  # samples: enough to see a kind, and for batch norm


def try_out(config: Train, data: Data, run: Run, forward: Forward) -> list[Metric]:
    """Pass a few training samples through all that a step and an evaluation call; the run stays as it is.

    forward: the model's, not compiled. Returns the terms of the loss, which are metrics. Raises ConfigError when the
    model or the loss gives another kind of thing than is needed. What they raise themselves is raised with a note that
    says in whose code.
    """
    try:
        return _pass(config, data, run, forward, FEW)
    except TrainkitError:
        raise
    except Exception:
        if run.train.batch_size <= FEW:
            raise
        # a model may need more samples at once than a few
        return _pass(config, data, run, forward, run.train.batch_size)


def _pass(config: Train, data: Data, run: Run, forward: Forward, count: int) -> list[Metric]:
    with _unchanged(run.model):
        loader = _first(data, run, count)
        with _naming(f"augment '{config.augment.name}'"):
            batch = next(loader.epoch(0))
        run.train_mode()
        loss, outputs = _answer(config, run, forward, data.spec, batch)
        if not sum_terms(loss).requires_grad:
            raise ConfigError(
                f"the loss has no gradient, so that nothing would be learned: model '{config.model.name}' or loss "
                f"'{config.loss.name}' cuts it off (detach, no_grad, item)"
            )
        batch = next(iter(loader))
        run.model.eval()
        with torch.no_grad():
            loss, outputs = _answer(config, run, forward, data.spec, batch)
            meter = run.meter(True)
            with _naming(f"a metric of {data.spec.target.task} on outputs {kind(outputs)}"):
                meter.add(loss, outputs, batch.targets, weight=run.loss_fn.weight(batch), count=len(batch))
                meter.read()
            return [Metric(name, "min") for name in loss] if isinstance(loss, dict) else []


def _answer(config: Train, run: Run, forward: Forward, spec: DataSpec, batch: Batch) -> Step:
    """The loss of a batch and the outputs, if they are of the right kind."""
    with _naming(f"model '{config.model.name}' on train samples {kind(batch.inputs)}"):
        outputs: Any = forward(batch.inputs)
    shape = task_of(spec.target).output_shape(spec.target) if len(spec.targets) == 1 else None
    wanted = (len(batch), *(("…",) if shape is None else shape))
    fits = _is_float(outputs) and outputs.ndim > 0 and len(outputs) == len(batch)
    if not fits or (shape is not None and outputs.shape != wanted):
        mode = "training" if run.model.training else "evaluation"
        told = str(wanted).replace("'", "")
        raise ConfigError(
            f"model '{config.model.name}' gave {kind(outputs)} in {mode} for inputs {_shapes(batch.inputs)}; "
            f"it must give one float tensor of shape {told}"
        )
    with _naming(f"loss '{config.loss.name}' on outputs {kind(outputs)} and targets {kind(batch.targets)}"):
        loss: Any = run.loss_fn(outputs, batch)
    terms = list(loss.values()) if isinstance(loss, dict) else [loss]
    strange = [term for term in terms if not _is_float(term) or term.ndim]
    if strange or not terms:
        raise ConfigError(
            f"loss '{config.loss.name}' gave {kind(strange[0] if strange else loss)}; it must give one number, the "
            "mean over the batch: a float tensor of shape (), or several by name"
        )
    return loss, outputs


def _first(data: Data, run: Run, count: int) -> Loader:
    """A loader of the first training samples alone, which reads and changes them as the run's own."""
    train = data.splits["train"].take(np.arange(min(count, len(data.splits["train"])))).without_workers()
    own = run.train
    return type(own)(train, count, own.normalize, own.device, seed=own.seed, augment=own.augment)


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


def check_rows(rows: Any, num_samples: int, name: str) -> None:
    """Raise ConfigError unless what a sampler gave are rows of the train split."""
    if not isinstance(rows, torch.Tensor) or rows.dtype != torch.int64 or rows.ndim != 1 or not len(rows):
        raise ConfigError(
            f"sampler '{name}' gave {kind(rows)}; it must give rows of the train split: an int64 tensor of shape (N,)"
        )
    if rows.min() < 0 or rows.max() >= num_samples:
        strange = int(rows.min() if rows.min() < 0 else rows.max())
        raise ConfigError(f"sampler '{name}' gave row {strange}; the train split has {num_samples}")


def kind(value: Any) -> str:
    """What a value is, in words: a tensor by its type and shape."""
    if isinstance(value, dict) and all(isinstance(one, torch.Tensor) for one in value.values()):
        return " and ".join(f"{name} {kind(one)}" for name, one in value.items())
    if not isinstance(value, torch.Tensor):
        return kind_of(value)
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"


def _shapes(value: Any) -> str:
    if isinstance(value, dict):
        return " and ".join(f"{name} {tuple(one.shape)}" for name, one in value.items())
    return str(tuple(value.shape))
