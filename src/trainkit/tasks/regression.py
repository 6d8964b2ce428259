"""One number or several per sample: float (N, T), against as many outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.registry import register
from trainkit.tasks.base import Double, Sum, Task, listed, numbered
from trainkit.tasks.rows import check_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@register("task", name="regression")
class Regression(Task):
    name = "regression"
    losses: ClassVar[tuple[str, ...]] = ("mse", "l1", "huber")
    output = "predictions"

    def check(self, targets: NDArray[Any], target: TargetSpec, where: str) -> None:
        check_rows(targets, target.width, self.name, where, ("float32", "float64"))

    def output_shape(self, target: TargetSpec) -> tuple[int, ...] | None:
        return (self.num_outputs(target),)

    def num_outputs(self, target: TargetSpec) -> int:
        return target.width

    def summary(self, targets: NDArray[Any], target: TargetSpec) -> dict[str, Any]:
        columns = targets.T.astype("float64")
        return {
            "targets": [
                {"min": float(column.min()), "mean": float(column.mean()), "max": float(column.max())}
                for column in columns
            ]
        }

    def warnings(self, targets: dict[str, NDArray[Any]], target: TargetSpec) -> list[str]:
        train = targets["train"]
        flat = [str(i) for i in range(train.shape[1]) if train[:, i].min() == train[:, i].max()]
        return [f"constant in train: targets {listed(flat)}"] if flat else []

    def sums(self, target: TargetSpec, *, full: bool, topk: int) -> list[Sum]:
        from trainkit.tasks.errors import Errors

        return [Errors(target)] if full else []

    def fields(self, target: TargetSpec, *, topk: int) -> dict[str, type]:
        kind = Double if target.standardize and target.dtype == "float64" else float
        return dict.fromkeys(numbered("prediction", target.width), kind)

    def keep(self, outputs: Tensor, targets: Any, target: TargetSpec) -> dict[str, Tensor]:
        return {"targets": targets, "outputs": outputs}
