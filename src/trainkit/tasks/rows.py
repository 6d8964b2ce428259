"""What tasks have in common: targets with a row of numbers for each sample, and classes in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.tasks.base import Numbers, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLD = 20  # classes of `check`'s table


def check_rows(targets: NDArray[Any], width: int, task: str, where: str, types: tuple[str, ...] = ("float32",)) -> None:
    """Raise DataError unless targets (N, width) are of one of these types, and finite."""
    import numpy as np

    from trainkit.data.values import check_finite

    if targets.ndim != 2 or str(targets.dtype) not in types or targets.shape[1] != width:
        wanted = f"{' or '.join(types)} (N, {width})"
        raise DataError(f"{where}: {task} targets are {targets.dtype} {targets.shape}; they must be {wanted}")
    with np.errstate(over="ignore"):  # what is beyond float32, in which the model answers, counts as infinite
        check_finite(targets.astype(np.float32, copy=False), f"{where}: targets")


def check_outputs(kept: Numbers, width: int | None = None) -> None:
    """Raise ValueError unless the kept outputs, where there are any, are a row for each row of targets (N, width)."""
    targets = kept["targets"]
    shape = (len(targets), targets.shape[-1] if width is None else width)
    if targets.shape != shape or ("outputs" in kept and kept["outputs"].shape != shape):
        raise ValueError("its outputs do not fit its targets")


def class_table(summaries: dict[str, dict[str, Any]], target: TargetSpec) -> Table | None:
    """A row for each class, a column for each split; of many classes the most and the least frequent in train."""
    classes = target.classes or []
    counts = {split: summary.get("class_counts", [0] * len(classes)) for split, summary in summaries.items()}
    chosen = list(range(len(classes)))
    if len(classes) > TOLD:
        by_count = sorted(chosen, key=lambda label: -counts["train"][label])
        chosen = by_count[: TOLD // 2] + by_count[-TOLD // 2 :]
    rows = [
        [name if len(name) <= 24 else f"{name[:23]}…", *(f"{column[label]:,}" for column in counts.values())]
        for label, name in ((label, classes[label]) for label in chosen)
    ]
    left_out = len(classes) - len(chosen)
    note = f"{left_out} classes in between are left out; --json has them" if left_out else None
    return Table(["class", *counts], rows, note=note)


def name_shares(values: NDArray[Any], classes: list[str]) -> str:
    """The classes of a sample that has several, or shares of them: the three largest, without those of next to none."""
    flat = values.reshape(-1)
    order = [int(place) for place in (-flat).argsort()[:3] if flat[place] > 0.005]
    return ", ".join(classes[i] if flat[i] > 0.995 else f"{classes[i]} {flat[i]:.2f}" for i in order) or "none"
