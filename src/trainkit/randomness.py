"""Randomness as a pure function of (seed, purpose, epoch, step).

Nothing depends on the history of a generator, so numbers do not change with workers, logging, evaluation
frequency or the step a run was resumed at, and there is no generator state to save. The keys are hashed, so that
neighbouring seeds and steps give unrelated streams.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def key(seed: int, *parts: str | int) -> int:
    """A 63-bit integer for (seed, *parts), the same on every machine and in every version."""
    digest = hashlib.sha256(repr((seed, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def numpy_generator(seed: int, *parts: str | int) -> np.random.Generator:
    """A counter-based NumPy generator of its own for (seed, *parts)."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key(seed, *parts)))


def torch_generator(seed: int, *parts: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of its own for (seed, *parts)."""
    import torch

    return torch.Generator(device).manual_seed(key(seed, *parts))


def reseed(device: torch.device, seed: int, *parts: str | int) -> None:
    """Set torch's default generators, which weight initialisation and dropout draw from.

    Sets the CPU's and, on CUDA, that one device's: `torch.manual_seed` visits every back end and costs 100 times more.
    """
    import torch

    value = key(seed, *parts)
    torch.default_generator.manual_seed(value)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(value)


def permutation(num_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of the training samples in an epoch: int64 of shape (num_samples,), on the CPU on every device."""
    import torch

    return torch.randperm(num_samples, generator=torch_generator(seed, "order", epoch))
