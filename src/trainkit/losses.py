"""Losses: called as loss(outputs, targets), they return the batch mean as a 0-dim tensor.

Outputs are logits (N, C), or standardised predictions (N, T) for regression; targets are as `data.splits` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import registry
from trainkit.errors import ConfigError
from trainkit.registry import Component, register
from trainkit.schema import Fraction, NonNegative, Positive

if TYPE_CHECKING:
    import torch
    from torch import nn

DEFAULT_LOSS = {"classification": "cross_entropy", "soft": "kl_div", "multilabel": "bce", "regression": "mse"}


def probabilities(outputs: torch.Tensor, task: str) -> torch.Tensor:
    """What logits (N, C) mean: softmax for classification and soft labels, a sigmoid per class for multilabel."""
    return outputs.sigmoid() if task == "multilabel" else outputs.softmax(dim=1)


def class_weight(loss_fn: nn.Module) -> torch.Tensor | None:
    """(C,), where the loss is a mean over class labels in which each sample counts as its class weighs; else None."""
    from torch import nn

    return loss_fn.weight if isinstance(loss_fn, (nn.CrossEntropyLoss, nn.NLLLoss)) else None


@register("loss", serves=tuple(DEFAULT_LOSS))
def auto(num_outputs: int) -> nn.Module:
    """The usual loss of the data set's task.

    A name to choose, not a loss: `resolve` puts the loss of `DEFAULT_LOSS` in its place, so building it is a bug and
    raises TypeError.
    """
    raise TypeError("loss 'auto' stands for the loss of a task: build the component that losses.resolve() returns")


@register("loss", serves=("classification", "soft"))
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
    return nn.CrossEntropyLoss(weight=_per_class("weight", weight, num_outputs), label_smoothing=label_smoothing)


@register("loss", serves=("soft",))
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


@register("loss", serves=("multilabel",))
def bce(num_outputs: int, *, pos_weight: list[NonNegative] | None = None) -> nn.Module:
    """Binary cross-entropy of each label, from logits.

    pos_weight: one factor per label on its positive samples. Raises ConfigError when it has not one entry per label.
    """
    from torch import nn

    return nn.BCEWithLogitsLoss(pos_weight=_per_class("pos_weight", pos_weight, num_outputs))


@register("loss", serves=("regression",))
def mse(num_outputs: int) -> nn.Module:
    """Mean squared error."""
    from torch import nn

    return nn.MSELoss()


@register("loss", serves=("regression",))
def l1(num_outputs: int) -> nn.Module:
    """Mean absolute error."""
    from torch import nn

    return nn.L1Loss()


@register("loss", serves=("regression",))
def huber(num_outputs: int, *, delta: Positive = 1.0) -> nn.Module:
    """Huber loss: squared up to delta, linear beyond.

    delta: in standard deviations of the target where the targets are standardised (Huber 1964).
    """
    from torch import nn

    return nn.HuberLoss(delta=delta)


def fitting(task: str) -> list[str]:
    """Names of the losses that serve a task, sorted; `auto` is one of them."""
    return [name for name in registry.names("loss") if task in registry.get("loss", name).serves]


def resolve(name: str, task: str, dataset: str) -> Component:
    """The loss to build: the one named, or for `auto` the task's usual one.

    Raises ConfigError when there is no such loss or it does not serve the task of the data set.
    """
    component = registry.get("loss", DEFAULT_LOSS[task] if name == "auto" else name)
    if task not in component.serves:
        raise ConfigError(
            f"loss '{name}' serves {' and '.join(component.serves) or 'no task'}, "
            f"but dataset '{dataset}' is {task}; choose from: {', '.join(fitting(task))}"
        )
    return component


def _per_class(key: str, values: list[float] | None, num_outputs: int) -> torch.Tensor | None:
    # torch's losses keep such a tensor as a buffer, so `.to(device)` moves it.
    import torch

    if values is None:
        return None
    if len(values) != num_outputs:
        raise ConfigError(f"loss.{key}: expected {num_outputs} numbers, one per class, got {len(values)}")
    return torch.tensor(values, dtype=torch.float32)
