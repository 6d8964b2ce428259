"""The last look at a data set before training: splits whole, numbers finite, targets valid, scales usable."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from trainkit import registry
from trainkit.data.dataset import Data, Source
from trainkit.data.spec import INPUT, TARGET, DataSpec, InputSpec, Kind, TargetSpec, named
from trainkit.data.splits import Array, Column, Split, in_memory, input_stats, moment_stats, target_stats
from trainkit.data.values import check_finite
from trainkit.errors import DataError, kind_of
from trainkit.tasks.base import find_task, task_of


def refuse_other_kinds(found: Any, name: str) -> None:
    """Raise DataError unless a builder returned a `Source`, or `Data` whose columns pair up.

    All later code relies on it. What the columns hold is for `finish` to judge.
    """
    if isinstance(found, Source):
        return
    if not isinstance(found, Data):
        wanted = "a trainkit.data.dataset.Data"
        raise DataError(f"the builder of dataset '{name}' returned {kind_of(found)}; it must return {wanted}")
    where = f"dataset {found.name}"
    for target in found.spec.targets.values():
        if not isinstance(target, TargetSpec) or find_task(target.task) is None:
            known = ", ".join(registry.names("task"))
            what = f"its task is '{target.task}'" if isinstance(target, TargetSpec) else f"its target is {target!r:.60}"
            raise DataError(f"{where}: {what}; a TargetSpec has one of the tasks {known}")
    for split, part in found.splits.items():
        for what, columns in (("inputs", named(part.inputs, INPUT)), ("targets", named(part.targets, TARGET))):
            if not columns:
                raise DataError(f"{where}, {split} split: {what} are an empty dict; they must be arrays by name")
            strange = [column for column in columns.values() if not _is_column(column)]
            if strange:
                told = f"{what} are {kind_of(strange[0])}"
                raise DataError(
                    f"{where}, {split} split: {told}; they must be a NumPy array of rows, or several by name"
                )
        inputs, targets = (len(next(iter(named(tree, "").values()))) for tree in (part.inputs, part.targets))
        if inputs != targets:
            raise DataError(f"{where}, {split} split: {inputs} inputs but {targets} targets")


def _is_column(column: Any) -> bool:
    return bool(getattr(column, "shape", ())) and isinstance(column.dtype, np.dtype)


def finish(data: Data) -> Data:
    """Check every split and compute what is missing of the train split's statistics; returns `data`.

    A constant feature or channel gets std 1 and a note, so that scaling never divides by zero. Raises DataError for a
    target that no split can have, or with a line for each split at fault, naming the row.
    """
    if "train" not in data.splits:
        raise DataError(f"dataset {data.name}: it has no train split")
    for target in data.spec.targets.values():
        task_of(target).check_target(target, f"dataset {data.name}")
    faults: list[str] = []
    for name, split in data.splits.items():
        try:
            check_split(split, data.spec, f"dataset {data.name}, {name} split")
        except DataError as fault:
            faults += [problem for problem in fault.problems if problem not in faults]
    if faults:
        raise DataError(*faults)
    complete(data)
    for name, target in data.spec.targets.items():
        values = {split: _column(part, name) for split, part in data.splits.items()}
        data.notes += task_of(target).notes({k: v for k, v in values.items() if v is not None}, target)
    return data


def _column(split: Split, name: str) -> Array | None:
    """A target of a split; None where it is not in memory."""
    column: Any = named(split.targets, TARGET)[name]
    return column if in_memory(column) else None


def check_split(split: Split, spec: DataSpec, where: str) -> None:
    """Check one split against the specification. Raises DataError beginning with `where`, with the row."""
    inputs, targets = named(split.inputs, INPUT), named(split.targets, TARGET)
    for what, found, known in (("inputs", inputs, spec.inputs), ("targets", targets, spec.targets)):
        if list(found) != list(known):
            raise DataError(f"{where}: its {what} are {', '.join(found)}; they must be {', '.join(known)}")
    for name, column in inputs.items():
        of = "" if name == INPUT else f" '{name}'"
        if len(column) != len(split):
            raise DataError(f"{where}: {len(column)} inputs{of} but {len(split)} targets")
        check_input(column, spec.inputs[name], f"{where}: inputs{of}")
    for name, column in targets.items():
        if len(column) != len(split):
            raise DataError(f"{where}: {len(column)} targets '{name}' but {len(split)} of the others")
    for name, column in _readable(split).items():
        task_of(spec.targets[name]).check(column, spec.targets[name], where)


def _readable(split: Split) -> dict[str, Array]:
    """The targets of a split by name: those in memory, and of others the first ones."""
    found: dict[str, Any] = named(split.targets, TARGET)
    if all(map(in_memory, found.values())):
        return found
    _, first = next(split.batches([np.arange(min(len(split), FIRST))]))
    return {**found, **{name: some for name, some in named(first, TARGET).items() if not in_memory(found[name])}}


FIRST = 8  # samples of a split that is read while training, whose targets are looked at before
# What a model can take: float64 is for no layer, and uint8 is what pixels are before they are normalized.
TYPES: dict[Kind, tuple[str, ...]] = {
    "image": ("uint8", "float32"),
    "features": ("float32",),
    "series": ("float32",),
    "tokens": ("int64", "int32", "int16", "uint8"),
    "array": ("float32", "int64", "int32", "bool"),
}


def check_input(column: Column, spec: InputSpec, where: str) -> None:
    """Check one input. Raises DataError beginning with `where`."""
    shape, dtype = tuple(column.shape[1:]), str(column.dtype)
    if not column.shape[0] or 0 in shape:
        raise DataError(f"{where} are empty (they have shape {tuple(column.shape)})")
    if np.dtype(column.dtype).kind not in "iufb":
        raise DataError(f"{where} are {dtype} {shape}; they must be numbers")
    if spec.dtype not in TYPES[spec.kind]:
        wanted = " or ".join(TYPES[spec.kind])
        raise DataError(f"{where} are {spec.dtype} {spec.shape}; they must be {wanted}, or uint8 images (C, H, W)")
    if shape != spec.shape or dtype != spec.dtype:
        raise DataError(f"{where} are {dtype} {shape}, but those of train are {spec.dtype} {spec.shape}")
    if in_memory(column):
        values: Any = column
        check_finite(values, where)
        if spec.vocabulary is not None and (values.min() < 0 or values.max() >= spec.vocabulary):
            raise DataError(f"{where} are ids from {values.min()} to {values.max()}, outside 0..{spec.vocabulary - 1}")


UNKNOWN = "are read while training: give mean and std, or {}=False"


def complete(data: Data) -> None:
    """Compute what the specification lacks of the train split's statistics. Raises DataError for what does not fit."""
    train = data.splits["train"]
    inputs = {
        name: _complete_input(data, name, spec, named(train.inputs, INPUT)[name])
        for name, spec in data.spec.inputs.items()
    }
    targets = {name: _complete_target(data, spec, _column(train, name)) for name, spec in data.spec.targets.items()}
    data.spec = DataSpec(inputs, targets)


