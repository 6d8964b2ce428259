"""Parameters and floating-point operations of a model, layer by layer, from one real forward and backward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from trainkit.data.batch import Batch
from trainkit.losses.base import Loss
from trainkit.tasks.meter import sum_terms


@dataclasses.dataclass(frozen=True)
class Layer:
    """One module without children, or with parameters of its own.

    output: shape without the batch. parameters: those that no layer before it has. flops: of one sample, forward.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Work:
    """A model's layers in the order they run in, and the FLOPs of one sample (float operations, multiply-add is 2)."""

    layers: list[Layer]
    forward_flops: int
    backward_flops: int


def measure_work(model: nn.Module, loss_fn: Loss, batch: Batch) -> Work:
    """Count the work of a training pass over these samples, per sample.

    As `torch.utils.flop_counter` counts: matrix products, convolutions and attention, 2 per multiply-add; elementwise
    operations, norms, pooling and the optimizer do not count. Precision, compilation and recomputation change none of
    this model's mathematics and are left out. The gradients are removed; running statistics of norms do change.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    order: list[str] = []
    handles = []

    def hook(name: str) -> Any:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            if name not in order:
                order.append(name)
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape[1:])

        return note

    modules = {name: module for name, module in model.named_modules() if _counts(module)}
    for name, module in modules.items():
        handles.append(module.register_forward_hook(hook(name)))
    model.train()
    try:
        with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
            inputs = batch.inputs
            outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
            loss = sum_terms(loss_fn(outputs, batch))
            forward = counter.get_total_flops()
            counts = counter.get_flop_counts()  # of the backward pass torch tells modules apart only roughly
            loss.backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    root = type(model).__name__
    n = len(batch)
    counted: set[nn.Parameter] = set()
    layers = [
        Layer(
            name or root,
            type(modules[name]).__name__,
            shapes.get(name),
            _count_new(modules[name], counted),
            sum(counts.get(f"{root}.{name}" if name else root, {}).values()) // n,
        )
        for name in [*order, *(name for name in modules if name not in order)]
    ]
    return Work(layers, forward // n, (counter.get_total_flops() - forward) // n)


def _convolution_backward(
    grad_shape: Any, x_shape: Any, weight_shape: Any, _bias: Any, _stride: Any, _pad: Any, _dilation: Any,
    transposed: bool, _output_pad: Any, _groups: int, wanted: Sequence[bool], *, out_shape: Any,
) -> int:  # fmt: skip
    """The FLOPs of a convolution's gradients: as many as forward for that of its input, and of its weight.

    torch's own formula takes the gradients of a grouped convolution for those of a full one.
    """
    return conv_flop_count(x_shape, weight_shape, grad_shape, transposed) * sum(wanted[:2])


FORMULAS = {torch.ops.aten.convolution_backward: _convolution_backward}


def _count_new(module: nn.Module, counted: set[nn.Parameter]) -> int:
    new = set(module.parameters(recurse=_is_leaf(module))) - counted
    counted |= new
    return sum(parameter.numel() for parameter in new)


def _counts(module: nn.Module) -> bool:
    return _is_leaf(module) or next(module.parameters(recurse=False), None) is not None


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None
