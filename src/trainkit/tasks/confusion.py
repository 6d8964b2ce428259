"""What is taken for what: the confusion matrix, and what of it can be told of any number of classes. NumPy only.

targets, predicted: int64 (N,) each, the true classes and the answers.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.plots.charts import confusion
from trainkit.statistics import interval
from trainkit.tasks.base import Section, Table

DRAWN = 1000  # classes up to which the matrix is drawn
LISTED = 1000  # classes in the table of classes, at most
PAIRS = 10  # most frequent confusions

Labels = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """How one class fared. A ratio 0 / 0 counts 0. taken_for: what it was most often called wrongly, so many times."""

    name: str
    count: int
    precision: float
    recall: float
    f1: float
    taken_for: str | None
    times: int


def matrix(targets: Labels, predicted: Labels, num_classes: int) -> Labels:
    """The confusion matrix (C, C), true by predicted."""
    cells = np.bincount(targets * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def confused(targets: Labels, predicted: Labels, num_classes: int) -> list[tuple[int, int, int]]:
    """What was taken for what, the most frequent first: (true class, predicted class, how often)."""
    wrong = targets != predicted
    cells, times = np.unique(targets[wrong] * num_classes + predicted[wrong], return_counts=True)
    order = np.argsort(-times, kind="stable")
    return [
        (int(c) // num_classes, int(c) % num_classes, int(n)) for c, n in zip(cells[order], times[order], strict=True)
    ]


def per_class(targets: Labels, predicted: Labels, names: list[str]) -> list[ClassRow]:
    """A row for each class; the lowest F1 first."""
    count = len(names)
    hits = np.bincount(targets[targets == predicted], minlength=count).tolist()
    true, answered = (np.bincount(labels, minlength=count).tolist() for labels in (targets, predicted))
    taken: dict[int, tuple[str | None, int]] = {}
    for label, other, times in confused(targets, predicted, count):
        taken.setdefault(label, (names[other], times))
    rows = []
    for index, name in enumerate(names):
        hit, f1 = hits[index], 2 * hits[index] / max(true[index] + answered[index], 1)
        taken_for, times = taken.get(index, (None, 0))
        rows.append(
            ClassRow(name, true[index], hit / max(answered[index], 1), hit / max(true[index], 1), f1, taken_for, times)
        )
    return sorted(rows, key=lambda row: row.f1)


def confusion_section(targets: Labels, predicted: Labels, names: list[str]) -> Section:
    """The matrix, and its largest wrong cells in words."""
    panels, note = {}, f"Of more than {DRAWN:,} classes no matrix is drawn."
    if len(names) <= DRAWN:
        cells = matrix(targets, predicted, len(names))
        panels["confusion"] = [confusion(cells, names, share=False)]
        panels["confusion_normalized"] = [confusion(cells, names, share=True)]
        note = "The color of a cell is its share of the row, from none to all samples of the true class."
    totals = np.bincount(targets, minlength=len(names))
    rows: list[list[Any]] = [
        [names[true], names[answer], times, f"{times / totals[true]:.1%}"]
        for true, answer, times in confused(targets, predicted, len(names))[:PAIRS]
    ]
    heads = ["true class", "predicted", "times", "of the class"]
    return Section("Confusion", panels, [Table(heads, rows, "Most frequent confusions")] if rows else [], note)


def class_section(targets: Labels, predicted: Labels, names: list[str]) -> Section:
    """Precision, recall and F1 of every class."""
    rows = [
        [
            row.name,
            row.count,
            *(f"{share:.1%}" for share in (row.precision, row.recall, row.f1)),
            "–" if row.taken_for is None else f"{row.taken_for} ({row.times})",
        ]
        for row in per_class(targets, predicted, names)
    ]
    heads = ["class", "samples", "precision", "recall", "F1", "most often taken for"]
    more = f", the first {LISTED:,} of {len(rows):,}" if len(rows) > LISTED else ""
    return Section("Classes", tables=[Table(heads, rows[:LISTED])], note=f"The lowest F1 first{more}.")


def count_wrong(right: NDArray[Any]) -> str:
    """How many samples are wrong, and the interval of their share; right: bool (N,)."""
    hits, total = int(right.sum()), len(right)
    low, high = interval(hits, total)
    return (
        f"{total - hits:,} of {total:,} samples are wrong; the 95% interval of the accuracy is {low:.1%} to {high:.1%}."
    )


def baseline(targets: Labels, predicted: Labels, names: list[str]) -> str:
    """The accuracy beside that of who always answers the most frequent class."""
    counts = np.bincount(targets, minlength=len(names))
    share, name = counts.max() / len(targets), names[int(counts.argmax())]
    low, high = interval(int((targets == predicted).sum()), len(targets))
    judged = "better than" if low > share else "worse than" if high < share else "not distinguishable from"
    return f"Always answering the most frequent class, {name}, would get {share:.1%}: the model is {judged} that."
