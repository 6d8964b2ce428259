"""What makes the same step faster or smaller: precision, memory format, compilation, recomputation, CUDA graphs.

Each is one flag of the config and refuses, in one line, what it cannot do. `prepare` puts the ones that wrap a model's
forward pass together; `GraphedStep` wraps a whole training step.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainkit.data.batch import Batch, Tree, map_tree
from trainkit.errors import ConfigError

Forward = Callable[[Tree], torch.Tensor]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_precision(precision: str, device: torch.device) -> torch.dtype | None:
    """Set what `precision` means for whole matrices; returns the autocast type of bf16 and fp16, else None.

    fp32: matrix products in full fp32, convolutions as `device.cudnn.allow_tf32` says (torch's own defaults). tf32:
    both in TF32 on GPUs that have it. Raises ConfigError for what the device cannot do.
    """
    if device.type != "cuda" and precision in ("tf32", "fp16"):
        raise ConfigError(f"precision={precision} needs a CUDA GPU; on the CPU use fp32 or bf16")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision=bf16: this GPU has no bfloat16; use fp16")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    if precision == "tf32":
        torch.backends.cudnn.allow_tf32 = True
    return DTYPES.get(precision)


def prepare(
    model: nn.Module,
    device: torch.device,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    compile: str | None = None,
    recompute: bool = False,
    several: bool = False,
) -> Forward:
    """The model's forward pass with these options: inputs (N, …), or several by name -> float32 outputs (N, …).

    several: the inputs are a dict, which the model gets as keyword arguments. The model itself stays as it is: its
    parameters, names and state are what is trained and saved.
    """
    forward: Any = recomputing(model) if recompute else model
    if compile is not None:
        forward = torch.compile(forward, mode=compile)
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if dtype is None and not channels_last and not several:
        return forward  # type: ignore[no-any-return]

    def run(inputs: Tree) -> torch.Tensor:
        if channels_last:
            inputs = map_tree(_channels_last, inputs)
        with torch.autocast(device.type, dtype) if dtype is not None else contextlib.nullcontext():
            outputs: torch.Tensor = forward(**inputs) if isinstance(inputs, dict) else forward(inputs)
        return outputs if dtype is None else outputs.float()  # the loss is computed in fp32

    return run


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def mirrored(forward: Forward) -> Forward:
    """The mean of the outputs for images (N, C, H, W) and for their left-right mirror images."""

    def run(inputs: Tree) -> torch.Tensor:
        return (forward(inputs) + forward(map_tree(lambda images: images.flip(-1), inputs))) / 2

    return run


def recomputing(model: nn.Module) -> Forward:
    """A forward pass that keeps only the activations between blocks and computes the rest again in the backward pass.

    Blocks are the layers of an `nn.Sequential`, in about sqrt(n) groups (Chen et al. 2016, arXiv:1604.06174). Raises
    ConfigError for a model that is not such a chain.
    """
    if not isinstance(model, nn.Sequential) or len(model) < 4:
        raise ConfigError("recompute=true is for deep models built as a chain of layers (nn.Sequential)")
    layers = list(model)
    size = max(round(len(layers) ** 0.5), 2)
    blocks = [nn.Sequential(*layers[i : i + size]) for i in range(0, len(layers), size)]

    def forward(x: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            for block in blocks:
                x = block(x)
            return x  # type: ignore[no-any-return]
        for block in blocks:
            contexts = functools.partial(_contexts, block)
            x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
        return x  # type: ignore[no-any-return]

    return forward


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _untracked(block)


@contextlib.contextmanager
def _untracked(block: nn.Module) -> Iterator[None]:
    # The second computation must not count the batch twice in the running statistics of batch norm: it updates copies.
    tracked = [(module._buffers, dict(module._buffers)) for module in block.modules()]
    for buffers, originals in tracked:
        buffers.update({name: value.clone() for name, value in originals.items() if value is not None})
    try:
        yield
    finally:
        for buffers, originals in tracked:
            buffers.update(originals)


def make_capturable(optimizer: torch.optim.Optimizer, device: torch.device, *, scaled: bool) -> None:
    """Let a CUDA graph replay the optimizer's step: its learning rates become tensors that are read on the device.

    Raises ConfigError where there is no CUDA device, and for optimizers whose step needs the CPU.
    """
    if device.type != "cuda":
        raise ConfigError("cuda_graph=true needs a CUDA GPU; on the CPU leave it false")
    if scaled:
        raise ConfigError(
            "cuda_graph=true does not work with precision=fp16, whose scaler decides on the CPU; use bf16"
        )
    for group in optimizer.param_groups:
        if group.get("capturable") is None and not group.get("fused"):
            raise ConfigError(f"cuda_graph=true does not work with {type(optimizer).__name__}; use sgd, adam or adamw")
        if "capturable" in group:
            group["capturable"] = True
        group["lr"] = torch.tensor(group["lr"], device=device)


Result = tuple[torch.Tensor | dict[str, torch.Tensor], torch.Tensor]  # a step's loss, or its terms, and its outputs


class GraphedStep:
    """A training step replayed as one CUDA graph, so that the CPU launches one thing instead of hundreds.

    The first `WARM_UP` steps run as they are, on a side stream, as capture wants; then the step is captured once and
    replayed on every batch of the captured shape. Other shapes (a short last batch) run as they are. Dropout stays a
    function of (seed, step): a replay reads the generator's seed anew. The learning rate must be a tensor on the
    device for the optimizer to read it in a replay; `build` makes it one.
    """

    WARM_UP = 3

    def __init__(self, step: Callable[[Batch], Result]) -> None:
        self.step = step
        self.steps_run = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: Batch | None = None  # what the graph reads
        self.result: Result = (torch.empty(0), torch.empty(0))  # what it writes

    def __call__(self, batch: Batch) -> Result:
        if self.graph is None and self.steps_run < self.WARM_UP:
            return self._warm_up(batch)
        if self.graph is None or self.batch is None:
            self.graph, self.batch = self._capture(batch)
        elif shapes(batch) != shapes(self.batch):
            return self.step(batch)
        self.batch.copy_(batch)
        self.graph.replay()
        return self.result

    def _warm_up(self, batch: Batch) -> Result:
        self.steps_run += 1
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = self.step(batch)
        torch.cuda.current_stream().wait_stream(stream)
        return result

    def _capture(self, batch: Batch) -> tuple[torch.cuda.CUDAGraph, Batch]:
        kept, graph = batch.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # records, runs nothing: weights and optimizer state stay as they are
            self.result = self.step(kept)
        return graph, kept


def shapes(batch: Batch) -> list[torch.Size]:
    """The shapes of a batch's tensors."""
    return [tensor.shape for tensor in batch.tensors()]
