"""Ways to resume wrongly, each by one change to the code of a process that is about to. See test_exact_resume.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainkit import randomness, storage
from trainkit.checkpoints import checkpoint, state
from trainkit.data import loaders, samplers
from trainkit.tasks.meter import Meter
from trainkit.training.ema import Ema
from trainkit.training.run import Run


def optimizer() -> None:
    """Adam starts anew."""
    checkpoint.load_optimizer = lambda *arguments: None  # type: ignore[assignment]


def buffers() -> None:
    """The running statistics of batch normalization start anew."""
    load = checkpoint.load_weights

    def forget(model: torch.nn.Module, tensors: dict[str, torch.Tensor], prefix: str, path: Path) -> None:
        fresh = {name: buffer.clone() for name, buffer in model.named_buffers()}
        load(model, tensors, prefix, path)
        if prefix == "model/":
            for name, buffer in model.named_buffers():
                buffer.copy_(fresh[name])

    checkpoint.load_weights = forget


def average() -> None:
    """The moving average starts anew, from the weights of the step."""
    after(lambda run: run.ema and vars(run).update(ema=Ema(run.model, run.ema.decay)))


def sums() -> None:
    """The sums of the epoch that had begun are forgotten."""
    Meter.restore = lambda *arguments: None  # type: ignore[method-assign]


def monitor() -> None:
    """Which epoch was the best so far is forgotten."""
    after(lambda run: vars(run.monitor).update(best=None))


def best() -> None:
    """How long ago the best epoch was is forgotten: patience begins anew."""
    after(lambda run: vars(run.monitor).update(best_epoch=run.epoch))


def order() -> None:
    """The order of the samples is that of the next epoch."""
    samplers.permutation = lambda count, seed, epoch: randomness.permutation(count, seed, epoch + 1)


def augmentation() -> None:
    """The augmentation is that of the next step."""
    keyed = randomness.torch_generator

    def shifted(seed: int, purpose: str, step: int, **options: Any) -> torch.Generator:
        return keyed(seed, purpose, step + 1, **options)

    loaders.torch_generator = shifted  # type: ignore[assignment]


def global_randomness() -> None:
    """Dropout draws from a generator that was seeded once, when the process began."""
    torch.manual_seed(0)
    from trainkit import loop

    loop.reseed = lambda *arguments: None  # type: ignore[assignment]


def log_offset() -> None:
    """The logs keep the lines that were written after the checkpoint."""
    storage.truncate = lambda path, length: length


def threads() -> None:
    """Two threads instead of one."""
    set_threads = torch.set_num_threads
    torch.set_num_threads = lambda count: set_threads(2)


def after(change: Callable[[Run], object]) -> None:
    """Make a change to the run that was restored."""
    restore = state.restore

    def restore_and_change(run: Run, *arguments: Any) -> None:
        restore(run, *arguments)
        change(run)

    state.restore = restore_and_change
