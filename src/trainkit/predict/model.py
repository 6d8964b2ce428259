"""What a model says of raw inputs that are in memory already."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from trainkit.data.loaders import Normalize, tensors
from trainkit.data.spec import INPUT, DataSpec, named, unwrap
from trainkit.errors import DataError
from trainkit.randomness import reseed
from trainkit.tasks.base import task_of
from trainkit.training.speed import prepare

CPU = torch.device("cpu")


@torch.inference_mode()
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
    forward = prepare(module.eval(), CPU, several=len(arrays) > 1)
    normalize, head = Normalize(spec, CPU), task_of(spec.target).head(spec.target)
    told = []
    for number, start in enumerate(range(0, lengths.pop(), batch_size)):
        part = {name: array[start : start + batch_size] for name, array in arrays.items()}
        batch = normalize.inputs(tensors(unwrap(part)))
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
