"""Batches for the model. Whether samples live on the device (resident) or come a batch at a time (streaming) changes
where they are read from, never a number: order, augmentation and normalization are the same code on the device."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from trainkit.data.augment.base import Augment, Draw
from trainkit.data.batch import Batch, Tree, map_tree
from trainkit.data.dataset import Data
from trainkit.data.samplers import shuffled
from trainkit.data.spec import INPUT, TARGET, DataSpec, InputSpec, TargetSpec, named
from trainkit.data.splits import Split
from trainkit.randomness import numpy_generator, torch_generator

if TYPE_CHECKING:
    from trainkit.data.samplers import Order


class Scaling:
    """x * scale + shift: a normalization in two passes over a batch instead of three."""

    def __init__(self, spec: InputSpec, device: torch.device) -> None:
        mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (spec.mean, spec.std))
        unit = 255.0 if spec.dtype == "uint8" else 1.0
        ones = [1] * (len(spec.shape) - 1)  # (C,) against (C, H, W)
        # (x / unit - mean) / std
        self.scale = (1 / (std * unit)).view(-1, *ones)
        self.shift = (-mean / std).view(-1, *ones)

    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        return torch.mul(raw, self.scale).add_(self.shift)

    def undo(self, values: torch.Tensor) -> torch.Tensor:
        return (values - self.shift) / self.scale


class Standard:
    """(y - mean) / std of a target, and back, on the host and in the type of the target: float64 may hold more digits
    than a device has a type for."""

    def __init__(self, spec: TargetSpec) -> None:
        dtype = torch.float64 if spec.dtype == "float64" else torch.float32
        self.mean, self.std = (torch.tensor(values, dtype=dtype) for values in (spec.mean, spec.std))

    def __call__(self, raw: torch.Tensor) -> torch.Tensor:
        return (raw - self.mean) / self.std

    def original(self, values: torch.Tensor) -> torch.Tensor:
        """Predictions (N, T) in the target's own unit and type, on the host."""
        return values.cpu() * self.std + self.mean


class Normalize:
    """Stored inputs and targets to what the model and the loss take, as the specification of the data says.

    Inputs are changed on the device, targets on the host, where they are float32 afterwards if they are no integers.
    """

    def __init__(self, spec: DataSpec, device: torch.device) -> None:
        self.scalings = {name: Scaling(one, device) for name, one in spec.inputs.items() if one.normalize}
        self.standards = {name: Standard(one) for name, one in spec.targets.items() if one.standardize}

    def inputs(self, raw: Tree) -> Tree:
        if isinstance(raw, torch.Tensor):
            return self.scalings[INPUT](raw) if self.scalings else raw
        return {name: self.scalings[name](one) if name in self.scalings else one for name, one in raw.items()}

    def stored(self, values: torch.Tensor, name: str) -> torch.Tensor:
        """An input as it was before it was normalized."""
        return self.scalings[name].undo(values) if name in self.scalings else values

    def targets(self, raw: Tree) -> Tree:
        found = {name: self._target(name, one) for name, one in named(raw, TARGET).items()}
        return found if isinstance(raw, dict) else found[TARGET]

    def _target(self, name: str, raw: torch.Tensor) -> torch.Tensor:
        found = self.standards[name](raw) if name in self.standards else raw
        return found.float() if found.is_floating_point() else found

    def original(self, values: torch.Tensor, name: str = TARGET) -> torch.Tensor:
        """What a model gives, on the host, in the target's own unit and type: the inverse of `targets`."""
        return self.standards[name].original(values) if name in self.standards else values.cpu()


