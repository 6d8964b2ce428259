"""Any number of labels per sample: float32 zeros and ones (N, C), against a logit for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.registry import register
from trainkit.tasks.base import Sum, Task
from trainkit.tasks.heads import sigmoid
from trainkit.tasks.rows import check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn


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
