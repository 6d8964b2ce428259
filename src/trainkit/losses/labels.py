"""Losses of labels that do not exclude each other: zeros and ones (N, C), against a logit for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.losses.weights import per_class
from trainkit.registry import register
from trainkit.schema import NonNegative

if TYPE_CHECKING:
    from torch import nn


@register("loss")
def bce(num_outputs: int, *, pos_weight: list[NonNegative] | None = None) -> nn.Module:
    """Binary cross-entropy of each label, from logits.

    pos_weight: one factor per label on its positive samples. Raises ConfigError when it has not one entry per label.
    """
    from torch import nn

    return nn.BCEWithLogitsLoss(pos_weight=per_class("pos_weight", pos_weight, num_outputs))
