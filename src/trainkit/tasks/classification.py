"""One class of several per sample: labels int64 (N,), against logits (N, C)."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.registry import register
from trainkit.tasks.base import SMALL_VAL, Sum, Task, listed
from trainkit.tasks.heads import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

FEW = 10  # samples of a class in train, below which it is hardly learned
PER_CLASS = 5  # samples of a class in val, below which it judges badly
IMBALANCE = 0.8  # share of the most frequent class
SKEW = 10  # times more samples of the most frequent class than of the least


@register("task", name="classification")
class Classification(Task):
    name = "classification"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy",)
    monitor = "accuracy"
    mixed = "soft"
    output = "logits"
    ranks = True

    def check(self, targets: NDArray[Any], target: TargetSpec, where: str) -> None:
        num_classes = count_classes(target, where)
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise DataError(f"{where}: labels are {targets.dtype} {targets.shape}; they must be integers of shape (N,)")
        wrong = (targets < 0) | (targets >= num_classes)
        if wrong.any():
            row = int(wrong.argmax())
            raise DataError(f"{where}: the label in row {row} is {targets[row]}, outside 0..{num_classes - 1}")

    def output_shape(self, target: TargetSpec) -> tuple[int, ...] | None:
        return (self.num_outputs(target),)

    def num_outputs(self, target: TargetSpec) -> int:
        return len(target.classes or [])

    def strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        return targets

    def reorder(self, targets: Any, order: NDArray[Any]) -> Any:
        return order[targets]

    def summary(self, targets: NDArray[Any], target: TargetSpec) -> dict[str, Any]:
        import numpy as np

        count = len(target.classes or [])
        inside = targets[(targets >= 0) & (targets < count)]
        return {"class_counts": np.bincount(inside, minlength=count).tolist()}

    def warnings(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        import numpy as np

        classes, found = target.classes or [], []
        counts = np.array(self.summary(targets["train"], target)["class_counts"])
        present = counts[counts > 0]
        few = [name for name, count in zip(classes, counts, strict=True) if 0 < count < FEW]
        if few:
            found.append(f"train has fewer than {FEW} samples of {listed(few)}")
        if len(present) and present.max() >= SKEW * present.min():
            most, least = classes[int(counts.argmax())], classes[int(np.where(counts, counts, 1 << 62).argmin())]
            found.append(
                f"classes are uneven in train: {present.max():,} of {most}, {present.min():,} of {least}; "
                "judge by macro_f1 rather than accuracy"
            )
        repeated = [name for name, count in Counter(classes).items() if count > 1]
        if repeated:
            found.append(f"classes of the same name: {listed(repeated)}")
        return found

    def advice(self, targets: dict[str, NDArray[Any]], target: TargetSpec, monitor: str) -> list[str]:
        import numpy as np

        classes, found = target.classes or [], []
        val = targets.get("val")
        if val is not None and len(val) < max(SMALL_VAL, PER_CLASS * len(classes)):
            found.append(
                f"val has only {len(val)} samples, and chooses the best epoch: one sample is {1 / len(val):.1%} of the "
                "accuracy; raise val_fraction, or average over seeds"
            )
        counts = np.bincount(targets["train"], minlength=len(classes))
        share = counts.max() / counts.sum()
        if share > IMBALANCE and monitor == "accuracy":
            name = classes[int(counts.argmax())]
            found.append(
                f"{share:.0%} of train is class {name}: a constant answer is that accurate; use monitor=macro_f1"
            )
        return found

    def chance(self, target: TargetSpec) -> float | None:
        return math.log(self.num_outputs(target))

    def notes(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        import numpy as np

        classes, notes = target.classes or [], []
        for split, labels in targets.items():
            present = np.bincount(labels, minlength=len(classes)) > 0
            missing = [name for name, found in zip(classes, present, strict=True) if not found]
            if missing:
                listed = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
                notes.append(f"{split} has no sample of {len(missing)} of {len(classes)} classes: {listed}")
        return notes

    def sums(self, target: TargetSpec, *, full: bool, topk: int) -> list[Sum]:
        from trainkit.tasks.counts import Confusion, Hits, TopHits

        count = self.num_outputs(target)
        if not full:
            return [Hits()]
        return [Hits(), *([TopHits(topk)] if self.counts_top(count, topk) else []), Confusion(count)]

    def keep(self, outputs: Tensor, targets: Any, target: TargetSpec) -> dict[str, Tensor]:
        confidence, predicted = outputs.softmax(dim=1).max(dim=1)
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        return {"targets": labels, "predicted": predicted, "confidence": confidence, "outputs": outputs}

    def fields(self, target: TargetSpec, *, topk: int) -> dict[str, type]:
        found: dict[str, type] = {}
        for place in range(min(topk, self.num_outputs(target))):
            found |= {f"class{nth(place)}": str, f"probability{nth(place)}": float}
        return found

    def rows(self, told: Tensor, target: TargetSpec, *, topk: int) -> list[dict[str, Any]]:
        classes = target.classes or []
        best, index = told.topk(min(topk, len(classes)), dim=1)
        pairs = zip(best.tolist(), index.tolist(), strict=True)
        return [likeliest(values, [classes[i] for i in labels]) for values, labels in pairs]

    def counts_top(self, num_classes: int, topk: int) -> bool:
        """Whether a hit among the k likeliest says more than one at the first place."""
        return num_classes > topk

    def head(self, target: TargetSpec) -> nn.Module | None:
        return softmax()


def nth(place: int) -> str:
    """How the columns of the second likeliest class, and those after it, are told from the first's."""
    return f"_{place + 1}" if place else ""


def likeliest(probabilities: list[float], names: list[str]) -> dict[str, Any]:
    """A row of classes and their probabilities, the likeliest first."""
    row: dict[str, Any] = {}
    for place, (name, value) in enumerate(zip(names, probabilities, strict=True)):
        row |= {f"class{nth(place)}": name, f"probability{nth(place)}": value}
    return row


def count_classes(target: TargetSpec, where: str) -> int:
    """How many classes a target has. Raises DataError for fewer than two."""
    classes = target.classes or []
    if len(classes) < 2:
        found = f"only '{classes[0]}'" if classes else "none"
        raise DataError(f"{where}: {target.task} needs at least two classes, found {found}")
    return len(classes)
