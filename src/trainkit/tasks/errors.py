"""Sums of the errors of numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trainkit.data.spec import TargetSpec
from trainkit.tasks.base import Metric, Numbers, Sum


class Errors(Sum):
    """Mean absolute error, root of the mean squared error, and R2, in the target's own unit; the mean over its numbers.

    The spread of the targets is summed about their training mean, free of cancellation for targets far from 0.
    """

    metrics = (
        Metric("mae", "min", title="MAE"),
        Metric("rmse", "min", short="rmse", title="RMSE"),
        Metric("r2", "max", short="r2", title="R²"),
    )

    def __init__(self, target: TargetSpec) -> None:
        self.width = target.width
        self.scale = np.array(target.std) if target.standardize else np.ones(target.width)
        # a standardized target's training mean is 0
        self.shift = [0.0] * target.width if target.standardize or target.mean is None else target.mean

    def zeros(self, device: torch.device, real: torch.dtype) -> dict[str, Tensor]:
        self._shift = torch.tensor(self.shift, dtype=real, device=device)  # here, where the device is known
        names = ("absolute", "squared", "target", "target_squared")
        return {name: torch.zeros(self.width, dtype=real, device=device) for name in names}

    def add(self, sums: dict[str, Tensor], outputs: Tensor, targets: Tensor) -> None:
        targets = targets.to(sums["squared"].dtype)
        errors = outputs - targets
        centered = targets - self._shift
        sums["absolute"].add_(errors.abs().sum(dim=0))
        sums["squared"].add_(errors.square().sum(dim=0))
        sums["target"].add_(centered.sum(dim=0))
        sums["target_squared"].add_(centered.square().sum(dim=0))

    def read(self, sums: Numbers, count: int) -> dict[str, float]:
        # r2 of a constant target is 1 if predicted exactly and else 0, as scikit-learn has it.
        squared = sums["squared"]
        spread = sums["target_squared"] - sums["target"] ** 2 / count
        varies = spread > 1e-12 * sums["target_squared"]  # less is rounding, not spread
        share = np.divide(squared, spread, out=(squared > 0).astype(float), where=varies)
        return {
            "mae": float(np.mean(sums["absolute"] / count * self.scale)),
            "rmse": float(np.mean(np.sqrt(squared / count) * self.scale)),
            "r2": float(np.mean(1 - share)),
        }
