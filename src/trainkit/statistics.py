"""Comparing measured numbers: intervals over seeds and of shares, paired tests over samples. No torch.

SciPy and NumPy are imported where they are needed, and nothing else of this module needs them.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 0.95  # of every interval; what is called distinguishable has p < 1 - LEVEL
EXACT = 1000  # disagreements up to which McNemar's test is exact
RESAMPLES = 5000


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mean of `count` values, and if they are several their standard deviation (n - 1)."""

    mean: float
    std: float | None
    count: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's interval for the mean of independent, about normal values; None for one value.

        Source: Student (1908), The probable error of a mean, Biometrika 6.
        """
        if self.std is None:
            return None
        half = _t_quantile(self.count - 1) * self.std / math.sqrt(self.count)
        return self.mean - half, self.mean + half


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference b - a, its p-value under "there is none", and an interval where the test gives one."""

    value: float
    p: float
    interval: tuple[float, float] | None = None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard deviation of one value or more."""
    std = math.sqrt(statistics.variance(values)) if len(values) > 1 else None
    return Estimate(statistics.fmean(values), std, len(values))


def interval(hits: int, total: int) -> tuple[float, float]:
    """The 95% score interval of a share.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22.
    """
    z, share = 1.96, hits / total
    center = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (center - half) / (1 + z * z / total), (center + half) / (1 + z * z / total)


def welch(a: Sequence[float], b: Sequence[float]) -> Difference | None:
    """The difference of the means of two independent samples of two or more values, of variances that may differ.

    None when neither sample varies at all: then there is nothing to judge a difference by.
    Source: Welch (1947), The generalization of "Student's" problem when several different population variances are
    involved, Biometrika 34; degrees of freedom after Satterthwaite (1946).
    """
    from scipy.special import stdtr

    squares = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    error = math.sqrt(sum(squares))
    value = statistics.fmean(b) - statistics.fmean(a)
    if error == 0:
        return None
    shares = [square / sum(squares) for square in squares]  # before squaring: tiny variances do not underflow
    freedom = 1 / (shares[0] ** 2 / (len(a) - 1) + shares[1] ** 2 / (len(b) - 1))
    half = _t_quantile(freedom) * error
    return Difference(value, 2 * float(stdtr(freedom, -abs(value) / error)), (value - half, value + half))


def mcnemar(only_a: int, only_b: int) -> float:
    """The two-sided p-value of "a and b are right equally often", from the samples that one of them alone has right.

    Up to EXACT such samples the binomial test, beyond it the chi-squared test with continuity correction.
    Source: McNemar (1947), Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12; the correction is Edwards's (1948).
    """
    count, fewer = only_a + only_b, min(only_a, only_b)
    if count == 0:
        return 1.0
    if count <= EXACT:
        return min(1.0, sum(math.comb(count, k) for k in range(fewer + 1)) / (1 << (count - 1)))
    chi_squared = max(abs(only_a - only_b) - 1, 0) ** 2 / count
    return math.erfc(math.sqrt(chi_squared / 2))


def bootstrap_rmse(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """The difference of two root mean squared errors on the same samples, by resampling the samples.

    a, b: (N, T), squared errors of T targets in original units; the RMSE is the mean of the targets' RMSEs.
    The interval is the percentile interval; p is twice the smaller share of resamples on either side of no difference.
    The draws are the same in every call. Source: Efron (1979), Bootstrap methods: another look at the jackknife, Annals
    of Statistics 7; Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapters 13 and 16.
    """
    import numpy as np

    from trainkit.randomness import numpy_generator

    def difference(index: NDArray[Any]) -> NDArray[Any]:
        """(R,) for the samples (R, N)."""
        ours, theirs = (np.sqrt(errors[index].mean(axis=1)).mean(axis=1) for errors in (a, b))
        return np.asarray(theirs - ours)

    generator = numpy_generator(0, "bootstrap")
    at_once = max(1, 1_000_000 // a.size)
    draws = np.concatenate(
        [
            difference(generator.integers(0, len(a), (min(at_once, RESAMPLES - done), len(a))))
            for done in range(0, RESAMPLES, at_once)
        ]
    )
    below, above = int((draws <= 0).sum()), int((draws >= 0).sum())
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    value = float(difference(np.arange(len(a))[None])[0])
    return Difference(value, min(1.0, 2 * (min(below, above) + 1) / (RESAMPLES + 1)), (float(low), float(high)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for how many they are: the chance of any false alarm stays below the level.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _t_quantile(freedom: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - (1 - LEVEL) / 2))
