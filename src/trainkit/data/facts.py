"""What a checkpoint says of the data its model was trained on: as JSON, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np

from trainkit.data.splits import Data, Split, Task
from trainkit.errors import CheckpointError


def to_json(data: Data) -> dict[str, Any]:
    """What a model was trained on, as JSON: its inputs are normalised and its outputs named by this for ever."""
    arrays = {"mean": data.mean, "std": data.std, "target_mean": data.target_mean, "target_std": data.target_std}
    return {
        "task": data.task,
        "classes": data.classes,
        "in_shape": list(data.in_shape),
        "num_outputs": data.num_outputs,
        "dtype": str(data.splits["train"].inputs.dtype),
        "features": data.features,
        **{name: None if value is None else [float(x) for x in value] for name, value in arrays.items()},
    }


def from_json(facts: Any, path: Path) -> Data:
    """The data set of these facts, without its samples: what a model needs to know to be built and fed.

    Raises CheckpointError when the facts are not those that `to_json` makes.
    """
    try:
        inputs = np.empty((0, *map(int, facts["in_shape"])), {"uint8": np.uint8, "float32": np.float32}[facts["dtype"]])
        targets = np.empty((0, int(facts["num_outputs"])), np.float32)
        data = Data("none", facts["task"], {"train": Split(inputs, targets)}, facts["classes"])
        data.features = facts["features"]
        adopt(data, facts, path)
        _check_types(data)
        if data.task not in get_args(Task) or (data.classes is None) != (data.task == "regression"):
            raise ValueError("task")
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"'{path}' does not say what data its model was trained on ({error!r})") from error
    return data


def _check_types(data: Data) -> None:
    """Raise ValueError unless the normalisation fits the shapes, and names are lists of text."""
    channels, outputs = (data.in_shape[0],), (data.num_outputs,)
    if data.mean is None or data.std is None or not data.mean.shape == data.std.shape == channels:
        raise ValueError("mean, std")
    if any(values is not None and values.shape != outputs for values in (data.target_mean, data.target_std)):
        raise ValueError("target_mean, target_std")
    for names, shape in ((data.classes, outputs), (data.features, channels)):
        known = isinstance(names, list) and all(isinstance(name, str) for name in names)
        if names is not None and (not known or (len(names),) != shape):
            raise ValueError("classes, features")


def adopt(data: Data, facts: dict[str, Any], path: Path) -> None:
    """Give a data set the class order and the normalisation that a checkpoint's model was trained with.

    Raises CheckpointError when the data is not of the model's kind: other task, shape or classes.
    """
    for what, ours, theirs in (
        ("task", data.task, facts["task"]),
        ("shape", list(data.in_shape), facts["in_shape"]),
        ("number of outputs", data.num_outputs, facts["num_outputs"]),
    ):
        if ours != theirs:
            raise CheckpointError(f"dataset {data.name} has {what} {ours}, but '{path}' was trained on {theirs}")
    if data.classes is not None and data.classes != facts["classes"]:
        _reorder_classes(data, facts["classes"], path)
    for name in ("mean", "std", "target_mean", "target_std"):
        values = facts[name]
        setattr(data, name, None if values is None else np.array(values, dtype=np.float32))


def _reorder_classes(data: Data, classes: list[str], path: Path) -> None:
    assert data.classes is not None
    missing = [name for name in data.classes if name not in classes]
    if missing:
        raise CheckpointError(f"dataset {data.name} has class '{missing[0]}', which '{path}' does not know")
    order = np.array([classes.index(name) for name in data.classes])
    for split in data.splits.values():
        if data.task == "classification":
            split.targets = order[split.targets]
        else:
            split.targets = split.targets[:, np.argsort(order)]
    data.classes = classes
