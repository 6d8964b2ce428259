"""One class of several per sample: labels int64 (N,), against logits (N, C)."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.registry import register
from trainkit.tasks.base import SMALL_VAL, Numbers, Section, Sum, Table, Task, listed
from trainkit.tasks.heads import softmax
from trainkit.tasks.rows import TOLD, class_table, name_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trainkit.plots.charts import Reliability

FEW = 10  # samples of a class in train, below which it is hardly learned
PER_CLASS = 5  # samples of a class in val, below which it judges badly
IMBALANCE = 0.8  # share of the most frequent class
SKEW = 10  # times more samples of the most frequent class than of the least


@register("task", name="classification")
class Classification(Task):
    name = "classification"
    losses: ClassVar[tuple[str, ...]] = ("cross_entropy", "focal")
    monitor = "accuracy"
    mixed = "soft"
    labeled = True
    output = "logits"
    ranks = True

    def check_target(self, target: TargetSpec, where: str) -> None:
        classes = target.classes or []
        if len(classes) < 2:
            found = f"only '{classes[0]}'" if classes else "none"
            raise DataError(f"{where}: {self.name} needs at least two classes, found {found}")

    def check(self, targets: NDArray[Any], target: TargetSpec, where: str) -> None:
        if targets.ndim != 1 or targets.dtype.kind not in "iu":
            raise DataError(f"{where}: labels are {targets.dtype} {targets.shape}; they must be integers of shape (N,)")
        num_classes = self.num_outputs(target)
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

    def table(self, summaries: dict[str, dict[str, Any]], target: TargetSpec) -> Table | None:
        return class_table(summaries, target)

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
        from trainkit.tasks.counts import ClassHits, Hits, TopHits
        from trainkit.tasks.scores import MOST_CLASSES, Areas, log_loss

        count = self.num_outputs(target)
        if not full:
            return [Hits()]
        top = [TopHits(topk)] if self.counts_top(count, topk) else []
        return [Hits(), *top, ClassHits(count), log_loss(), *([Areas(count)] if count <= MOST_CLASSES else [])]

    def counts(self, targets: NDArray[Any], target: TargetSpec) -> list[int] | None:
        import numpy as np

        return list(np.bincount(targets, minlength=self.num_outputs(target)).tolist())

    def keep(self, outputs: Tensor, targets: Any, target: TargetSpec) -> dict[str, Tensor]:
        confidence, predicted = outputs.softmax(dim=1).max(dim=1)
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        return {"targets": labels, "predicted": predicted, "confidence": confidence, "outputs": outputs}

    def check_kept(self, kept: Numbers, target: TargetSpec) -> None:
        import numpy as np

        targets, outputs, num_classes = kept["targets"], kept.get("outputs"), len(target.classes or [])
        if "predicted" not in kept or "confidence" not in kept or targets.ndim != 1 or kept["predicted"].ndim != 1:
            raise ValueError("it holds no classes and confidences")
        labels = np.concatenate([targets, kept["predicted"]])
        if labels.dtype.kind != "i" or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError("it names classes that do not exist")
        if outputs is not None and outputs.shape != (len(targets), num_classes):
            raise ValueError("its outputs do not fit its classes")

    def right(self, kept: Numbers, metric: str) -> NDArray[Any] | None:
        return kept["predicted"] == kept["targets"] if metric == "accuracy" else None

    def worst(self, kept: Numbers, most: int) -> dict[str, NDArray[Any]]:
        """The errors of highest confidence, then those of the others whose true class got the least probability."""
        import numpy as np

        wrong = np.flatnonzero(kept["predicted"] != kept["targets"])
        sure = wrong[np.argsort(-kept["confidence"][wrong], kind="stable")][:most]
        found = {"most confident": sure}
        true = true_probability(kept)
        if true is not None and len(others := np.setdiff1d(wrong, sure)):
            found["true class least expected"] = others[np.argsort(true[others], kind="stable")][:most]
        return found

    def best(self, kept: Numbers, most: int) -> NDArray[Any]:
        """The right answers of highest confidence, as many of each class as can be."""
        import numpy as np

        right = np.flatnonzero(kept["predicted"] == kept["targets"])
        order = right[np.argsort(-kept["confidence"][right], kind="stable")]
        labels = kept["targets"][order]
        rank = np.zeros(len(order), np.int64)  # of each among those of its class
        for label in np.unique(labels):
            rank[labels == label] = np.arange(int((labels == label).sum()))
        return order[np.argsort(rank, kind="stable")][:most]

    def answer(self, kept: Numbers, place: int, target: TargetSpec) -> dict[str, str]:
        classes, one = target.classes or [], {name: values[place : place + 1] for name, values in kept.items()}
        true, share = classes[int(one["targets"][0])], true_probability(one)
        predicted = f"{classes[int(one['predicted'][0])]} {one['confidence'][0]:.1%}"
        return {"true": true if share is None else f"{true} {share[0]:.1%}", "predicted": predicted}

    def words(self, value: NDArray[Any], target: TargetSpec) -> str:
        classes = target.classes or []
        if value.size == 1 and value.dtype.kind == "i" and 0 <= int(value.item()) < len(classes):
            return classes[int(value.item())]
        return name_shares(value, classes) if value.size == len(classes) else super().words(value, target)

    def sections(self, kept: Numbers, target: TargetSpec) -> list[Section]:
        from trainkit.tasks import calibration, confusion

        classes, labels = target.classes or [], (kept["targets"], kept["predicted"])
        return [
            confusion.confusion_section(*labels, classes),
            calibration.section(_reliability(kept), "reliability"),
            confusion.class_section(*labels, classes),
        ]

    def details(self, kept: Numbers, target: TargetSpec) -> Table | None:
        from trainkit.tasks import confusion

        classes = target.classes or []
        if len(classes) > TOLD:
            return None
        return confusion.class_section(kept["targets"], kept["predicted"], classes).tables[0]

    def sentences(self, measured: dict[str, float], kept: Numbers, target: TargetSpec) -> list[str]:
        from trainkit.tasks import confusion

        if not kept:
            return []
        targets, predicted = kept["targets"], kept["predicted"]
        return [
            confusion.count_wrong(targets == predicted),
            confusion.baseline(targets, predicted, target.classes or []),
        ]

    def calibration(self, kept: Numbers) -> list[str]:
        from trainkit.tasks.calibration import sentence

        return [sentence(_reliability(kept))]

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

    def rows_by_threshold(
        self, told: Tensor, target: TargetSpec, *, topk: int, threshold: float
    ) -> list[dict[str, Any]]:
        classes = target.classes or []
        if len(classes) != 2:
            return self.rows(told, target, topk=topk)
        rows = []
        for values in told.tolist():
            first = int(values[1] >= threshold)
            order = [first, 1 - first][:topk]
            rows.append(likeliest([values[place] for place in order], [classes[place] for place in order]))
        return rows

    def counts_top(self, num_classes: int, topk: int) -> bool:
        """Whether a hit among the k likeliest says more than one at the first place."""
        return num_classes > topk

    def head(self, target: TargetSpec) -> nn.Module | None:
        return softmax()


def true_probability(kept: Numbers) -> NDArray[Any] | None:
    """The probability (N,) that was given to the true class; None without all the outputs."""
    import numpy as np

    if "outputs" not in kept:
        return None
    logits = kept["outputs"].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(logits)), kept["targets"]]
    return np.asarray(np.exp(chosen - np.log(np.exp(logits).sum(axis=1))))


def _reliability(kept: Numbers) -> Reliability:
    from trainkit.tasks.calibration import reliability

    return reliability(kept["confidence"], kept["predicted"] == kept["targets"])


def nth(place: int) -> str:
    """How the columns of the second likeliest class, and those after it, are told from the first's."""
    return f"_{place + 1}" if place else ""


def likeliest(probabilities: list[float], names: list[str]) -> dict[str, Any]:
    """A row of classes and their probabilities, the likeliest first."""
    row: dict[str, Any] = {}
    for place, (name, value) in enumerate(zip(names, probabilities, strict=True)):
        row |= {f"class{nth(place)}": name, f"probability{nth(place)}": value}
    return row
