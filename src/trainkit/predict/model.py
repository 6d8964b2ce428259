"""A model out of a checkpoint, and what it says of raw inputs that are in memory already."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.build import component, facts_of
from trainkit.checkpoints import checkpoint
from trainkit.config.frame import Choice
from trainkit.data.loaders import Normalize, tensors
from trainkit.data.spec import INPUT, DataSpec, named
from trainkit.errors import CheckpointError, DataError
from trainkit.randomness import reseed
from trainkit.tasks.base import find_task, task_of
from trainkit.training.speed import prepare

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


@torch.inference_mode()
def predict(module: nn.Module, spec: DataSpec, inputs: Any, batch_size: int) -> Any:
    """The task's head of the outputs for raw inputs (N, …), an array or several by name, in the target's own unit.

    Raises DataError for inputs of another shape or type than the model was trained on.
    """
    columns = named(inputs, INPUT)
    if list(columns) != list(spec.inputs):
        raise DataError(f"the inputs are {', '.join(columns)}; the model takes {', '.join(spec.inputs)}")
    arrays = {name: _array(name, value, spec) for name, value in columns.items()}
    lengths = {len(array) for array in arrays.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise DataError(f"the inputs have {' and '.join(map(str, sorted(lengths)))} samples")
    forward = prepare(module.eval(), CPU, several=len(arrays) > 1)
    normalize, head = Normalize(spec, CPU), task_of(spec.target).head(spec.target)
    told = []
    for number, start in enumerate(range(0, lengths.pop(), batch_size)):
        part = {name: array[start : start + batch_size] for name, array in arrays.items()}
        batch = normalize.inputs(tensors(part if isinstance(inputs, dict) else part[next(iter(part))]))
        reseed(CPU, 0, "eval", number)
        outputs = forward(batch)
        told.append(normalize.original(outputs if head is None else head(outputs)))
    return torch.cat(told).numpy()


def _array(name: str, value: Any, spec: DataSpec) -> Any:
    array, known = np.asarray(value), spec.inputs[name]
    wanted = f"{known.dtype} (N, {', '.join(map(str, known.shape))})"
    if array.shape[1:] != known.shape or array.ndim == 0:
        raise DataError(f"inputs '{name}' are {array.dtype} {array.shape}; the model takes {wanted}")
    if str(array.dtype) != known.dtype and not (known.dtype == "float32" and array.dtype.kind in "iuf"):
        raise DataError(f"inputs '{name}' are {array.dtype}; the model takes {wanted}")
    return np.ascontiguousarray(array, dtype=known.dtype)
