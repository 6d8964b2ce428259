"""A data set read by the specification of a checkpoint: its class order, its normalization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainkit.data.dataset import Data
from trainkit.data.spec import TARGET, DataSpec, TargetSpec, named
from trainkit.data.splits import Split, in_memory
from trainkit.errors import CheckpointError
from trainkit.tasks.base import task_of


def adopt(data: Data, spec: DataSpec, path: Path) -> None:
    """Give a data set the class order and the statistics that a checkpoint's model was trained with.

    Raises CheckpointError when the data is not of the model's kind: other names, tasks, shapes, columns or
    classes.
    """
    for what, ours, theirs in (
        ("inputs", _shapes(data.spec), _shapes(spec)),
        ("targets", _tasks(data.spec), _tasks(spec)),
    ):
        if ours != theirs:
            raise CheckpointError(f"dataset {data.name} has {what} {ours}, but '{path}' was trained on {theirs}")
    for name, known in spec.inputs.items():
        for column, (ours, theirs) in enumerate(
            zip(data.spec.inputs[name].names or [], known.names or [], strict=False)
        ):
            if ours != theirs:
                raise CheckpointError(
                    f"dataset {data.name} has '{ours}' in column {column}, but '{path}' was trained on '{theirs}' there"
                )
    for name, target in spec.targets.items():
        mine = data.spec.targets[name]
        if mine.classes is not None and mine.classes != target.classes:
            _reorder(data, name, mine.classes, target, path)
    data.spec = spec


def _shapes(spec: DataSpec) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, one.shape))}" for name, one in spec.inputs.items())


def _tasks(spec: DataSpec) -> str:
    return ", ".join(f"{one.task} ({task_of(one).num_outputs(one)})" for one in spec.targets.values())


def _reorder(data: Data, name: str, ours: list[str], target: TargetSpec, path: Path) -> None:
    theirs = target.classes or []
    places = {one: place for place, one in enumerate(theirs)}
    missing = [one for one in ours if one not in places]
    if missing:
        raise CheckpointError(f"dataset {data.name} has class '{missing[0]}', which '{path}' does not know")
    order = np.array([places[one] for one in ours])
    for split in data.splits.values():
        column = named(split.targets, TARGET)[name]
        if not in_memory(column):
            told = ", ".join(theirs[:10])
            raise CheckpointError(
                f"dataset {data.name} is read with its classes in another order than '{path}': {told}"
            )
        _put(split, name, task_of(target).reorder(column, order))


def _put(split: Split, name: str, column: Any) -> None:
    split.targets = {**split.targets, name: column} if isinstance(split.targets, dict) else column
