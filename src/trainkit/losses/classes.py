"""Losses of classes: labels (N,) or shares (N, C), against logits (N, C)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainkit.losses.weights import ByCount, of_classes
from trainkit.registry import register
from trainkit.schema import Fraction, NonNegative

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainkit.data.batch import Batch
    from trainkit.data.spec import TargetSpec


@register("loss")
def cross_entropy(
    num_outputs: int,
    target: TargetSpec | None = None,
    *,
    label_smoothing: Fraction = 0.0,
    weight: list[NonNegative] | ByCount | None = None,
    beta: Fraction = 0.999,
) -> nn.Module:
    """Cross-entropy of class labels or class probabilities.

    weight: one factor per class, or `balanced` or `effective`, by how many samples of each class train has, see
    `weights.of_classes`; for class labels the batch mean is then the weighted mean, as in torch. beta: of `effective`.
    Label smoothing is Szegedy et al. 2016 (arXiv:1512.00567). Raises ConfigError when `weight` does not have one entry
    per class or has no positive entry.
    """
    from torch import nn

    return nn.CrossEntropyLoss(weight=of_classes(weight, num_outputs, target, beta), label_smoothing=label_smoothing)


@register("loss")
def focal(
    num_outputs: int,
    target: TargetSpec | None = None,
    *,
    gamma: NonNegative = 2.0,
    weight: list[NonNegative] | ByCount | None = None,
    beta: Fraction = 0.999,
) -> nn.Module:
    """Cross-entropy of class labels that counts easy samples less.

    Each sample's is multiplied by (1 - p)^gamma, p being the probability of its class (Lin et al. 2017,
    arXiv:1708.02002); gamma=0 is cross-entropy. weight, beta: as of cross_entropy. Raises ConfigError as that does.
    """

    from trainkit.losses.base import Loss

    class Focal(Loss):
        factors: torch.Tensor | None

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factors", of_classes(weight, num_outputs, target, beta))

        def forward(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
            labels: Any = batch.targets
            log_probs = outputs.log_softmax(dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
            losses = -log_probs * (1 - log_probs.exp()) ** gamma
            if self.factors is None:
                return losses.mean()
            factors = self.factors[labels]
            return (losses * factors).sum() / factors.sum()

        def weight(self, batch: Batch) -> torch.Tensor | float:
            labels: Any = batch.targets
            return len(batch) if self.factors is None else self.factors[labels].sum()

    return Focal()


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
