"""Batches for the model. A split lives on the device as it was decoded; a batch is one index operation away."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from trainkit.data.augment import Augment, Draw
from trainkit.data.splits import Data, Split
from trainkit.randomness import permutation, torch_generator

Batch = tuple[torch.Tensor, torch.Tensor]


class Normalize:
    """Raw inputs and targets to what the model and the loss take: float32, standardised by the training statistics."""

    def __init__(self, data: Data, device: torch.device) -> None:
        assert data.mean is not None and data.std is not None
        mean, std = torch.from_numpy(data.mean).to(device), torch.from_numpy(data.std).to(device)
        unit = 255.0 if data.splits["train"].inputs.dtype == "uint8" else 1.0
        ones = [1] * (len(data.in_shape) - 1)  # (C,) against (C, H, W)
        # x * scale + shift is (x / unit - mean) / std in two passes over the batch instead of three
        self.scale = (1 / (std * unit)).view(-1, *ones)
        self.shift = (-mean / std).view(-1, *ones)
        self.target_mean: torch.Tensor | None = None
        self.target_std: torch.Tensor | None = None
        if data.target_mean is not None and data.target_std is not None:
            self.target_mean = torch.from_numpy(data.target_mean).to(device)
            self.target_std = torch.from_numpy(data.target_std).to(device)

    def inputs(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.mul(raw, self.scale).add_(self.shift)

    def targets(self, raw: torch.Tensor) -> torch.Tensor:
        if self.target_mean is None or self.target_std is None:
            return raw
        return (raw - self.target_mean) / self.target_std


class ResidentLoader:
    """A split held on the device.

    `epoch(n, first_step)` yields shuffled, augmented training batches; iterating yields every sample once, in order.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        normalize: Normalize,
        device: torch.device,
        *,
        seed: int = 0,
        augment: Augment | None = None,
    ) -> None:
        self.inputs = torch.from_numpy(split.inputs).to(device)
        self.targets = normalize.targets(torch.from_numpy(split.targets).to(device))
        self.batch_size = batch_size
        self.normalize = normalize
        self.device = device
        self.seed = seed
        self.augment = augment

    @property
    def num_samples(self) -> int:
        return len(self.targets)

    @property
    def lone_sample(self) -> bool:
        """Whether the last training batch would hold one sample, which batch normalisation cannot train on."""
        return self.num_samples > self.batch_size > 1 and self.num_samples % self.batch_size == 1

    @property
    def steps_per_epoch(self) -> int:
        # a lone sample joins the batch before it
        return -(-self.num_samples // self.batch_size) - self.lone_sample

    def epoch(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of a training epoch; `first_step` is the number of steps taken before it."""
        order = permutation(self.num_samples, self.seed, epoch).to(self.device)
        for i in range(self.steps_per_epoch):
            last = i == self.steps_per_epoch - 1
            index = order[i * self.batch_size : None if last else (i + 1) * self.batch_size]
            inputs, targets = self.inputs.index_select(0, index), self.targets.index_select(0, index)
            if self.augment is None:
                yield self.normalize.inputs(inputs), targets
            else:
                generator = torch_generator(self.seed, "augment", first_step + i, device=self.device)
                draw = Draw(self.seed, epoch, index, generator)
                yield self.augment(inputs, targets, self.normalize.inputs, draw)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.num_samples, self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.normalize.inputs(self.inputs[part]), self.targets[part]
