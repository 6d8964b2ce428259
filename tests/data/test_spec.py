"""What a checkpoint says of its data: the same after JSON, and one line where it cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainkit.data.spec import DataSpec, InputSpec, TargetSpec, describe
from trainkit.errors import CheckpointError

IMAGE = InputSpec(
    "image", (3, 8, 6), "uint8", normalize=True, mean=[0.1, 0.5, 1.0], std=[0.2, 1e-9, 3.5], resize="crop"
)
TABLE = InputSpec("features", (2,), "float32", normalize=True, mean=[0.0, -1.5], std=[1.0, 2.0], names=["é", "b"])
TOKENS = InputSpec("tokens", (7,), "int64", vocabulary=65)
SCALAR = InputSpec("array", (), "float32")
CLASSES = TargetSpec("classification", ["cat", "dog"])
NUMBERS = TargetSpec("regression", width=2, dtype="float64", standardize=True, mean=[1e9, 0.1], std=[2.0, 3.0])
SPECS = [
    DataSpec({"x": IMAGE}, {"y": CLASSES}),
    DataSpec({"x": TABLE}, {"y": NUMBERS}),
    DataSpec({"photo": IMAGE, "words": TOKENS, "size": SCALAR}, {"kind": CLASSES, "price": NUMBERS}),
]
WHERE = Path("best.safetensors")


@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_json_gives_the_same_back(spec: DataSpec) -> None:
    again = DataSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)), WHERE)
    assert again == spec
    assert list(again.inputs) == list(spec.inputs) and list(again.targets) == list(spec.targets)  # and in this order
    assert again.in_shape == next(iter(spec.inputs.values())).shape


def test_the_first_of_several_and_a_few_words() -> None:
    assert (SPECS[2].input, SPECS[2].target) == (IMAGE, CLASSES)
    assert describe(SPECS[0]) == "3x8x6, classification"
    assert describe(SPECS[2]) == "3x8x6 and 7 and 1, classification and regression"


DAMAGES: list[tuple[tuple[str, ...], Any]] = [
    ((), None),
    ((), []),
    ((), "x"),
    (("inputs",), {}),
    (("inputs",), []),
    (("targets",), {}),
    (("targets",), None),
    (("inputs", "x"), None),
    (("inputs", "x", "kind"), "picture"),
    (("inputs", "x", "kind"), ["image"]),
    (("inputs", "x", "shape"), None),
    (("inputs", "x", "shape"), 3),
    (("inputs", "x", "shape"), "386"),
    (("inputs", "x", "shape"), [3, 0, 6]),
    (("inputs", "x", "shape"), [3, 8.5, 6]),
    (("inputs", "x", "dtype"), 8),
    (("inputs", "x", "normalize"), "yes"),
    (("inputs", "x", "mean"), None),
    (("inputs", "x", "mean"), [0.1, 0.5]),
    (("inputs", "x", "std"), [0.1, "0.5", 1]),
    (("inputs", "x", "std"), 0.5),
    (("inputs", "x", "names"), ["r", "g"]),
    (("inputs", "x", "names"), "rgb"),
    (("inputs", "x", "vocabulary"), "65"),
    (("inputs", "x", "vocabulary"), 0),
    (("inputs", "x", "resize"), [8, 6]),
    (("inputs", "x", "resize"), "stretch"),
    (("inputs", "x", "crop_share"), 0),
    (("inputs", "x", "crop_share"), "1"),
    (("inputs", "x", "resized"), [8, 6]),
    (("targets", "y", "task"), None),
    (("targets", "y", "classes"), [1, 2]),
    (("targets", "y", "classes"), "catdog"),
    (("targets", "y", "width"), 0),
    (("targets", "y", "width"), 1.5),
    (("targets", "y", "dtype"), None),
    (("targets", "y", "standardize"), True),
    (("targets", "y", "standardize"), 1),
    (("targets", "y", "weight"), "1"),
    (("targets", "y", "mean"), "0"),
]


@pytest.mark.parametrize(("place", "value"), DAMAGES, ids=[f"{'.'.join(p) or 'all'}={v!r}" for p, v in DAMAGES])
def test_what_cannot_be_read_is_one_line(place: tuple[str, ...], value: Any) -> None:
    told: Any = {"spec": json.loads(json.dumps(SPECS[0].to_json()))}
    inner = told
    for name in ("spec", *place)[:-1]:
        inner = inner[name]
    inner[("spec", *place)[-1]] = value
    with pytest.raises(CheckpointError, match=r"^'best.safetensors' does not say what data its model") as error:
        DataSpec.from_json(told["spec"], WHERE)
    assert "\n" not in str(error.value)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in JSON data."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*at, name))


@pytest.mark.parametrize("spec", SPECS, ids=describe)
def test_whatever_stands_anywhere_is_read_or_refused(spec: DataSpec) -> None:
    """What is read can be written again, and is of the types that it says."""
    text = json.dumps(spec.to_json())
    refused = 0
    for place in places(spec.to_json()):
        for value in (None, True, -1, 0, 2.5, "a", [], {}, [None], {"a": 1}):
            told: Any = {"spec": json.loads(text)}
            inner = told
            for name in ("spec", *place)[:-1]:
                inner = inner[name]
            inner[("spec", *place)[-1]] = value
            try:
                found = DataSpec.from_json(told["spec"], WHERE)
            except CheckpointError:
                refused += 1
                continue
            assert DataSpec.from_json(json.loads(json.dumps(found.to_json())), WHERE) == found
            assert hash(found.in_shape) and describe(found)
    assert refused >= 200


def test_neither_numpy_nor_torch_is_needed() -> None:
    code = "import sys; from trainkit.data.spec import DataSpec; print({'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
