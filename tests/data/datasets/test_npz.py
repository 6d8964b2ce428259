"""The user's own .npz files: which array means what, and the row that is wrong."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.datasets.npz import npz
from trainkit.errors import DataError, ResourceError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
LABELS = np.arange(30) % 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.npz"


def load(file: Path, config: dict[str, Any] | None = None, **arrays: Any) -> Data:
    np.savez(file, **arrays)
    return finish(npz(Path("unused"), 0, file=file, **(config or {})))


def whole(file: Path, **arrays: Any) -> Data:
    return load(file, {"test_fraction": 0.0}, **arrays)


def test_classification_is_split_by_class(file: Path) -> None:
    data = load(file, x=X, y=LABELS)
    target = data.spec.target
    assert target.task == "classification" and target.classes == ["0", "1", "2"] and data.notes == []
    assert data.splits["train"].inputs.dtype == np.float32 and data.splits["train"].targets.dtype == np.int64
    assert np.bincount(data.splits["test"].targets).tolist() == [2, 2, 2]


def test_named_splits_are_kept(file: Path) -> None:
    splits = ("train", "val", "test")
    parts: dict[str, Any] = {f"x_{split}": X for split in splits} | {f"y_{split}": LABELS for split in splits}
    data = load(file, None, **parts, extra=X)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "val": 30, "test": 30}
    assert data.notes == [f"{file}: arrays left out: extra"]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((30, 8, 6), (1, 8, 6)),
        ((30, 3, 8, 8), (3, 8, 8)),
        ((30, 8, 8, 3), (3, 8, 8)),
        ((30, 8, 6, 1), (1, 8, 6)),
        ((30, 4, 4, 3), (3, 4, 4)),
        ((30, 3, 4, 4), (3, 4, 4)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_images(file: Path, shape: tuple[int, ...], expected: tuple[int, ...], dtype: Any) -> None:
    x = RNG.integers(0, 256, shape).astype(dtype)
    data = whole(file, x=x, y=LABELS)
    inputs = data.splits["train"].inputs
    assert inputs.shape == (30, *expected) and inputs.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert inputs[7].sum() == x[7].sum()
    moved = len(shape) == 4 and shape[1:] != expected
    assert inputs[7, 0, 2, 3] == (x[7, 2, 3, 0] if moved else x[7].reshape(expected)[0, 2, 3])


@pytest.mark.parametrize("x", [np.arange(30), np.arange(30, dtype=np.uint8), np.arange(30).reshape(30, 1) > 3])
def test_single_features(file: Path, x: np.ndarray) -> None:
    inputs = whole(file, x=x, y=LABELS).splits["train"].inputs
    assert inputs.shape == (30, 1) and inputs.dtype == np.float32 and (inputs[:, 0] == x.reshape(-1)).all()


SOFT = np.full((30, 4), 0.25, np.float32)


@pytest.mark.parametrize(
    ("y", "task", "shape", "classes"),
    [
        (LABELS.reshape(30, 1), "classification", (30,), 3),
        (LABELS > 0, "classification", (30,), 2),
        (LABELS.astype(np.uint8), "classification", (30,), 3),
        (RNG.integers(0, 2, (30, 5)), "multilabel", (30, 5), 5),
        (RNG.integers(0, 2, (30, 5)) > 0, "multilabel", (30, 5), 5),
        (SOFT, "soft", (30, 4), 4),
        (SOFT * 2, "regression", (30, 4), None),
        (RNG.normal(size=30), "regression", (30, 1), None),
        (RNG.normal(size=30).astype(np.float16), "regression", (30, 1), None),
        (np.ones((30, 1)), "regression", (30, 1), None),
        (RNG.integers(0, 9, (30, 2)), "regression", (30, 2), None),
        (RNG.normal(size=30).astype(np.float32), "regression", (30, 1), None),
    ],
)
def test_task_is_read_from_the_targets(
    file: Path, y: Any, task: str, shape: tuple[int, ...], classes: int | None
) -> None:
    data = whole(file, x=X, y=y)
    targets = data.splits["train"].targets
    target = data.spec.target
    assert (target.task, targets.shape) == (task, shape)
    rounds = task == "regression" and y.dtype in (np.float64, np.int64)  # as float32 some of their numbers would
    assert targets.dtype == (np.int64 if task == "classification" else np.float64 if rounds else np.float32)
    assert (target.classes and len(target.classes)) == classes
    assert (target.mean is not None) == target.standardize == (task == "regression")


@pytest.mark.parametrize(
    ("y", "values"),
    [
        (LABELS.astype(np.float32), 3),
        (np.where(LABELS == 0, -1.0, 1.0)[:, None], 2),
        (np.arange(30) % 16 / 2, None),
        (np.full(30, 2.5), None),
        (np.repeat(LABELS[:, None], 2, axis=1) / 2, None),
    ],
)
def test_classes_that_may_be_meant_by_a_few_floats_are_noted(file: Path, y: Any, values: int | None) -> None:
    data = whole(file, x=X, y=y)
    assert data.spec.target.task == "regression"
    said = f"{file}: y has {values} different values and is read as regression; save classes as integers"
    assert data.notes == ([] if values is None else [said])
    assert load(file, {"task": "regression"}, x=X, y=y).notes == []


def test_a_task_can_be_chosen(file: Path) -> None:
    data = load(file, {"task": "regression"}, x=X, y=LABELS)
    target = data.spec.target
    assert target.task == "regression" and target.mean is not None and target.std is not None
    np.testing.assert_allclose(target.mean, data.splits["train"].targets.mean(axis=0))


@pytest.mark.parametrize("value", [0.1, 1e9 + 0.1, -3e38])
def test_a_constant_target_keeps_its_scale_in_double_too(file: Path, value: float) -> None:
    data = whole(file, x=X, y=np.full(30, value))
    assert data.spec.target.mean == [value] and data.spec.target.std == [1]


def test_a_target_beyond_float32_is_told(file: Path) -> None:
    with pytest.raises(DataError, match=r"targets: row 3, column 0 is inf"):
        whole(file, x=X, y=changed(RNG.normal(size=30), 3, 1e300))


def test_text_labels(file: Path) -> None:
    y = np.array(["dog", "cat", "wolf"])[LABELS]
    data = whole(file, x=X, y=y)
    assert data.spec.target.classes == ["cat", "dog", "wolf"] and data.splits["train"].targets[:3].tolist() == [1, 0, 2]
    data = load(file, {"classes": ["wolf", "dog", "cat"], "test_fraction": 0.0}, x=X, y=y)
    assert data.splits["train"].targets[:3].tolist() == [1, 2, 0]


def test_names_of_the_columns(file: Path) -> None:
    data = whole(file, x=X, y=LABELS, features=["a", " b ", "c", "ö"])
    assert data.spec.input.names == ["a", "b", "c", "ö"] and data.notes == []
    assert whole(file, x=X, y=LABELS).spec.input.names is None
    for arrays, message in (
        ({"x": X, "features": ["a", "b"]}, "features is <U1 (2,), and x holds 4 columns; it must be a text for each"),
        ({"x": X, "features": ["a", "b", "c", "a"]}, "features has the name 'a' 2 times"),
        ({"x": np.zeros((30, 4, 4)), "features": ["a", "b", "c", "d"]}, "and x holds images"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            whole(file, **({"y": LABELS} | arrays))


def changed(array: np.ndarray, row: int, value: Any) -> np.ndarray:
    result = array.copy()
    result[row] = value
    return result


@pytest.mark.parametrize(
    ("config", "arrays", "message"),
    [
        ({}, {"x": X}, "it has x, but not y"),
        ({}, {"x_train": X, "y_train": LABELS, "y_val": LABELS}, "it has y_val, but not x_val"),
        ({}, {"images": X, "labels": LABELS}, "neither x, y nor x_train, y_train; it holds images, labels"),
        ({}, {"x": X, "y": LABELS[:29]}, r"x \(30, 4\) and y \(29,\) do not pair up"),
        ({}, {"x": X[:0], "y": LABELS[:0]}, "or are empty"),
        ({}, {"x": X, "y": np.int64(3)}, "do not pair up"),
        ({}, {"x": X.astype(object), "y": LABELS}, "Python objects .*; save numbers or text"),
        ({}, {"x": X.astype(str), "y": LABELS}, "it must hold numbers"),
        ({}, {"x": X + 1j, "y": LABELS}, "it must hold numbers"),
        ({}, {"x": np.zeros((30, 2, 5, 5), np.uint8), "y": LABELS}, "no axis of 1, 3 or 4 channels"),
        ({}, {"x": np.zeros((30, 1, 2, 2, 2)), "y": LABELS}, "it must hold numbers"),
        ({}, {"x": changed(X, 21, np.nan), "y": LABELS}, "row 21, column 0 is nan"),
        ({}, {"x": changed(X, 21, 1e300), "y": LABELS}, "row 21, column 0 is inf"),
        ({}, {"x": X, "y": changed(X, 5, np.inf)}, "targets: row 5, column 0 is inf"),
        ({}, {"x": X, "y": changed(LABELS, 21, -1)}, "the label in row 21 is -1, outside 0..2"),
        ({}, {"x": X, "y": changed(LABELS, 21, 1999)}, "the label in row 21 is 1999, but 30 samples"),
        ({"classes": ["a", "b"]}, {"x": X, "y": LABELS}, "the label in row 2 is 2, outside 0..1"),
        (
            {},
            {"x_train": X, "y_train": LABELS, "x_test": X, "y_test": LABELS + 1},
            r"\(test\): .* row 2 is 3",
        ),
        ({"classes": ["cat"]}, {"x": X, "y": np.array(["cat", "dog"])[LABELS % 2]}, "row 1 is 'dog', which is none of"),
        ({"classes": ["a"]}, {"x": X, "y": X}, "regression, which has no classes"),
        ({"classes": ["a"]}, {"x": X, "y": SOFT}, "needs at least two classes, found only 'a'"),
        ({"classes": ["a", "b"]}, {"x": X, "y": SOFT}, r"they must be float32 \(N, 2\)"),
        ({"task": "classification"}, {"x": X, "y": X}, "classes need integers or text"),
        ({"task": "soft"}, {"x": X, "y": SOFT * 2}, "sum to 1; row 0"),
        ({"task": "multilabel"}, {"x": X, "y": LABELS}, "only 0 and 1; row 2"),
        ({"task": "regression"}, {"x": X, "y": np.array(["a"] * 30)}, "regression needs numbers"),
        ({}, {"x": X, "y": LABELS * 0}, "at least two classes"),
        ({}, {"x": X, "y": LABELS * 0 - 1}, "the label in row 0 is -1"),
    ],
)
def test_what_is_refused(file: Path, config: dict[str, Any], arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(file, config, **arrays)
    assert caught.value.exit_code == 3 and "\n" not in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path, file: Path) -> None:
    def fails(path: Path, message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            npz(tmp_path, 0, file=path)
        assert str(path) in str(caught.value)

    fails(tmp_path / "gone.npz", "no such file")
    fails(tmp_path, "not a file")
    np.save(tmp_path / "one.npy", X)
    fails(tmp_path / "one.npy", "a single array")
    file.write_bytes(b"")
    fails(file, "cannot be read")
    file.write_bytes(b"some text that is no archive")
    fails(file, "cannot be read")
    np.savez(file, x=X, y=LABELS)
    whole_file = file.read_bytes()
    file.write_bytes(whole_file[:500])
    fails(file, "cannot be read")
    middle = len(whole_file) // 2
    file.write_bytes(whole_file[:middle] + bytes([whole_file[middle] ^ 1]) + whole_file[middle + 1 :])
    fails(file, "cannot be read .*CRC")


def test_what_unpacks_to_more_than_the_memory(file: Path) -> None:
    """Zeros pack well: what a small file says it holds is compared with the memory before a byte is unpacked."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"")
        archive.filelist[0].file_size = 2**45  # goes into the directory at the end of the file
    with pytest.raises(ResourceError, match=r"data.npz: unpacks to 35,184,372,088,832 bytes, and [\d,]+ of memory"):
        npz(Path("unused"), 0, file=file)
