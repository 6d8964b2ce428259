"""A share of each class per sample: float32 (N, C), rows sum to 1, against logits (N, C)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.errors import DataError
from trainkit.registry import register
from trainkit.tasks.base import Task
from trainkit.tasks.classification import Classification
from trainkit.tasks.rows import check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray


@register("task", name="soft")
class Soft(Classification):
    """Measured as classification is, by the likeliest class."""

    name = "soft"
    losses: ClassVar[tuple[str, ...]] = ("kl_div", "cross_entropy")

    def check(self, targets: NDArray[Any], target: TargetSpec, where: str) -> None:
        check_rows(targets, self.num_outputs(target), self.name, where)
        wrong = (targets < 0).any(axis=1) | (abs(targets.sum(axis=1) - 1) > 1e-3)
        if wrong.any():
            row = int(wrong.argmax())
            found = targets[row].tolist()
            raise DataError(f"{where}: soft targets must hold probabilities that sum to 1; row {row} is {found}")

    def strata(self, targets: NDArray[Any]) -> NDArray[Any] | None:
        return None

    def reorder(self, targets: Any, order: NDArray[Any]) -> Any:
        return targets[:, order.argsort()]

    def summary(self, targets: NDArray[Any], target: TargetSpec) -> dict[str, Any]:
        return {"class_counts": [round(float(total), 3) for total in targets.sum(axis=0)]}

    def notes(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        return []

    def warnings(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        return []

    def advice(self, targets: dict[str, NDArray[Any]], target: TargetSpec, monitor: str) -> list[str]:
        return Task.advice(self, targets, target, monitor)

    def chance(self, target: TargetSpec) -> float | None:
        return None

    def counts(self, targets: NDArray[Any], target: TargetSpec) -> list[int] | None:
        return None

    def counts_top(self, num_classes: int, topk: int) -> bool:
        return False
