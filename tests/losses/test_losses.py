"""Losses against formulas written out, and the choice of the loss for a task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainkit import registry
from trainkit.data.batch import Batch
from trainkit.errors import ConfigError
from trainkit.losses.base import as_loss
from trainkit.losses.choose import fitting, resolve
from trainkit.losses.classes import cross_entropy, kl_div
from trainkit.losses.labels import bce
from trainkit.losses.numbers import huber, l1, mse
from trainkit.tasks.base import Task, find_task

torch.manual_seed(0)
LOGITS = torch.randn(6, 4, dtype=torch.float64)
LOG_PROBS = LOGITS - LOGITS.exp().sum(1, keepdim=True).log()
LABELS = torch.tensor([0, 3, 2, 1, 1, 0])
SOFT = torch.rand(6, 4, dtype=torch.float64)
SOFT /= SOFT.sum(1, keepdim=True)


def task(name: str) -> Task:
    found = find_task(name)
    assert found is not None
    return found


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.ndim == 0
    torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_cross_entropy() -> None:
    picked = LOG_PROBS[torch.arange(6), LABELS]
    close(cross_entropy(4)(LOGITS, LABELS), -picked.mean())
    close(cross_entropy(4)(LOGITS, SOFT), -(SOFT * LOG_PROBS).sum(1).mean())
    smooth = cross_entropy(4, label_smoothing=0.1)
    close(smooth(LOGITS, LABELS), -(0.9 * picked + 0.1 * LOG_PROBS.mean(1)).mean())
    weight = torch.tensor([1.0, 2.0, 0.5, 4.0])
    weighted = cross_entropy(4, weight=weight.tolist()).double()
    close(weighted(LOGITS, LABELS), -(weight[LABELS] * picked).sum() / weight[LABELS].sum().double())


def test_kl_div_is_cross_entropy_less_entropy() -> None:
    entropy = -(SOFT * SOFT.log()).sum(1).mean()
    close(kl_div(4)(LOGITS, SOFT), cross_entropy(4)(LOGITS, SOFT) - entropy)
    assert kl_div(4)(SOFT.log(), SOFT).abs() < 1e-15
    one_hot = torch.nn.functional.one_hot(LABELS, 4).double()  # zeros in the target give no NaN
    close(kl_div(4)(LOGITS, one_hot), cross_entropy(4)(LOGITS, LABELS))


def test_bce() -> None:
    targets = (SOFT > 0.25).double()
    p = LOGITS.sigmoid()
    factor = torch.tensor([1.0, 3.0, 1.0, 0.5], dtype=torch.float64)
    terms = targets * p.log(), (1 - targets) * (1 - p).log()
    close(bce(4)(LOGITS, targets), -(terms[0] + terms[1]).mean())
    close(bce(4, pos_weight=factor.tolist()).double()(LOGITS, targets), -(factor * terms[0] + terms[1]).mean())


def test_regression_losses() -> None:
    error = LOGITS - SOFT
    close(mse(4)(LOGITS, SOFT), error.square().mean())
    close(l1(4)(LOGITS, SOFT), error.abs().mean())
    size = error.abs()
    close(huber(4, delta=0.7)(LOGITS, SOFT), torch.where(size <= 0.7, size**2 / 2, 0.7 * (size - 0.35)).mean())


def test_what_a_mean_weighs_leaves_out_the_labels_that_are_ignored() -> None:
    labels = torch.tensor([0, 1, -100, 3, -100])
    weight = torch.tensor([1.0, 2.0, 0.5, 4.0])
    for targets in (labels, labels.reshape(5, 1)):
        batch = Batch(torch.zeros(5, 4), targets, torch.arange(5))
        assert as_loss(nn.CrossEntropyLoss()).weight(batch) == 3
        assert as_loss(nn.CrossEntropyLoss(weight=weight)).weight(batch) == 7
    whole = Batch(torch.zeros(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.arange(5))
    assert as_loss(nn.CrossEntropyLoss(ignore_index=0), labeled=True).weight(whole) == 3
    known = as_loss(nn.CrossEntropyLoss(), labeled=True).weight(whole)
    assert isinstance(known, int) and known == 5  # on the host: the device is not asked


def test_weights_move_with_the_module() -> None:
    assert cross_entropy(2, weight=[1.0, 2.0]).to("meta").weight.device.type == "meta"
    assert bce(2, pos_weight=[1.0, 2.0]).to("meta").pos_weight.device.type == "meta"


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: cross_entropy(3, weight=[1.0, 2.0]), "loss.weight: expected 3 numbers, one per class, got 2"),
        (lambda: bce(1, pos_weight=[1.0, 2.0]), "loss.pos_weight: expected 1 numbers, one per class, got 2"),
        (lambda: cross_entropy(2, weight=[0.0, 0.0]), "loss.weight: at least one class needs a weight > 0"),
        (
            lambda: resolve("mse", task("classification"), "digits"),
            (
                "loss 'mse' cannot train dataset 'digits', which is classification; "
                "choose from: auto, cross_entropy, focal"
            ),
        ),
        (
            lambda: resolve("cross_entropy", task("regression"), "diabetes"),
            (
                "loss 'cross_entropy' cannot train dataset 'diabetes', which is regression; "
                "choose from: auto, huber, l1, mse"
            ),
        ),
        (
            lambda: resolve("msee", task("regression"), "diabetes"),
            (
                "loss 'msee' is not known (did you mean mse?); "
                "choose from: auto, bce, cross_entropy, focal, huber, kl_div, l1, mse"
            ),
        ),
    ],
)
def test_errors(build, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        build()
    assert str(error.value) == text


USUAL = {"classification": "cross_entropy", "soft": "kl_div", "multilabel": "bce", "regression": "mse"}


def test_auto_resolves_to_the_usual_loss() -> None:
    assert set(USUAL) <= set(registry.names("task"))
    for name, usual in USUAL.items():
        assert resolve("auto", task(name), "any") is registry.get("loss", usual)
        assert resolve(usual, task(name), "any").name == usual
        assert {"auto", usual} <= set(fitting(task(name)))
    assert fitting(task("soft")) == ["auto", "cross_entropy", "kl_div"]
    assert registry.get("loss", "auto").schema == {}
    with pytest.raises(TypeError, match="build the component that `resolve` returns"):
        registry.get("loss", "auto").build()
