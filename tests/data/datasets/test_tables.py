"""Bundled tables, synthetic data, and the checks that every data set passes before training."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets

from trainkit import registry
from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.datasets.synthetic import synthetic
from trainkit.data.spec import INPUT, TARGET, DataSpec, TargetSpec
from trainkit.data.splits import Split
from trainkit.errors import DataError
from trainkit.tasks.base import num_outputs

NOWHERE = Path("/nowhere")


@pytest.mark.parametrize(("name", "width"), [("wine", 13), ("breast_cancer", 30), ("iris", 4)])
def test_tables_are_scikit_learns(name: str, width: int) -> None:
    original = getattr(datasets, f"load_{name}")()
    data = registry.get("dataset", name).build(NOWHERE, 0, test_fraction=0.0)
    assert (data.splits["train"].inputs == original.data.astype(np.float32)).all()
    assert (data.splits["train"].targets == original.target).all()
    assert data.spec.target.classes == original.target_names.tolist() and data.spec.in_shape == (width,)
    split = finish(registry.get("dataset", name).build(NOWHERE, 0))
    assert len(split.splits["test"]) == round(0.2 * len(original.target)) and split.notes == []


def test_digits() -> None:
    original = datasets.load_digits()
    data = registry.get("dataset", "digits").build(NOWHERE, 0, test_fraction=0.0)
    pixels = data.splits["train"].inputs
    assert pixels.shape == (1797, 1, 8, 8) and pixels.dtype == np.uint8 and pixels.max() == 255
    assert (np.rint(pixels[:, 0] * (16 / 255)) == original.images).all()
    assert (data.splits["train"].targets == original.target).all()
    assert data.spec.target.classes == [str(digit) for digit in range(10)]


def test_diabetes_is_raw_with_standardized_targets() -> None:
    original = datasets.load_diabetes(scaled=False)
    whole = registry.get("dataset", "diabetes").build(NOWHERE, 0, test_fraction=0.0)
    assert (whole.splits["train"].inputs == original.data.astype(np.float32)).all()
    assert (whole.splits["train"].targets[:, 0] == original.target).all()
    data = finish(registry.get("dataset", "diabetes").build(NOWHERE, 0))
    train = data.splits["train"].targets
    target = data.spec.target
    assert target.standardize and target.mean is not None and target.std is not None
    np.testing.assert_allclose((target.mean, target.std), (train.mean(axis=0), train.std(axis=0)), rtol=1e-5)
    assert target.classes is None and num_outputs(data.spec) == 1


def test_synthetic() -> None:
    data = finish(synthetic(NOWHERE, 0))
    assert {name: split.inputs.shape for name, split in data.splits.items()} == {"train": (80, 10), "test": (20, 10)}
    assert data.spec.target.task == "regression" and data.splits["train"].targets.shape == (80, 1)
    exact = synthetic(NOWHERE, 0, noise=0.0, targets=2).splits
    weights, *_ = np.linalg.lstsq(exact["train"].inputs, exact["train"].targets)
    np.testing.assert_allclose(exact["test"].inputs @ weights, exact["test"].targets, atol=1e-4)
    other = synthetic(NOWHERE, 0, data_seed=1)
    assert not np.isin(other.splits["train"].inputs, data.splits["train"].inputs).any()
    classes = finish(synthetic(NOWHERE, 0, task="classification", classes=3, samples=300))
    assert classes.spec.target.classes == ["0", "1", "2"] and set(classes.splits["train"].targets) == {0, 1, 2}
    assert classes.splits["train"].targets.dtype == np.int64


def test_registering_imports_nothing_heavy() -> None:
    code = "import sys; from trainkit import registry; registry.names('dataset'); registry.get('dataset', 'iris')"
    code += ".build(None, 0); print(sorted({'torch', 'torchvision', 'sklearn', 'scipy', 'PIL'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def table(inputs: Any, targets: Any, task: Any = "regression", classes: list[str] | None = None) -> Data:
    values = np.array(targets)
    width = values.shape[1] if classes is None else 1
    return Data("mine", {"train": Split(np.array(inputs), values)}, TargetSpec(task, classes, width))


X = np.arange(6, dtype=np.float32).reshape(3, 2)
Y = np.zeros((3, 1), np.float32)
NAN, INF = np.float32("nan"), np.float32("inf")
AB = ["a", "b"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table(X, Y[:2]), "3 inputs but 2 targets"),
        (table(X[:0], Y[:0]), "train split: inputs are empty"),
        (table(X.astype(float), Y), "inputs are float64 .2,.; they must be"),
        (table(X.astype(np.uint8), Y), "inputs are uint8 .2,.; they must be"),
        (table(np.array([[1, 2], [3, NAN], [INF, 0]], np.float32), Y), "train split: inputs: row 1, column 1 is nan"),
        (table(X, np.array([[0], [1], [-INF]], np.float32)), "targets: row 2, column 0 is -inf"),
        (table(X, [0, 1, 2], "classification", AB), "the label in row 2 is 2, outside 0..1"),
        (table(X, [0, -1, 1], "classification", AB), "the label in row 1 is -1, outside 0..1"),
        (table(X, [0.0, 1.0, 1.0], "classification", AB), "labels are float64"),
        (table(X, [0, 0, 0], "classification", ["cat"]), "needs at least two classes, found only 'cat'"),
        (table(X, Y, "multilabel", AB), r"they must be float32 \(N, 2\)"),
        (table(X, Y - 1, "multilabel", ["a"]), "must hold only 0 and 1; row 0 is"),
        (table(X, np.array([[0.5, 0.5], [0.5, 0.6], [1, 0]], np.float32), "soft", AB), "sum to 1; row 1 is"),
    ],
)
def test_what_finish_refuses(data: Data, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        finish(data)
    assert str(caught.value).startswith("dataset mine") and "\n" not in str(caught.value)


def test_without_a_train_split_it_is_refused() -> None:
    with pytest.raises(DataError, match="^dataset mine: it has no train split$"):
        Data("mine", {"test": Split(X, Y)}, TargetSpec("regression"))


def test_splits_of_different_shape_are_refused() -> None:
    data = table(X, Y)
    data.splits["val"] = Split(X[:, :1], Y)
    with pytest.raises(DataError, match=r"val split: inputs are float32 \(1,\), but those of train"):
        finish(data)


def test_given_stats_must_be_finite_and_fit() -> None:
    for mean in (np.array([0, NAN]), np.array([0.0])):
        data = table(X, Y)
        given = dataclasses.replace(data.spec.input, mean=mean.tolist(), std=np.ones_like(mean).tolist())
        data.spec = DataSpec({INPUT: given}, data.spec.targets)
        with pytest.raises(DataError, match="do not fit"):
            finish(data)


def test_constant_features_keep_their_scale() -> None:
    features = np.random.default_rng(0).normal(5, 2, (1000, 4)).astype(np.float32)
    features[:, 1], features[:, 3] = 0.1, 1e6
    features[0, 3] = np.nextafter(np.float32(1e6), np.float32(0))  # float32 cannot tell less apart
    data = finish(table(features, np.zeros((1000, 1), np.float32)))
    assert data.notes == ["2 constant features (std 0): centered, not scaled"]
    std = data.spec.input.std
    assert std is not None and [std[1], std[3]] == [1, 1] and 1.9 < std[0] < 2.1
    for level in range(256):
        images = table(np.full((5, 1, 2, 2), level, np.uint8), np.zeros((5, 1), np.float32))
        assert finish(images).spec.input.std == [1]
        assert images.notes == ["1 constant channel (std 0): centered, not scaled"]


def test_float_images_have_stats_per_channel() -> None:
    images = np.random.default_rng(0).normal(0, (1.0, 3.0), (50, 4, 4, 2)).transpose(0, 3, 1, 2).astype(np.float32)
    data = finish(table(images, np.zeros((50, 1), np.float32)))
    std = data.spec.input.std
    assert std is not None
    np.testing.assert_allclose(std, (1, 3), rtol=0.1)


def test_constant_target_keeps_its_scale() -> None:
    data = table(X, Y + 7)
    data.spec = DataSpec(data.spec.inputs, {TARGET: dataclasses.replace(data.spec.target, standardize=True)})
    finish(data)
    assert data.spec.target.mean == [7] and data.spec.target.std == [1]
