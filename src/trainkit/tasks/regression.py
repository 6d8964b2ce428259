"""One number or several per sample: float (N, T), against as many outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from trainkit.data.spec import TargetSpec
from trainkit.registry import register
from trainkit.tasks.base import Double, Numbers, Section, Sum, Table, Task, listed, numbered
from trainkit.tasks.rows import TOLD, check_outputs, check_rows
from trainkit.text import written

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from trainkit.statistics import Difference


@register("task", name="regression")
class Regression(Task):
    name = "regression"
    losses: ClassVar[tuple[str, ...]] = ("mse", "l1", "huber")
    headline = "r2"
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

    def table(self, summaries: dict[str, dict[str, Any]], target: TargetSpec) -> Table | None:
        rows = [
            [str(index), split, *(written(column[key]) for key in ("min", "mean", "max"))]
            for split, summary in summaries.items()
            for index, column in enumerate(summary.get("targets", [])[:TOLD])
        ]
        return Table(["target", "split", "min", "mean", "max"], rows)

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

    def check_kept(self, kept: Numbers, target: TargetSpec) -> None:
        check_outputs(kept)

    def difference(self, ours: Numbers, theirs: Numbers, metric: str) -> tuple[str, Difference] | None:
        from trainkit.statistics import bootstrap_rmse

        if metric != "rmse" or "outputs" not in ours or "outputs" not in theirs:
            return None
        errors = [(one["outputs"].astype("float64") - one["targets"]) ** 2 for one in (ours, theirs)]
        return f"paired bootstrap on {len(errors[0]):,} samples", bootstrap_rmse(*errors)

    def worst(self, kept: Numbers, most: int) -> dict[str, NDArray[Any]]:
        """The largest errors, in units of each target's spread."""
        import numpy as np

        if "outputs" not in kept:
            return {}
        spread = np.maximum(kept["targets"].std(axis=0, dtype=np.float64), 1e-12)
        error = (np.abs(kept["outputs"].astype(np.float64) - kept["targets"]) / spread).max(axis=1)
        return {"largest error": np.argsort(-error, kind="stable")[:most]}

    def answer(self, kept: Numbers, place: int, target: TargetSpec) -> dict[str, str]:
        values = {"true": kept["targets"][place], "predicted": kept["outputs"][place]}
        return {key: ", ".join(written(float(x)) for x in numbers) for key, numbers in values.items()}

    def sections(self, kept: Numbers, target: TargetSpec) -> list[Section]:
        from trainkit.plots.charts import regression

        if "outputs" not in kept:
            return []
        return [Section("Predicted against true", {"regression": regression(kept["targets"], kept["outputs"])})]

    def sentences(self, measured: dict[str, float], kept: Numbers, target: TargetSpec) -> list[str]:
        r2 = measured.get("r2")
        if r2 is None:
            return []
        if r2 <= 0:
            return [f"R² is {r2:.3f}: the model is no better than always answering the mean."]
        return [f"It explains {r2:.1%} of the targets' variance; always answering the mean would explain none."]
