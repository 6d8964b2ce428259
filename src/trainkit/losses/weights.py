"""One factor for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from trainkit.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from trainkit.data.spec import TargetSpec

ByCount = Literal["balanced", "effective"]


def of_classes(
    values: list[float] | ByCount | None, num_outputs: int, target: TargetSpec | None, beta: float
) -> torch.Tensor | None:
    """The factors (C,) of `loss.weight`: as they are given, or by how many samples each class has in train.

    balanced: n / (C * count), as scikit-learn has it. effective: 1 / (1 - beta^count), the inverse of the effective
    number of samples (Cui et al. 2019, arXiv:1901.05555), with a mean of 1. A class without samples gets 0. Raises
    ConfigError for targets without classes, and where `per_class` does.
    """
    if values is None or isinstance(values, list):
        if values is not None and not any(values):
            raise ConfigError("loss.weight: at least one class needs a weight > 0")
        return per_class("weight", values, num_outputs)
    if target is None or target.counts is None:
        raise ConfigError(f"loss.weight={values} counts the samples of each class; these targets have no such count")
    counts = target.counts
    if values == "balanced":
        factors = [sum(counts) / (len(counts) * count) if count else 0.0 for count in counts]
    else:
        raw = [1 / (1 - beta**count) if count else 0.0 for count in counts]
        factors = [factor * len(raw) / sum(raw) for factor in raw]
    return per_class("weight", factors, num_outputs)


def per_class(key: str, values: list[float] | None, num_outputs: int) -> torch.Tensor | None:
    """The factors (C,) of `loss.<key>`; None where there are none. Raises ConfigError unless there is one per class."""
    # torch's losses keep such a tensor as a buffer, so `.to(device)` moves it.
    import torch

    if values is None:
        return None
    if len(values) != num_outputs:
        raise ConfigError(f"loss.{key}: expected {num_outputs} numbers, one per class, got {len(values)}")
    return torch.tensor(values, dtype=torch.float32)