class Loader:
    """Batches of a split: what all kinds share, which is everything that decides their content.

    `epoch(n)` yields augmented training batches in the sampler's order; iterating yields every sample once, in order.
    A kind says in `raw` how samples come to the device, and in `hint` what helps when that takes long.
    order: rows of the split for each epoch, as many in every one; None: a new permutation.
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
        order: Order | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.normalize = normalize
        self.device = device
        self.seed = seed
        self.augment = augment
        self.order = order or shuffled(len(split), seed)
        self.num_samples = len(split) if order is None else len(order(0))  # of one epoch

    def raw(self, bounds: list[slice], rows: torch.Tensor | None, epoch: int) -> Iterator[Batch]:
        """Batches on the device, inputs as stored, targets normalized: of each slice of the rows (None: all)."""
        raise NotImplementedError

    @property
    def lone_sample(self) -> bool:
        """Whether the last training batch would hold one sample, which batch normalization cannot train on."""
        return self.num_samples > self.batch_size > 1 and self.num_samples % self.batch_size == 1

    @property
    def steps_per_epoch(self) -> int:
        # a lone sample joins the batch before it
        return -(-self.num_samples // self.batch_size) - self.lone_sample

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of a training epoch but the first `skip`, which were trained on before."""
        bounds = self._bounds(self.num_samples, self.steps_per_epoch)[skip:]
        batches = self.raw(bounds, self.order(epoch), epoch)
        for step, batch in enumerate(batches, start=epoch * self.steps_per_epoch + skip):
            if self.augment is None:
                yield Batch(self.normalize.inputs(batch.inputs), batch.targets, batch.rows)
            else:
                draw = Draw(
                    self.seed, epoch, batch.rows, torch_generator(self.seed, "augment", step, device=self.device)
                )
                yield self.augment(batch, self.normalize.inputs, draw)

    def samples(self, epoch: int, batch: int) -> list[str]:
        """What the samples of a training batch are called: the names of their files, or their rows in the split."""
        rows = self.order(epoch)[self._bounds(self.num_samples, self.steps_per_epoch)[batch]].numpy()
        return [str(row if self.split.names is None else self.split.names[row]) for row in rows]

    def __iter__(self) -> Iterator[Batch]:
        size = len(self.split)
        for batch in self.raw(self._bounds(size, -(-size // self.batch_size)), None, 0):
            yield Batch(self.normalize.inputs(batch.inputs), batch.targets, batch.rows)

    def _bounds(self, size: int, steps: int) -> list[slice]:
        starts = [step * self.batch_size for step in range(steps)]
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], size], strict=True)]


class ResidentLoader(Loader):
    """A split held on the device: a batch is one index operation for each of its tensors."""

    def __init__(
        self, split: Split, batch_size: int, normalize: Normalize, device: torch.device, **options: Any
    ) -> None:
        super().__init__(split, batch_size, normalize, device, **options)
        inputs, targets = tensors(split.inputs), tensors(split.targets)
        self.inputs = map_tree(lambda tensor: tensor.to(device), inputs)
        self.targets = map_tree(lambda tensor: tensor.to(device), normalize.targets(targets))

    def raw(self, bounds: list[slice], rows: torch.Tensor | None, epoch: int) -> Iterator[Batch]:
        order = torch.arange(len(self.split)) if rows is None else rows
        order = order.to(self.device)
        for part in bounds:
            index = order[part]
            # in the split's own order a slice is enough, which copies nothing
            pick = (
                operator.itemgetter(part) if rows is None else functools.partial(torch.index_select, dim=0, index=index)
            )
            yield Batch(map_tree(pick, self.inputs), map_tree(pick, self.targets), index)


class StreamingLoader(Loader):
    """A split that is not on the device: files, arrays of the host, or a torch Dataset, a batch at a time."""

    def __init__(
        self, split: Split, batch_size: int, normalize: Normalize, device: torch.device, **options: Any
    ) -> None:
        super().__init__(split, batch_size, normalize, device, **options)
        self.hint = split.hint or "loader=resident, if the device has room for all samples"

    def raw(self, bounds: list[slice], rows: torch.Tensor | None, epoch: int) -> Iterator[Batch]:
        order = torch.arange(len(self.split)) if rows is None else rows
        on_device = order.to(self.device)
        read = self.split.batches([order[part].numpy() for part in bounds], self.seed, epoch)
        for part, (inputs, targets) in zip(bounds, read, strict=True):
            raw, labels = tensors(inputs), self.normalize.targets(tensors(targets))
            yield Batch(map_tree(self._moved, raw), map_tree(self._moved, labels), on_device[part])

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.device.type == "cuda":
            # Pinned memory is copied while the model computes, and torch does not hand it out again before that.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.clone().to(self.device)  # what was read is overwritten when the next batch is asked for


def tensors(arrays: Any) -> Tree:
    """Arrays as tensors that share their memory."""
    if isinstance(arrays, dict):
        return {name: torch.from_numpy(array) for name, array in arrays.items()}
    return torch.from_numpy(arrays)


def sample_inputs(data: Data, most: int, seed: int) -> Tree:
    """Normalized inputs (N, …) of up to so many training samples, chosen by the seed, on the CPU."""
    train = data.splits["train"]
    chosen = numpy_generator(seed, "initialize").permutation(len(train))[:most]
    inputs, _ = next(train.batches([chosen], seed))
    return Normalize(data.spec, torch.device("cpu")).inputs(tensors(inputs))


def make_loader(
    data: Data, split: str, batch_size: int, normalize: Normalize, device: torch.device, **options: Any
) -> Loader:
    """The loader of a split, of the kind that `data.loading` says; options as of `Loader`, for training."""
    kind = ResidentLoader if data.loading.kind == "resident" else StreamingLoader
    return kind(data.splits[split], batch_size, normalize, device, **options)
