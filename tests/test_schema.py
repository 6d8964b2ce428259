"""Signatures as schemas: what a value may be, what it becomes, and what is said when it does not fit."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from trainkit.schema import (
    REQUIRED,
    Count,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Positive,
    Probability,
    Range,
    check_node,
    convert,
    describe,
    plain,
    schema_of,
)


@dataclasses.dataclass(frozen=True)
class Inner:
    on: bool = True
    size: Count = 3


@dataclasses.dataclass(frozen=True)
class Outer:
    need: int
    inner: Inner = Inner()
    many: list[Inner] = dataclasses.field(default_factory=list)


INF, NAN = float("inf"), float("nan")

ACCEPTED: list[tuple[Any, Any, Any]] = [
    (3, int, 3),
    (-3, int, -3),
    (3, float, 3.0),
    (1e-3, float, 1e-3),
    (True, bool, True),
    ("a", str, "a"),
    (12, str, "12"),
    (1, Count, 1),
    (0, NonNegativeInt, 0),
    (0, NonNegative, 0.0),
    (1e-300, Positive, 1e-300),
    (0.0, Fraction, 0.0),
    (1.0, Probability, 1.0),
    (5, Annotated[int, Range(gt=4, lt=6)], 5),
    ("relu", Literal["relu", "gelu"], "relu"),
    (3, Literal[1, 3], 3),
    ([1, 2], list[int], [1, 2]),
    ((1, 2), list[int], [1, 2]),
    ([], list[Count], []),
    ([[1], []], list[list[int]], [[1], []]),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
    ({1: 2}, dict[str, int], {"1": 2}),
    (None, int | None, None),
    (4, int | None, 4),
    ("auto", int | Literal["auto"], "auto"),
    (4, float | Literal["auto"], 4.0),
    ([1], Count | list[Count], [1]),
    ({"on": False}, Inner, Inner(on=False)),
    (Inner(), Inner, Inner()),
    ({"need": 1, "inner": {"size": 4}}, Outer, Outer(1, Inner(size=4))),
    ({"need": 1, "many": [{"on": False}]}, Outer, Outer(1, many=[Inner(on=False)])),
    (object, Any, object),
]


@pytest.mark.parametrize(("value", "annotation", "expected"), ACCEPTED)
def test_accepted(value: Any, annotation: Any, expected: Any) -> None:
    problems: list[str] = []
    converted = convert(value, annotation, "key", problems)
    assert problems == []
    assert converted == expected
    assert type(converted) is type(expected)


REFUSED: list[tuple[Any, Any, str]] = [
    ("3", int, "k: expected an integer, got '3'"),
    (3.0, int, "k: expected an integer, got 3.0"),
    (True, int, "k: expected an integer, got True"),
    (None, int, "k: expected an integer, got null"),
    ("x", float, "k: expected a number, got 'x'"),
    (True, float, "k: expected a number, got True"),
    (NAN, float, "k: expected a number, got nan"),
    (INF, float, "k: expected a number, got inf"),
    (-INF, NonNegative, "k: expected a number >= 0, got -inf"),
    (1, bool, "k: expected true or false, got 1"),
    ("yes", bool, "k: expected true or false, got 'yes'"),
    (True, str, "k: expected text, got True"),
    (1.5, str, "k: expected text, got 1.5"),
    ([], str, "k: expected text, got []"),
    (0, Count, "k: expected an integer >= 1, got 0"),
    (-1, NonNegativeInt, "k: expected an integer >= 0, got -1"),
    (0, Positive, "k: expected a number > 0, got 0"),
    (1.0, Fraction, "k: expected a number >= 0 and < 1, got 1.0"),
    (1.1, Probability, "k: expected a number >= 0 and <= 1, got 1.1"),
    ("relv", Literal["relu", "gelu"], "k: value 'relv' is not known (did you mean relu?); choose from: relu, gelu"),
    (True, Literal[1, 3], "k: value 'True' is not known; choose from: 1, 3"),
    (3, list[int], "k: expected a list, each an integer, got 3"),
    ("ab", list[str], "k: expected a list, each text, got 'ab'"),
    ([1, "x"], list[int], "k[1]: expected an integer, got 'x'"),
    ([[1], ["x"]], list[list[int]], "k[1][0]: expected an integer, got 'x'"),
    ({"a": "x"}, dict[str, int], "k.a: expected an integer, got 'x'"),
    ([1], dict[str, int], "k: expected a mapping, each an integer, got [1]"),
    (0, Count | None, "k: expected an integer >= 1, got 0"),
    ([0], list[Count] | None, "k[0]: expected an integer >= 1, got 0"),
    ("x", int | Literal["auto"], "k: expected an integer or auto, got 'x'"),
    (None, int | float, "k: expected an integer or a number, got null"),
    ({"of": True}, Inner, "key 'k.of' is not known (did you mean k.on?); choose from: on, size"),
    ({"size": 0}, Inner, "k.size: expected an integer >= 1, got 0"),
    (3, Inner, "k: expected a mapping with on, size, got 3"),
    ({}, Outer, "k.need is required (an integer): add k.need=…"),
    ({"need": 1, "inner": {"on": 2}}, Outer, "k.inner.on: expected true or false, got 2"),
    ({"need": 1, "many": [{}, {"size": "x"}]}, Outer, "k.many[1].size: expected an integer >= 1, got 'x'"),
    ("", Path, "k: expected a path, got ''"),
    (True, Path, "k: expected a path, got True"),
]


@pytest.mark.parametrize(("value", "annotation", "line"), REFUSED)
def test_refused(value: Any, annotation: Any, line: str) -> None:
    problems: list[str] = []
    convert(value, annotation, "k", problems)
    assert problems == [line]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("a/b", "{cwd}/a/b"), ("~/x", "{home}/x"), ("/a/../b", "/b"), (7, "{cwd}/7"), (Path("a"), "{cwd}/a")],
)
def test_paths_become_absolute(given: Any, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    problems: list[str] = []
    converted = convert(given, Path, "k", problems)
    assert (str(converted), problems) == (expected.format(cwd=os.getcwd(), home="/somewhere"), [])
    assert isinstance(converted, Path)


DESCRIBED = [
    (int, "an integer"),
    (Count, "an integer >= 1"),
    (Fraction, "a number >= 0 and < 1"),
    (Annotated[float, Range(gt=-1.5, le=2)], "a number > -1.5 and <= 2"),
    (bool, "true or false"),
    (Path, "a path"),
    (Literal["relu", "gelu"], "relu or gelu"),
    (Count | None, "an integer >= 1 or null"),
    (list[Count], "a list, each an integer >= 1"),
    (dict[str, list[bool]], "a mapping, each a list, each true or false"),
    (Inner, "a mapping with on, size"),
    (Any, "anything"),
]


@pytest.mark.parametrize(("annotation", "words"), DESCRIBED)
def test_describe(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


def test_range_without_bounds_holds_everything() -> None:
    assert 1e308 in Range() and -5 in Range()
    assert str(Range()) == ""
    assert 1 not in Range(gt=1) and 1 not in Range(lt=1) and 1 in Range(ge=1, le=1)


def test_schema_of_a_builder_is_its_keyword_only_parameters() -> None:
    def build(shape: NotDefinedHere, outputs, *, width: Count = 8, root: Path, free=None) -> NotDefinedHere:  # type: ignore[name-defined,no-untyped-def]  # noqa: F821
        """Types that only a checker knows may stand where no config is."""

    schema = schema_of(build)
    assert list(schema) == ["width", "root", "free"]
    assert (schema["width"].annotation, schema["width"].default) == (Count, 8)
    assert schema["root"].default is REQUIRED
    assert schema["free"].annotation is Any


def test_schema_sees_through_a_decorator() -> None:
    def build(*, width: Count = 8) -> int:
        return width

    @functools.wraps(build)
    def wrapped(**arguments: Any) -> int:
        return build(**arguments)

    assert list(schema_of(wrapped)) == ["width"]
    assert schema_of(wrapped)["width"].annotation == Count


def test_a_builder_that_takes_anything_is_refused() -> None:
    def build(*, width: int = 1, **rest: int) -> None: ...

    with pytest.raises(TypeError, match=r"build takes \*\*rest: name every config key"):
        schema_of(build)


def test_plain() -> None:
    assert plain(Outer(1)) == {"need": 1, "inner": {"on": True, "size": 3}, "many": []}
    assert plain((Path("/a"), [Inner()])) == ["/a", [{"on": True, "size": 3}]]
    assert plain(None) is None


def test_check_node_reports_everything_and_fills_in_defaults() -> None:
    problems: list[str] = []
    checked = check_node({"inner": {"on": 1}, "mny": [], "need": "???"}, schema_of(Outer), "", problems)
    assert problems == [
        "key 'mny' is not known (did you mean many?); choose from: need, inner, many",
        "need is required (an integer): add need=…",
        "inner.on: expected true or false, got 1",
    ]
    assert "need" not in checked

    problems.clear()
    assert check_node({"need": 2}, schema_of(Outer), "top", problems) == {"need": 2, "inner": Inner(), "many": []}
    assert problems == []


def test_the_value_is_not_changed() -> None:
    value = {"need": 1, "inner": {"size": 4}}
    convert(value, Outer, "k", [])
    assert value == {"need": 1, "inner": {"size": 4}}
