"""A model out of a checkpoint, and what it says of raw inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.building.components import component, facts_of
from trainkit.checkpoints import checkpoint
from trainkit.config.frame import Choice
from trainkit.data.batch import Tree, map_tree
from trainkit.data.loaders import Normalize, tensors
from trainkit.data.spec import INPUT, DataSpec, named, unwrap
from trainkit.errors import CheckpointError, DataError
from trainkit.randomness import reseed
from trainkit.tasks.base import find_task, task_of
from trainkit.training.speed import Forward, prepare

Outputs = Callable[[Tree], torch.Tensor]
CPU = torch.device("cpu")


def restore_model(choice: Choice, ckpt: Path) -> tuple[nn.Module, DataSpec, dict[str, Any]]:
    """A checkpoint's model on the CPU, in evaluation mode; what it knows of its data; and the header."""
    tensors_by_name, meta = checkpoint.load(ckpt)
    spec = DataSpec.from_json(meta.get("spec"), ckpt)
    for target in spec.targets.values():
        if find_task(target.task) is None:
            raise CheckpointError(
                f"'{ckpt}' has task '{target.task}', not known here: name the module that has it in plugins"
            )
    model: nn.Module = component("model", choice, facts_of(spec))
    checkpoint.load_model(model, tensors_by_name, ckpt)
    return model.eval(), spec, meta


def build_outputs(forward: Forward, spec: DataSpec, device: torch.device, seed: int) -> Outputs:
    """Raw inputs on the host -> what the task's head makes of the outputs, on the host, in the target's own unit."""
    normalize, head = Normalize(spec, device), task_of(spec.target).head(spec.target)
    passes = itertools.count()

    @torch.inference_mode()
    def outputs_of(raw: Tree) -> torch.Tensor:
        inputs = normalize.inputs(map_tree(lambda tensor: tensor.to(device), raw))
        reseed(device, seed, "eval", next(passes))
        outputs = forward(inputs)
        return normalize.original(outputs if head is None else head(outputs))

    return outputs_of


def predict(module: nn.Module, spec: DataSpec, inputs: Any, batch_size: int) -> Any:
    """The task's head of the outputs for raw inputs (N, …), an array or several by name, in the target's own unit.

    Raises DataError for inputs of another shape or type than the model was trained on.
    """
    columns = named(unwrap(inputs) if len(spec.inputs) == 1 else inputs, INPUT)
    if list(columns) != list(spec.inputs):
        raise DataError(f"the inputs are {', '.join(columns)}; the model takes {', '.join(spec.inputs)}")
    arrays = {name: _array(name, value, spec) for name, value in columns.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(f"the inputs have {' and '.join(map(str, sorted(lengths)))} samples")
    outputs_of = build_outputs(prepare(module.eval(), CPU, several=len(arrays) > 1), spec, CPU, 0)
    starts = range(0, lengths.pop(), batch_size)
    parts = ({name: array[start : start + batch_size] for name, array in arrays.items()} for start in starts)
    return torch.cat([outputs_of(tensors(unwrap(part))) for part in parts]).numpy()


def _array(name: str, value: Any, spec: DataSpec) -> Any:
    array, known = np.asarray(value), spec.inputs[name]
    wanted = f"{known.dtype} (N, {', '.join(map(str, known.shape))})"
    if array.shape[1:] != known.shape or array.ndim == 0:
        raise DataError(f"inputs '{name}' are {array.dtype} {array.shape}; the model takes {wanted}")
    if str(array.dtype) != known.dtype and not (known.dtype == "float32" and array.dtype.kind in "iuf"):
        raise DataError(f"inputs '{name}' are {array.dtype}; the model takes {wanted}")
    return np.ascontiguousarray(array, dtype=known.dtype)
