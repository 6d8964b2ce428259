"""Any number of labels per sample: float32 zeros and ones (N, C), against a logit for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.registry import register
from trainkit.tasks.base import Numbers, Section, Sum, Table, Task
from trainkit.tasks.heads import sigmoid
from trainkit.tasks.rows import check_outputs, check_rows, class_table, name_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from trainkit.plots.charts import Reliability

LIKELY = 0.5  # from this probability on a model says yes


@register("task", name="multilabel")
class Multilabel(Task):
    name = "multilabel"
    losses: ClassVar[tuple[str, ...]] = ("bce",)
    output = "logits"

    def check(self, targets: NDArray[Any], target: TargetSpec, where: str) -> None:
        check_rows(targets, len(target.classes or []), self.name, where)
        wrong = ((targets != 0) & (targets != 1)).any(axis=1)
        if wrong.any():
            row = int(wrong.argmax())
            found = targets[row].tolist()
            raise DataError(f"{where}: multilabel targets must hold only 0 and 1; row {row} is {found}")

    def output_shape(self, target: TargetSpec) -> tuple[int, ...] | None:
        return (self.num_outputs(target),)

    def num_outputs(self, target: TargetSpec) -> int:
        return len(target.classes or [])

    def reorder(self, targets: Any, order: NDArray[Any]) -> Any:
        return targets[:, order.argsort()]

    def summary(self, targets: NDArray[Any], target: TargetSpec) -> dict[str, Any]:
        return {"class_counts": [round(float(total), 3) for total in targets.sum(axis=0)]}

    def table(self, summaries: dict[str, dict[str, Any]], target: TargetSpec) -> Table | None:
        return class_table(summaries, target)

    def sums(self, target: TargetSpec, *, full: bool, topk: int) -> list[Sum]:
        from trainkit.tasks.counts import LabelHits

        return [LabelHits(self.num_outputs(target))] if full else []

    def head(self, target: TargetSpec) -> nn.Module | None:
        return sigmoid()

    def fields(self, target: TargetSpec, *, topk: int) -> dict[str, type]:
        return {"classes": list, **dict.fromkeys((f"probability_{name}" for name in target.classes or []), float)}

    def rows(self, told: Tensor, target: TargetSpec, *, topk: int) -> list[dict[str, Any]]:
        classes = target.classes or []
        found = []
        for values in told.tolist():
            pairs = list(zip(classes, values, strict=True))
            said = {"classes": [name for name, value in pairs if value >= LIKELY]}
            found.append(said | {f"probability_{name}": value for name, value in pairs})
        return found

    def keep(self, outputs: Tensor, targets: Any, target: TargetSpec) -> dict[str, Tensor]:
        return {"targets": targets, "outputs": outputs}

    def check_kept(self, kept: Numbers, target: TargetSpec) -> None:
        check_outputs(kept, len(target.classes or []))

    def right(self, kept: Numbers, metric: str) -> NDArray[Any] | None:
        if metric != "accuracy" or "outputs" not in kept:
            return None
        return ((kept["outputs"] > 0) == (kept["targets"] > 0.5)).all(axis=1)  # type: ignore[no-any-return]

    def worst(self, kept: Numbers, most: int) -> dict[str, NDArray[Any]]:
        """The samples with the surest wrong label."""
        if "outputs" not in kept:
            return {}
        wrong_by = _wrong_by(kept).max(axis=1)
        order = (-wrong_by).argsort(kind="stable")
        return {"surest wrong label": order[wrong_by[order] > 0][:most]}

    def answer(self, kept: Numbers, place: int, target: TargetSpec) -> dict[str, str]:
        classes, one = target.classes or [], {name: values[place : place + 1] for name, values in kept.items()}
        probability = _probability(one)[0]
        wrong = int(_wrong_by(one)[0].argmax())
        said = {"true": one["targets"][0] > 0.5, "predicted": probability > 0.5}
        words = {key: ", ".join(classes[int(i)] for i in labels.nonzero()[0]) or "none" for key, labels in said.items()}
        return words | {"surest wrong": f"{classes[wrong]} {probability[wrong]:.1%}"}

    def words(self, value: NDArray[Any], target: TargetSpec) -> str:
        classes = target.classes or []
        return name_shares(value, classes) if value.size == len(classes) else super().words(value, target)

    def sections(self, kept: Numbers, target: TargetSpec) -> list[Section]:
        from trainkit.tasks.calibration import section

        return [section(_reliability(kept), "reliability of labels")] if "outputs" in kept else []

    def sentences(self, measured: dict[str, float], kept: Numbers, target: TargetSpec) -> list[str]:
        from trainkit.tasks.confusion import count_wrong

        right = self.right(kept, "accuracy")
        return [] if right is None else [count_wrong(right)]

    def calibration(self, kept: Numbers) -> list[str]:
        from trainkit.tasks.calibration import sentence

        return [sentence(_reliability(kept))] if "outputs" in kept else []


def _probability(kept: Numbers) -> NDArray[Any]:
    """The probability of each label of each sample (N, C)."""
    import numpy as np

    return np.asarray(1 / (1 + np.exp(-np.clip(kept["outputs"].astype(np.float64), -500, 500))))


def _wrong_by(kept: Numbers) -> NDArray[Any]:
    """How far on the wrong side of one half each probability is (N, C); 0 on the right one."""
    import numpy as np

    probability = _probability(kept)
    return np.where((probability > 0.5) != (kept["targets"] > 0.5), abs(probability - 0.5), 0)


def _reliability(kept: Numbers) -> Reliability:
    """Of every label by itself."""
    import numpy as np

    from trainkit.tasks.calibration import reliability

    probability = _probability(kept)
    right = (probability > 0.5) == (kept["targets"] > 0.5)
    return reliability(np.maximum(probability, 1 - probability), right)
