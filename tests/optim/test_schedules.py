"""Schedules against torch.optim.lr_scheduler over a whole run."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler

from trainkit import registry
from trainkit.errors import ConfigError
from trainkit.optim.schedules import pure, scheduled

PER_EPOCH = 7
EPOCHS = 9
TOTAL = PER_EPOCH * EPOCHS


def ours(name: str, **settings) -> list[float]:
    factor = registry.get("schedule", name).build(TOTAL, PER_EPOCH, **settings)
    backwards = [factor(step) for step in reversed(range(TOTAL))]  # pure: the order of the calls is free
    return backwards[::-1]


def torchs(make, *, per_epoch: bool = False, steps: int = TOTAL, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    factors = []
    for step in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % PER_EPOCH == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # OneCycleLR after its last step, SequentialLR's own call
                if step + 1 < steps:
                    scheduler.step()
    return factors


def close(expected: list[float]):
    return pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "settings", "make"),
    [
        ("step", {"every": 2, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 2, 0.3)),
        (
            "multistep",
            {"milestones": [5, 2, 5], "gamma": 0.3},
            lambda o: lr_scheduler.MultiStepLR(o, [5, 2, 5], 0.3),
        ),
        ("exponential", {"gamma": 0.8}, lambda o: lr_scheduler.ExponentialLR(o, 0.8)),
    ],
)
def test_epoch_wise(name: str, settings: dict, make) -> None:
    expected = torchs(make, per_epoch=True)
    assert ours(name, **settings) == close(expected)
    # A warm-up of 1.5 epochs is 10 steps of a ramp, multiplied on.
    ramp = [min((step + 1) / 10, 1.0) for step in range(TOTAL)]
    assert ours(name, **settings, warmup=1.5) == close([a * b for a, b in zip(ramp, expected, strict=True)])


STEP_WISE = [
    ("constant", {}, lambda o, n: lr_scheduler.ConstantLR(o, 1.0)),
    ("cosine", {}, lambda o, n: lr_scheduler.CosineAnnealingLR(o, n)),
    ("cosine", {"final": 0.1}, lambda o, n: lr_scheduler.CosineAnnealingLR(o, n, eta_min=0.1)),
    ("linear", {"final": 0.2}, lambda o, n: lr_scheduler.LinearLR(o, 1.0, 0.2, total_iters=n)),
    ("polynomial", {"power": 2.0}, lambda o, n: lr_scheduler.PolynomialLR(o, n, power=2.0)),
]


@pytest.mark.parametrize(("name", "settings", "make"), STEP_WISE)
def test_step_wise(name: str, settings: dict, make) -> None:
    assert ours(name, **settings) == close(torchs(lambda o: make(o, TOTAL)))


@pytest.mark.parametrize(("name", "settings", "make"), STEP_WISE)
def test_step_wise_after_a_warmup(name: str, settings: dict, make) -> None:
    warm = torchs(lambda o: lr_scheduler.LinearLR(o, 1 / 10, 1.0, total_iters=9), steps=10)
    after = torchs(lambda o: make(o, TOTAL - 10), steps=TOTAL - 10)
    assert ours(name, **settings, warmup=1.5) == close(warm + after)


def test_polynomial_final_and_last_step() -> None:
    factors = ours("polynomial", power=0.9, final=0.1)
    assert factors == close([0.1 + 0.9 * (1 - step / TOTAL) ** 0.9 for step in range(TOTAL)])
    for name in ("cosine", "linear", "polynomial"):
        assert registry.get("schedule", name).build(TOTAL, PER_EPOCH, final=0.25, warmup=2)(TOTAL) == 0.25
        assert ours(name)[-1] > 0
        assert ours(name)[0] == 1.0


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("pct_start", [0.0, 0.3, 1.0])
def test_onecycle(anneal: str, pct_start: float) -> None:
    expected = torchs(
        lambda o: lr_scheduler.OneCycleLR(
            o, 1.0, TOTAL, pct_start=pct_start, anneal_strategy=anneal, div_factor=10.0, final_div_factor=100.0
        )
    )
    factors = ours("onecycle", pct_start=pct_start, anneal=anneal, div_factor=10.0, final_div_factor=100.0)
    assert factors == close(expected)


@pytest.mark.parametrize("name", registry.names("schedule"))
def test_tiny_runs_are_finite(name: str) -> None:
    build = registry.get("schedule", name).build
    for total in range(1, 12):
        factor = build(total, 1)
        assert all(0 <= factor(step) <= 1 for step in range(total + 2)), total
    assert registry.get("schedule", "cosine").build(1, 1)(0) == 1.0


@pytest.mark.parametrize("name", registry.names("schedule"))
def test_warmup(name: str) -> None:
    build = registry.get("schedule", name).build
    first = 1 / 25 if name == "onecycle" else 1.0  # where the schedule proper begins
    assert ours(name, warmup=1)[0] == pytest.approx(first / PER_EPOCH)
    assert ours(name, warmup=1)[PER_EPOCH - 1] == pytest.approx(first)
    whole_run = build(TOTAL, PER_EPOCH, warmup=float(EPOCHS))
    assert 0 < whole_run(TOTAL - 1) <= 1
    with pytest.raises(ConfigError) as error:
        build(TOTAL, PER_EPOCH, warmup=9.5)
    assert str(error.value) == "schedule.warmup: 9.5 epochs (66 steps) are longer than the run of 63 steps"


@pytest.mark.parametrize("name", registry.names("schedule"))
@pytest.mark.parametrize(("total", "per_epoch"), [(1, 1), (63, 7), (100_000, 391)])
def test_our_own_are_pure(name: str, total: int, per_epoch: int) -> None:
    factor = pure(lambda: registry.get("schedule", name).build(total, per_epoch), name, total, per_epoch)
    assert factor(0) == registry.get("schedule", name).build(total, per_epoch)(0)


class Stateful:
    """Halves at the begin of every epoch, whenever it is asked for that step."""

    factor = 1.0

    def __call__(self, step: int) -> float:
        if step and step % 391 == 0:
            self.factor /= 2
        return self.factor


class Extreme:
    """Takes the largest step that it was ever asked for, or the smallest."""

    def __init__(self, extreme) -> None:
        self.extreme = extreme
        self.steps: set[int] = set()

    def __call__(self, step: int) -> float:
        self.steps.add(step)
        return 1 / (1 + self.extreme(self.steps))


def drawn() -> Callable[[int], float]:
    offset = random.random()  # when it is built: a resumed run builds it again
    return lambda step: offset + step


REMEMBERING = [Stateful, lambda: Extreme(max), lambda: Extreme(min), lambda: lambda step: random.random(), drawn]


@pytest.mark.parametrize("make", REMEMBERING)
@pytest.mark.parametrize("epochs", [2, 7])
def test_one_that_remembers_is_refused(make, epochs: int) -> None:
    with pytest.raises(ConfigError, match="schedule 'mine' gave .* it must depend on the step alone"):
        pure(make, "mine", epochs * 391, 391)


@pytest.mark.parametrize(
    ("value", "shown"), [(float("nan"), "nan"), (None, "NoneType"), (torch.ones(()), "Tensor"), ("1", "str")]
)
def test_what_is_no_finite_number_is_refused(value: object, shown: str) -> None:
    with pytest.raises(ConfigError, match=f"schedule 'mine' gave {shown} for step 9; it must give a finite number"):
        pure(lambda: lambda step: value if step == 9 else 1.0, "mine", 10, 10)


def plateau() -> Callable[[int, list[float]], float]:
    """Halves when the last epoch was no better, and remembers that it did."""
    known = {"best": float("-inf"), "factor": 1.0}

    def factor(step: int, history: list[float]) -> float:
        if history and history[-1] > known["best"]:
            known["best"] = history[-1]
        elif history:
            known["factor"] /= 2
        return known["factor"]

    return factor


@pytest.mark.parametrize("history", [[], [0.5, 0.6]])
def test_one_that_remembers_the_history_is_refused(history: list[float]) -> None:
    with pytest.raises(ConfigError, match="schedule 'mine' gave .* it must depend on the step alone"):
        scheduled(lambda total: plateau(), "mine", [], 5, 10, history)


def test_a_held_factor_is_that_of_the_history_that_came() -> None:
    history: list[float] = []
    by_history = lambda total: lambda step, history: 1 / (1 + len(history) + sum(history))  # noqa: E731
    factor = scheduled(by_history, "mine", ["hold@2"], 4, 10, history)
    assert factor(0) == 1.0
    history += [3.0]
    assert factor(10) == factor(19) == 1 / 5
    history += [7.0]
    assert factor(20) == factor(39) == 1 / 5  # as it was at the end of epoch 2
