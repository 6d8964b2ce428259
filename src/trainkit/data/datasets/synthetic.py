"""Data made by a known linear rule, of any size: for trying things out, without a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from trainkit.data.dataset import Data, hold_out
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.randomness import numpy_generator
from trainkit.registry import register
from trainkit.schema import Count, Fraction, NonNegative, NonNegativeInt, Range


@register("dataset")
def synthetic(
    data_dir: Path,
    split_seed: int,
    *,
    task: Literal["regression", "classification"] = "regression",
    samples: Count = 100,
    features: Count = 10,
    targets: Count = 1,
    classes: Annotated[int, Range(ge=2)] = 2,
    noise: NonNegative = 0.1,
    data_seed: NonNegativeInt = 0,
    test_fraction: Fraction = 0.2,
) -> Data:
    """Seeded random features x (N, F) with scores y = x W + noise: the targets of a regression, (N, T), or the
    logits whose largest is the class. The same numbers for the same `data_seed`, whatever the seed of the run.
    """
    generator = numpy_generator(data_seed, "synthetic", task)
    width = targets if task == "regression" else classes
    weights = generator.standard_normal((features, width))
    inputs = generator.standard_normal((samples, features))
    scores = inputs @ weights + noise * generator.standard_normal((samples, width))
    if task == "regression":
        train = Split(inputs.astype(np.float32), scores.astype(np.float32))
        data = Data("synthetic", {"train": train}, TargetSpec(task, width=targets))
    else:
        train = Split(inputs.astype(np.float32), scores.argmax(axis=1))
        data = Data("synthetic", {"train": train}, TargetSpec(task, [str(index) for index in range(classes)]))
    hold_out(data, "test", test_fraction, split_seed)
    return data
