"""Whether a model is as sure as it may be: accuracy against confidence. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.plots.charts import Reliability, reliability_diagram
from trainkit.tasks.base import Section

BINS = 15  # of the reliability diagram, as in Guo et al. 2017
FEW = 200  # samples, below which the error of calibration is mostly the chance of each bin
NOTE = (
    "Of the samples that the model is 80% sure of, 80% should be right: dots on the dashed line. Below it the model is "
    "too sure, above it too careful. The expected calibration error (ECE) is the mean gap, weighted by samples "
    f"(Guo et al. 2017, {BINS} bins); of fewer than {FEW} samples it is mostly chance."
)


def reliability(confidence: NDArray[Any], right: NDArray[Any]) -> Reliability:
    """The reliability of answers: how sure the model was of each (N, …), and whether it was right (N, …)."""
    samples, confidence = len(confidence), confidence.reshape(-1).astype(np.float64)
    which = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)  # bin m holds ((m-1)/M, m/M]
    count = np.bincount(which, minlength=BINS)
    filled = np.where(count > 0, count, np.nan)
    mean = np.bincount(which, confidence, BINS) / filled
    accuracy = np.bincount(which, right.reshape(-1), BINS) / filled
    error = float(np.nansum(count / len(confidence) * np.abs(accuracy - mean)))
    return Reliability(mean, accuracy, count, error, samples)


def section(found: Reliability, title: str) -> Section:
    """The diagram, and how it is read."""
    title += f", ECE {found.error:.1%}" + (f" (only {found.samples} samples)" if found.samples < FEW else "")
    return Section("Reliability", {"reliability": [reliability_diagram(found, title)]}, note=NOTE)


def sentence(found: Reliability) -> str:
    """The calibration error, and in which direction it lies."""
    if found.samples < FEW:
        few = f"fewer than {FEW} are too few to tell it from chance"
        return f"Expected calibration error {found.error:.1%}, but on {found.samples} samples: {few}."
    filled = found.count > 0
    weight = found.count[filled] / found.count.sum()
    gap = float(np.sum(weight * (found.confidence - found.accuracy)[filled]))
    if found.error < 0.02:
        lean = "its probabilities can be taken at their word"
    elif abs(gap) < found.error / 2:
        lean = "too sure in places, too careful in others"
    else:
        lean = "on the whole too sure" if gap > 0 else "on the whole too careful"
    return f"Expected calibration error {found.error:.1%}: {lean}."
