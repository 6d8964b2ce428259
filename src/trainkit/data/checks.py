"""The last look at a data set before training: splits whole, numbers finite, labels in range, scales usable."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from trainkit.data.files import Files
from trainkit.data.splits import Array, Data, Source, Split, Task, input_stats, moment_stats, target_stats
from trainkit.errors import DataError

_PLACE = "trainkit.data.splits"


def refuse_other_kinds(found: Any, name: str) -> None:
    """Raise DataError unless a builder returned a `Source`, or `Data` of arrays that pair up.

    All later code relies on it. What the arrays hold is for `finish` to judge.
    """
    if isinstance(found, Source):
        return
    if not isinstance(found, Data):
        raise DataError(f"the builder of dataset '{name}' returned {_type(found)}; it must return a {_PLACE}.Data")
    where = f"dataset {found.name}"
    if found.task not in get_args(Task) or (found.classes is None) != (found.task == "regression"):
        raise DataError(
            f"{where}: its task is {found.task!r} and its classes {found.classes!r:.60}; a task is one of "
            f"{', '.join(get_args(Task))}, and all but regression have a list of classes"
        )
    if "train" not in found.splits:
        raise DataError(f"{where}: it has no train split")
    for split, part in found.splits.items():
        if not isinstance(part, Split):
            raise DataError(f"{where}: its {split} split is {_type(part)}; it must be a {_PLACE}.Split")
        for what, array in (("inputs", part.inputs), ("targets", part.targets)):
            if not isinstance(array, (np.ndarray, Files)) or not array.ndim:
                raise DataError(
                    f"{where}, {split} split: {what} are {_type(array)}; they must be a NumPy array of rows"
                )
        if len(part.inputs) != len(part.targets):
            raise DataError(f"{where}, {split} split: {len(part.inputs)} inputs but {len(part.targets)} targets")


def _type(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def finish(data: Data) -> Data:
    """Check every split and compute what is missing of the train split's statistics; returns `data`.

    A constant feature or channel gets std 1 and a note, so that scaling never divides by zero. Classes that a split
    has no sample of are noted too. Raises DataError with a line for each split at fault, naming the row.
    """
    if "train" not in data.splits:
        raise DataError(f"dataset {data.name}: it has no train split")
    if data.task in ("classification", "soft") and len(data.classes or []) < 2:
        found = f"only '{data.classes[0]}'" if data.classes else "none"
        raise DataError(f"dataset {data.name}: {data.task} needs at least two classes, found {found}")
    num_classes = None if data.classes is None else len(data.classes)
    faults: list[str] = []
    for name, split in data.splits.items():
        where = f"dataset {data.name}, {name} split"
        try:
            check_split(split, data.task, num_classes, where)
        except DataError as fault:
            faults += fault.problems
    if faults:
        raise DataError(*faults)
    for name, split in data.splits.items():
        where = f"dataset {data.name}, {name} split"
        if split.inputs.shape[1:] != data.in_shape or split.inputs.dtype != data.splits["train"].inputs.dtype:
            raise DataError(
                f"{where}: samples are {_kind(split)}, but those of train are {_kind(data.splits['train'])}"
            )
    _complete_stats(data)
    _note_missing_classes(data)
    return data


def check_split(split: Split, task: Task, num_classes: int | None, where: str) -> None:
    """Check one split against the contract of `Split`. Raises DataError beginning with `where`, with the row."""
    inputs, targets = split.inputs, split.targets
    if len(inputs) != len(targets):
        raise DataError(f"{where}: {len(inputs)} inputs but {len(targets)} targets")
    if not inputs.size:
        raise DataError(f"{where}: it is empty (inputs have shape {inputs.shape})")
    if inputs.ndim < 2 or not (inputs.dtype == np.float32 or (inputs.dtype == np.uint8 and inputs.ndim == 4)):
        raise DataError(f"{where}: inputs are {_kind(split)}; they must be uint8 (N, C, H, W) or float32 (N, F)")
    _check_finite(inputs, f"{where}: inputs")
    if task == "classification":
        _check_labels(targets, num_classes or 0, where)
    else:
        _check_target_rows(targets, task, num_classes, where)


def _check_finite(values: Array | Files, where: str) -> None:
    if isinstance(values, Files) or values.dtype.kind != "f" or np.isfinite(values).all():
        return
    places = np.argwhere(~np.isfinite(values))
    row, *column = (int(i) for i in places[0])
    at = f"row {row}" + (f", column {column[0]}" if len(column) == 1 else "")
    value = values[(row, *column)]
    raise DataError(f"{where}: {at} is {value}{_others(places)}; remove the sample or replace the value")


def _others(places: Array) -> str:
    """How many values more are like the first, and in which columns of a table."""
    if len(places) == 1:
        return ""
    rows = f", as are {len(places) - 1:,} more values in {len(np.unique(places[:, 0])):,} rows"
    if places.shape[1] != 2:
        return rows
    columns = np.unique(places[:, 1])
    return f"{rows}, columns {', '.join(map(str, columns[:10]))}{', …' if len(columns) > 10 else ''}"


def _check_labels(labels: Array, num_classes: int, where: str) -> None:
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels are {labels.dtype} {labels.shape}; they must be integers of shape (N,)")
    wrong = (labels < 0) | (labels >= num_classes)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{where}: the label in row {row} is {labels[row]}, outside 0..{num_classes - 1}")


def _check_target_rows(targets: Array, task: Task, width: int | None, where: str) -> None:
    types = ("float32", "float64") if task == "regression" else ("float32",)
    if targets.ndim != 2 or str(targets.dtype) not in types or width not in (None, targets.shape[1]):
        wanted = f"{' or '.join(types)} (N, {width or 'T'})"
        raise DataError(f"{where}: {task} targets are {targets.dtype} {targets.shape}; they must be {wanted}")
    with np.errstate(over="ignore"):  # what is beyond float32, in which the model answers, counts as infinite
        _check_finite(targets.astype(np.float32, copy=False), f"{where}: targets")
    if task == "multilabel":
        wrong, rule = ~np.isin(targets, (0, 1)).all(axis=1), "only 0 and 1"
    elif task == "soft":
        wrong = (targets < 0).any(axis=1) | (abs(targets.sum(axis=1) - 1) > 1e-3)
        rule = "probabilities that sum to 1"
    else:
        return
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(f"{where}: {task} targets must hold {rule}; row {row} is {targets[row].tolist()}")


def _complete_stats(data: Data) -> None:
    if data.mean is None or data.std is None:
        data.mean, data.std = _channel_stats(data.splits["train"])
    constant = _is_constant(data.mean, data.std)
    if not np.isfinite(data.mean).all() or np.isinf(data.std).any() or len(data.mean) != data.in_shape[0]:
        raise DataError(f"dataset {data.name}: mean {data.mean} and std {data.std} do not fit samples {data.in_shape}")
    if constant.any():
        what = "channel" if len(data.in_shape) > 1 else "feature"
        count = int(constant.sum())
        data.notes.append(f"{count} constant {what}{'s' if count > 1 else ''} (std 0): centred, not scaled")
        data.std = np.where(constant, np.float32(1), data.std)
    if data.standardise:  # a constant target keeps its scale
        mean, std = target_stats(data.splits["train"].targets)
        data.target_mean, data.target_std = mean, np.where(_is_constant(mean, std), std.dtype.type(1), std)


def _channel_stats(split: Split) -> tuple[Array, Array]:
    """As `input_stats`, for float images and image files too: float32 (C,) each."""
    inputs = split.inputs
    if split.moments is not None or isinstance(inputs, Files):
        return moment_stats(split)
    if inputs.dtype == np.uint8 or inputs.ndim == 2:
        return input_stats(inputs)
    axes = (0, *range(2, inputs.ndim))
    mean, std = inputs.mean(axis=axes, dtype=np.float64), inputs.std(axis=axes, dtype=np.float64)
    return mean.astype(np.float32), std.astype(np.float32)


def _is_constant(mean: Array, std: Array) -> Array:
    # A spread below the resolution of the type is rounding, not signal. Written so that nan counts as constant.
    return np.asarray(~(std > (1e-7 if std.dtype == np.float32 else 1e-15) * np.abs(mean)))


def _note_missing_classes(data: Data) -> None:
    if data.task != "classification" or data.classes is None:
        return
    for name, split in data.splits.items():
        present = np.bincount(split.targets, minlength=len(data.classes)) > 0
        missing = [label for label, found in zip(data.classes, present, strict=True) if not found]
        if missing:
            listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            data.notes.append(f"{name} has no sample of {len(missing)} of {len(data.classes)} classes: {listed}")


def _kind(split: Split) -> str:
    return f"{split.inputs.dtype} {split.inputs.shape[1:]}"
