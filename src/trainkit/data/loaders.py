"""Batches for the model. Whether samples live on the device (resident) or come a batch at a time (streaming) changes
where they are read from, never a number: order, augmentation and normalisation are the same code on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from trainkit.data.augment import Augment, Draw
from trainkit.data.files import Files
from trainkit.data.splits import Data, Split
from trainkit.randomness import permutation, torch_generator

Batch = tuple[torch.Tensor, torch.Tensor]


class Normalize:
    """Raw inputs and targets to what the model and the loss take: float32, standardised by the training statistics.

    Inputs are raw on the device, targets on the host: where they are float64 the device may have no such type.
    """

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
            self.target_mean = torch.from_numpy(data.target_mean)
            self.target_std = torch.from_numpy(data.target_std)

    def inputs(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.mul(raw, self.scale).add_(self.shift)

    def targets(self, raw: torch.Tensor) -> torch.Tensor:
        if self.target_mean is not None and self.target_std is not None:
            raw = (raw - self.target_mean) / self.target_std
        return raw.float() if raw.is_floating_point() else raw

    def predictions(self, outputs: torch.Tensor) -> torch.Tensor:
        """What a model gives, on the host, in the targets' own unit and type: the inverse of `targets`."""
        if self.target_mean is None or self.target_std is None:
            return outputs.cpu()
        return outputs.cpu() * self.target_std + self.target_mean


class Loader:
    """Batches of a split: what all kinds share, which is everything that decides their content.

    `epoch(n)` yields shuffled, augmented training batches; iterating yields every sample once, in order.
    A kind says in `raw` how samples come to the device, and in `hint` what helps when that takes long.
    """

    hint: str | None = None

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
        self.targets = normalize.targets(torch.from_numpy(split.targets)).to(device)
        self.names = split.names
        self.batch_size = batch_size
        self.normalize = normalize
        self.device = device
        self.seed = seed
        self.augment = augment

    def raw(self, bounds: list[slice], order: torch.Tensor | None) -> Iterator[Batch]:
        """Inputs and targets on the device, as they are stored, of each slice of `order` (None: of the split)."""
        raise NotImplementedError

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

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of a training epoch but the first `skip`, which were trained on before."""
        order = permutation(self.num_samples, self.seed, epoch)
        index = order if self.augment is None else order.to(self.device)
        bounds = self._bounds(self.steps_per_epoch)[skip:]
        first = epoch * self.steps_per_epoch + skip
        for step, (part, batch) in enumerate(zip(bounds, self.raw(bounds, order), strict=True), start=first):
            inputs, targets = batch
            if self.augment is None:
                yield self.normalize.inputs(inputs), targets
            else:
                generator = torch_generator(self.seed, "augment", step, device=self.device)
                draw = Draw(self.seed, epoch, index[part], generator)
                yield self.augment(inputs, targets, self.normalize.inputs, draw)

    def samples(self, epoch: int, batch: int) -> list[str]:
        """What the samples of a training batch are called: the names of their files, or their rows in the split."""
        rows = permutation(self.num_samples, self.seed, epoch)[self._bounds(self.steps_per_epoch)[batch]].numpy()
        return [str(row if self.names is None else self.names[row]) for row in rows]

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.raw(self._bounds(-(-self.num_samples // self.batch_size)), None):
            yield self.normalize.inputs(inputs), targets

    def _bounds(self, steps: int) -> list[slice]:
        starts = [step * self.batch_size for step in range(steps)]
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], self.num_samples], strict=True)]


class ResidentLoader(Loader):
    """A split held on the device: a batch is one index operation."""

    def __init__(
        self, split: Split, batch_size: int, normalize: Normalize, device: torch.device, **options: Any
    ) -> None:
        super().__init__(split, batch_size, normalize, device, **options)
        assert not isinstance(split.inputs, Files)
        self.inputs = torch.from_numpy(split.inputs).to(device)

    def raw(self, bounds: list[slice], order: torch.Tensor | None) -> Iterator[Batch]:
        if order is None:
            yield from ((self.inputs[part], self.targets[part]) for part in bounds)
            return
        order = order.to(self.device)
        for part in bounds:
            index = order[part]
            yield self.inputs.index_select(0, index), self.targets.index_select(0, index)


class StreamingLoader(Loader):
    """A split that is not on the device: decoded files, or an array of the host, a batch at a time."""

    def __init__(
        self, split: Split, batch_size: int, normalize: Normalize, device: torch.device, **options: Any
    ) -> None:
        super().__init__(split, batch_size, normalize, device, **options)
        self.inputs = split.inputs
        self.hint = "loader=resident, if the device has room for all samples"
        if isinstance(split.inputs, Files):
            workers = split.inputs.stream.workers
            self.hint = f"workers={2 * workers or 1}, loader=resident if memory allows, or smaller images"

    def raw(self, bounds: list[slice], order: torch.Tensor | None) -> Iterator[Batch]:
        everything = torch.arange(self.num_samples) if order is None else order
        indices = [everything[part] for part in bounds]
        on_device = everything.to(self.device)
        for part, inputs in zip(bounds, self._on_host(indices), strict=True):
            # Pinned memory is copied while the model computes, and torch does not hand it out again before that.
            yield inputs.to(self.device, non_blocking=True), self.targets.index_select(0, on_device[part])

    def _on_host(self, indices: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        pinned = self.device.type == "cuda"
        if isinstance(self.inputs, Files):
            for decoded in self.inputs.batches([index.numpy() for index in indices]):
                batch = torch.empty(decoded.shape, dtype=torch.uint8, pin_memory=pinned)
                yield batch.copy_(torch.from_numpy(decoded))
            return
        samples = torch.from_numpy(self.inputs)
        for index in indices:
            batch = torch.empty((len(index), *samples.shape[1:]), dtype=samples.dtype, pin_memory=pinned)
            yield torch.index_select(samples, 0, index, out=batch)


def make_loader(
    data: Data, split: str, batch_size: int, normalize: Normalize, device: torch.device, **options: Any
) -> Loader:
    """The loader of a split, of the kind that `data.loading` says; options: `seed` and `augment`, for training."""
    kind = ResidentLoader if data.loading.kind == "resident" else StreamingLoader
    return kind(data.splits[split], batch_size, normalize, device, **options)
