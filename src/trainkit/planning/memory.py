"""Bytes that training takes: weights, optimizer state and kept activations, and the peak of a real step."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainkit.checkpoints.checkpoint import optimizer_state
from trainkit.data.batch import Batch
from trainkit.training.run import Run
from trainkit.training.speed import Forward


def tensor_bytes(tensors: Iterator[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def state_bytes(model: nn.Module) -> int:
    """Parameters and buffers, those with several names once."""
    return tensor_bytes(itertools.chain(model.parameters(), model.buffers()))


def average_bytes(run: Run) -> int:
    """The moving average of the weights, where one is kept."""
    return state_bytes(run.ema.model) if run.ema is not None else 0


def optimizer_bytes(run: Run) -> int:
    """What the optimizer keeps; all of it only after the first step."""
    tensors, _ = optimizer_state(run.model, run.optimizer)
    return tensor_bytes(iter(tensors.values()))


def activation_bytes(run: Run, forward: Forward, batch: Batch) -> int:
    """Bytes that the forward pass of this batch keeps for the backward pass, the batch itself among them.

    Counted where autograd puts them aside, each storage once; weights and other state of the model are not counted.
    """
    owned = {tensor.untyped_storage().data_ptr() for tensor in [*run.model.parameters(), *run.model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # holding them keeps an address from being used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage
        return tensor

    run.train_mode()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = run.loss_fn(forward(batch.inputs), batch)
    total = sum(storage.nbytes() for storage in kept.values())
    del loss
    return total


class TensorPeak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made inside this context took at one time: `peak`. For the CPU.

    What a backend takes for itself inside an operation (oneDNN's scratch and reordered weights) is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._live: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity in self._live:
            return
        nbytes = storage.nbytes()
        self._live.add(identity)
        weakref.finalize(storage, self._drop, identity, nbytes)
        self.now += nbytes
        self.peak = max(self.peak, self.now)

    def _drop(self, identity: int, nbytes: int) -> None:
        self._live.discard(identity)
        self.now -= nbytes


def peak_of(run: Run, work: Callable[[], None]) -> int:
    """The most bytes of memory that the model's state and this work took together.

    On CUDA what torch's allocator handed out at most, which includes samples that live on the device. On the CPU the
    state and the tensors that were made.
    """
    if run.device.type == "cuda":
        torch.cuda.synchronize(run.device)
        torch.cuda.reset_peak_memory_stats(run.device)
        work()
        torch.cuda.synchronize(run.device)
        return int(torch.cuda.max_memory_allocated(run.device))
    state = state_bytes(run.model) + average_bytes(run) + optimizer_bytes(run)
    with TensorPeak() as tensors:
        work()
    return state + int(tensors.peak)
