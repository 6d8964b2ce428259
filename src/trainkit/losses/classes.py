"""Losses of classes: labels (N,) or shares (N, C), against logits (N, C)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.errors import ConfigError
from trainkit.losses.weights import per_class
from trainkit.registry import register
from trainkit.schema import Fraction, NonNegative

if TYPE_CHECKING:
    import torch
    from torch import nn


@register("loss")
def cross_entropy(
    num_outputs: int, *, label_smoothing: Fraction = 0.0, weight: list[NonNegative] | None = None
) -> nn.Module:
    """Cross-entropy of class labels or class probabilities.

    weight: one factor per class; for class labels the batch mean is then the weighted mean, as in torch. Label
    smoothing is Szegedy et al. 2016 (arXiv:1512.00567). Raises ConfigError when `weight` does not have one entry per
    class or has no positive entry.
    """
    from torch import nn

    if weight is not None and not any(weight):
        raise ConfigError("loss.weight: at least one class needs a weight > 0")
    return nn.CrossEntropyLoss(weight=per_class("weight", weight, num_outputs), label_smoothing=label_smoothing)


@register("loss")
def kl_div(num_outputs: int) -> nn.Module:
    """Kullback-Leibler divergence from the class probabilities.

    KL(targets || softmax(outputs)), summed over classes and averaged over samples. Equals the cross-entropy less the
    entropy of the targets: the same gradients, and 0 for a perfect model.
    """
    from torch import nn

    class SoftmaxKLDiv(nn.Module):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            log_probs = nn.functional.log_softmax(outputs, dim=1)
            return nn.functional.kl_div(log_probs, targets, reduction="batchmean")

    return SoftmaxKLDiv()