def _complete_input(data: Data, name: str, spec: InputSpec, column: Column) -> InputSpec:
    if not spec.normalize:
        return spec
    if spec.mean is None or spec.std is None:
        train = data.splits["train"]
        if not in_memory(column) and train.moments is None:
            raise DataError(f"dataset {data.name}: inputs {UNKNOWN.format('normalize')}")
        mean, std = _channel_stats(train, column)
    else:
        mean, std = (np.array(values, dtype=np.float32) for values in (spec.mean, spec.std))
    if not np.isfinite(mean).all() or np.isinf(std).any() or not len(mean) == len(std) == spec.shape[0]:
        raise DataError(f"dataset {data.name}: mean {mean} and std {std} do not fit samples {spec.shape}")
    constant = _is_constant(mean, std)
    if constant.any():
        what = "channel" if len(spec.shape) > 1 else "feature"
        count = int(constant.sum())
        data.notes.append(f"{count} constant {what}{'s' if count > 1 else ''} (std 0): centered, not scaled")
        std = np.where(constant, np.float32(1), std)
    return dataclasses.replace(spec, mean=mean.tolist(), std=std.tolist())


def _complete_target(data: Data, spec: TargetSpec, values: Array | None) -> TargetSpec:
    if spec.classes is not None and values is not None:
        return dataclasses.replace(spec, counts=task_of(spec).counts(values, spec))
    if spec.classes is not None or spec.mean is not None:
        return spec
    if values is None and spec.standardize:
        raise DataError(f"dataset {data.name}: targets {UNKNOWN.format('standardize')}")
    if values is None or values.dtype.kind != "f":
        return spec
    if values.ndim > 2:  # which no list of numbers describes
        if spec.standardize:
            raise DataError(f"dataset {data.name}: targets {values.shape} are no rows: give standardize=False")
        return spec
    spec = dataclasses.replace(spec, dtype=str(values.dtype))
    mean, std = target_stats(values)
    std = np.where(_is_constant(mean, std), std.dtype.type(1), std)  # a constant target keeps its scale
    return dataclasses.replace(spec, mean=np.atleast_1d(mean).tolist(), std=np.atleast_1d(std).tolist())


def _channel_stats(split: Split, column: Any) -> tuple[Array, Array]:
    """Mean and deviation of an input, per channel or feature: float32 (C,) each."""
    if not in_memory(column) or (split.moments is not None and column.dtype == np.uint8):
        return moment_stats(split)
    return input_stats(column)


def _is_constant(mean: Array, std: Array) -> Array:
    # A spread below the resolution of the type is rounding, not signal. Written so that nan counts as constant.
    return np.asarray(~(std > (1e-7 if std.dtype == np.float32 else 1e-15) * np.abs(mean)))
