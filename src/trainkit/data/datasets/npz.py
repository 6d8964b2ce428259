"""The user's own arrays in one .npz file: `x, y`, or `x_train, y_train` and the same with `_val`, `_test`.

    x   uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) with C of 1, 3 or 4: images
        other numbers of such shapes: float images, kept as float32 and scaled by their own mean and std per channel
        numbers (N, F) or (N,): features
    y   (N,) integers or text: classes; (N, C) zeros and ones: multilabel; (N, C) shares that sum to 1: soft labels;
        other numbers (N,) or (N, T): regression
    features  text (F,): what the columns of x (N, F) are called; may be left out

Where both readings of a 4-D array are possible, the one with square images wins, then (N, C, H, W).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainkit.data.arrays import read_arrays
from trainkit.data.checks import check_split
from trainkit.data.dataset import Data, describe_input, hold_out
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Array, Split
from trainkit.errors import DataError
from trainkit.machine import free_host_memory
from trainkit.registry import register
from trainkit.schema import Fraction
from trainkit.tasks.base import task_of

if TYPE_CHECKING:
    from trainkit.data.images.files import Files

_CHANNELS = (1, 3, 4)
Task = Literal["classification", "soft", "multilabel", "regression"]
_FEW = 10  # different values, above which a target of floats is taken for a quantity without a word


@register("dataset")
def npz(
    data_dir: Path,
    split_seed: int,
    *,
    file: Path,
    task: Literal["auto", "classification", "regression", "multilabel", "soft"] = "auto",
    classes: list[str] | None = None,
    test_fraction: Fraction = 0.2,
) -> Data:
    """Arrays of a .npz file; see the module for the names and shapes. Without test arrays a share of train is held out.

    classes: names, in label order; None takes the sorted texts, or the numbers 0..C-1. Raises DataError naming the
    file, the array and the row.
    """
    arrays = _read(file)
    pairs, notes = _pairs(file, arrays)
    train_targets = pairs["train"][1]
    chosen: Task = _task_of(train_targets) if task == "auto" else task
    if task == "auto" and chosen == "regression" and (values := _few_values(train_targets)):
        notes.append(f"{file}: y has {values} different values and is read as regression; save classes as integers")
    if chosen == "regression" and classes is not None:
        raise DataError(
            f"{file}: y is read as regression, which has no classes; set dataset.task or drop dataset.classes"
        )
    names = _class_names(file, train_targets, chosen, classes)
    splits: dict[str, Any] = {}
    for split, (x, y) in pairs.items():
        where = f"{file} ({split})"
        splits[split] = Split(to_inputs(x, where), _targets(y, chosen, names, where))
    width = 1 if names is not None else splits["train"].targets.shape[1]
    target = TargetSpec(chosen, names, width, standardize=chosen == "regression")
    task_of(target).check_target(target, str(file))
    x = splits["train"].inputs
    columns = column_names(arrays["features"], x, str(file)) if "features" in arrays else None
    data = Data("npz", splits, target, describe_input(x, names=columns), notes=notes)
    for split, part in splits.items():
        check_split(part, data.spec, f"{file} ({split})")
    hold_out(data, "test", test_fraction, split_seed)
    return data


def _read(file: Path) -> dict[str, Array]:
    """All arrays of the file. Objects (pickles) are refused, because opening them runs code.

    Raises DataError, and ResourceError before it unpacks more than the memory can hold.
    """
    if not file.is_file():
        raise DataError(f"dataset.file={file}: {'not a file' if file.exists() else 'no such file'}")
    try:
        return read_arrays(file, free_host_memory())
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def _pairs(file: Path, arrays: dict[str, Array]) -> tuple[dict[str, tuple[Array, Array]], list[str]]:
    """(x, y) of each split, not empty and of one length, and a note about arrays that are not used."""
    suffixes = {"": "train"} if "x" in arrays else {f"_{split}": split for split in ("train", "val", "test")}
    pairs = {}
    for suffix, split in suffixes.items():
        present = [name for name in (f"x{suffix}", f"y{suffix}") if name in arrays]
        if len(present) == 1:
            raise DataError(f"{file}: it has {present[0]}, but not {'y' if present[0][0] == 'x' else 'x'}{suffix}")
        if present:
            x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
            if not x.ndim or not y.ndim or len(x) != len(y) or not x.size or not y.size:
                raise DataError(f"{file}: x{suffix} {x.shape} and y{suffix} {y.shape} do not pair up, or are empty")
            pairs[split] = (x, y)
    if "train" not in pairs:
        raise DataError(f"{file}: neither x, y nor x_train, y_train; it holds {', '.join(arrays) or 'nothing'}")
    used = {"features", *(f"{axis}{suffix}" for axis in "xy" for suffix in suffixes)}
    unused = [name for name in arrays if name not in used]
    return pairs, [f"{file}: arrays left out: {', '.join(unused)}"] if unused else []


def _task_of(targets: Array) -> Task:
    column = targets.ndim == 2 and targets.shape[1] == 1
    if targets.dtype.kind in "iubU" and (targets.ndim == 1 or column):
        return "classification"
    if targets.ndim == 2 and targets.dtype.kind in "iub" and np.isin(targets, (0, 1)).all():
        return "multilabel"
    shares = targets.ndim == 2 and not column and targets.dtype.kind == "f" and (targets >= 0).all()
    return "soft" if shares and np.allclose(targets.sum(axis=1), 1, atol=1e-3) else "regression"


def _few_values(targets: Array) -> int:
    """How many different values one regression target has, where they are so few that they may be classes; else 0."""
    if targets.size != len(targets) or targets.dtype.kind != "f" or len(np.unique(targets[:1000])) > _FEW:
        return 0
    found = len(np.unique(targets))
    return found if 1 < found <= min(_FEW, len(targets) // 2) else 0


def _class_names(file: Path, targets: Array, task: Task, classes: list[str] | None) -> list[str] | None:
    if task == "regression" or classes is not None:
        return classes
    if task != "classification":
        return [str(index) for index in range(targets.shape[1] if targets.ndim > 1 else 1)]
    if targets.dtype.kind == "U":
        return [str(name) for name in np.unique(targets)]
    last = targets.max()
    if last < 0:
        raise DataError(f"{file}: the label in row 0 is {targets.flat[0]}; classes count from 0")
    if last >= len(targets):  # also keeps a list of names from growing with a stray number such as a year
        row = int(np.argmax(targets.reshape(-1)))
        raise DataError(f"{file}: the label in row {row} is {last}, but {len(targets)} samples; labels must be 0..C-1")
    return [str(index) for index in range(int(last) + 1)]


def column_names(names: Array, inputs: Array | Files, where: str) -> list[str]:
    """The array `features` as names for the columns of inputs (N, F). Raises DataError where they do not fit."""
    _, *shape = inputs.shape
    if names.dtype.kind != "U" or [*names.shape] != shape:
        columns = f"{shape[0]} columns" if len(shape) == 1 else "images"
        raise DataError(
            f"{where}: features is {names.dtype} {names.shape}, and x holds {columns}; it must be a text for each"
        )
    found = [name.strip() for name in names.tolist()]
    twice = [name for name in found if found.count(name) > 1] if len(set(found)) < len(found) else []
    if twice:
        raise DataError(f"{where}: features has the name '{twice[0]}' {found.count(twice[0])} times")
    return found


def to_inputs(x: Array, where: str) -> Array:
    """x as the loader wants it: uint8 (N, C, H, W), float32 of that shape, or float32 (N, F). Raises DataError."""
    if x.dtype.kind not in "iufb" or x.ndim > 4:
        raise DataError(f"{where}: x is {x.dtype} {x.shape}; it must hold numbers, (N, F) or images")
    if x.ndim in (1, 3):  # single features, or gray images without their channel axis
        x = x[:, None]
    elif x.ndim == 4:
        x = _channels_first(x, where)
    if x.ndim == 4 and x.dtype == np.uint8:
        return np.ascontiguousarray(x)
    with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which the checks report
        return np.ascontiguousarray(x, dtype=np.float32)


def _channels_first(x: Array, where: str) -> Array:
    _, a, b, c = x.shape
    first, last = a in _CHANNELS, c in _CHANNELS
    if not first and not last:
        raise DataError(f"{where}: x {x.shape} has no axis of 1, 3 or 4 channels; use (N, C, H, W) or (N, H, W, C)")
    if last and (not first or (b != c and a == b)):
        return np.moveaxis(x, 3, 1)
    return x


def _targets(y: Array, task: Task, classes: list[str] | None, where: str) -> Array:
    """y in the task's form: int64 (N,) or float32 (N, columns); for a regression float64 where float32 would round."""
    if task == "classification":
        return _labels(y, classes or [], where)
    if y.dtype.kind not in "iufb" or y.ndim > 2:
        raise DataError(f"{where}: y is {y.dtype} {y.shape}; {task} needs numbers of shape (N,) or (N, columns)")
    exact = task != "regression" or np.can_cast(y.dtype, np.float32)
    with np.errstate(over="ignore"):
        return (y[:, None] if y.ndim == 1 else y).astype(np.float32 if exact else np.float64)


def _labels(y: Array, classes: list[str], where: str) -> Array:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "iubU":
        raise DataError(f"{where}: y is {y.dtype} {y.shape}; classes need integers or text of shape (N,)")
    if y.dtype.kind != "U":
        return y.astype(np.int64)
    index = {name: label for label, name in enumerate(classes)}
    unknown = [row for row, name in enumerate(y.tolist()) if name not in index]
    if unknown:
        raise DataError(f"{where}: the label in row {unknown[0]} is '{y[unknown[0]]}', which is none of {classes[:10]}")
    return np.array([index[name] for name in y.tolist()], dtype=np.int64)
