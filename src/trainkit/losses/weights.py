"""One factor for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.errors import ConfigError

if TYPE_CHECKING:
    import torch


def per_class(key: str, values: list[float] | None, num_outputs: int) -> torch.Tensor | None:
    """The factors (C,) of `loss.<key>`; None where there are none. Raises ConfigError unless there is one per class."""
    # torch's losses keep such a tensor as a buffer, so `.to(device)` moves it.
    import torch

    if values is None:
        return None
    if len(values) != num_outputs:
        raise ConfigError(f"loss.{key}: expected {num_outputs} numbers, one per class, got {len(values)}")
    return torch.tensor(values, dtype=torch.float32)
