"""The statistics of `trainkit compare` against SciPy's on the same numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from trainkit import statistics
from trainkit.statistics import bootstrap_rmse, estimate, holm, mcnemar, welch

SAMPLES = [
    ([0.91, 0.93, 0.92], [0.94, 0.95, 0.955]),
    ([0.5, 0.75], [0.1, 0.2, 0.9, 0.4, 0.3]),
    ([1e-9, 3e-9, 2e-9], [5e-9, 4e-9]),
    ([100.0, 101.0, 99.5, 100.2], [100.0, 100.1, 100.0]),
]


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_interval_of_a_mean_is_students(a: list[float], b: list[float]) -> None:
    for values in (a, b):
        found = estimate(values)
        assert found.mean == pytest.approx(np.mean(values)) and found.count == len(values)
        assert found.std == pytest.approx(np.std(values, ddof=1))
        expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert found.interval == pytest.approx(expected)


def test_values_without_spread() -> None:
    same, one = estimate([0.1 + 0.2] * 3), estimate([0.5])
    assert same == statistics.Estimate(pytest.approx(0.3), 0.0, 3) and same.interval == (pytest.approx(0.3),) * 2
    assert one == statistics.Estimate(0.5, None, 1) and one.interval is None


@pytest.mark.parametrize(("a", "b"), SAMPLES)
def test_welch(a: list[float], b: list[float]) -> None:
    expected = stats.ttest_ind(b, a, equal_var=False)
    found = welch(a, b)
    assert found is not None
    assert found.p == pytest.approx(expected.pvalue)
    assert found.value == pytest.approx(np.mean(b) - np.mean(a))
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_welch_does_not_judge_what_does_not_vary() -> None:
    assert welch([0.9, 0.9], [0.95, 0.95, 0.95]) is None
    assert welch([0.1 + 0.2] * 3, [0.3] * 3) is None


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (5, 17), (8, 8), (1, 30), (480, 520), (0, 1000)])
def test_mcnemar_of_few_disagreements_is_the_binomial_test(only_a: int, only_b: int) -> None:
    count = only_a + only_b
    expected = stats.binomtest(only_a, count).pvalue if count else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@pytest.mark.parametrize(("only_a", "only_b"), [(500, 501), (600, 500), (2000, 2300), (0, 1001)])
def test_mcnemar_of_many_is_the_corrected_chi_squared_test(only_a: int, only_b: int) -> None:
    chi_squared = max(abs(only_a - only_b) - 1, 0) ** 2 / (only_a + only_b)
    assert mcnemar(only_a, only_b) == pytest.approx(stats.chi2.sf(chi_squared, 1))
    exact = stats.binomtest(only_a, only_a + only_b).pvalue
    assert mcnemar(only_a, only_b) == pytest.approx(exact, rel=0.2, abs=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_bootstrap_agrees_with_scipys(shift: float) -> None:
    generator = np.random.default_rng(1)
    targets = generator.normal(size=(200, 1))
    a = (targets + generator.normal(size=(200, 1)) - targets) ** 2
    b = (np.sqrt(a) + shift + generator.normal(scale=0.2, size=(200, 1))) ** 2

    def difference(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.sqrt(b.mean(axis)) - np.sqrt(a.mean(axis))

    expected = stats.bootstrap(
        (a[:, 0], b[:, 0]), difference, paired=True, vectorized=True, method="percentile", rng=generator
    )
    found = bootstrap_rmse(a, b)
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert found.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.1 * width)
    assert found.value == pytest.approx(math.sqrt(b.mean()) - math.sqrt(a.mean()))
    assert (found.p < 0.05) == (shift > 0)
    assert found == bootstrap_rmse(a, b)  # the same draws every time


def test_bootstrap_of_several_targets_and_of_equal_errors() -> None:
    errors = np.random.default_rng(0).random((50, 3))
    equal = bootstrap_rmse(errors, errors)
    assert (equal.value, equal.p, equal.interval) == (0.0, 1.0, (0.0, 0.0))
    found = bootstrap_rmse(errors, 4 * errors)
    assert found.value == pytest.approx(np.sqrt(errors.mean(axis=0)).mean())
    assert found.p < 0.001


def test_holm_holds_the_chance_of_a_false_alarm() -> None:
    """Rejecting by adjusted p is Holm's procedure: stop at the first p above the level / how many are left."""
    generator = np.random.default_rng(0)
    for size, level in itertools.product((1, 2, 5, 12), (0.01, 0.05, 0.3)):
        p_values = (generator.random(size) ** 3).tolist()
        rejected: set[int] = set()
        for rank, index in enumerate(sorted(range(size), key=p_values.__getitem__)):
            if p_values[index] > level / (size - rank):
                break
            rejected.add(index)
        assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected
    assert holm([]) == []
