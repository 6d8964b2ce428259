"""A signature as a schema: names, types, ranges and defaults of a config node, and the check of values against it.

The keyword-only parameters of a builder (or the fields of a dataclass) are its config. Annotations are read as types;
`Annotated[int, Range(ge=1)]` adds a range. Imports nothing outside the standard library.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from trainkit.errors import near, unknown
from trainkit.text import is_plain


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number; None means unbounded. Not-a-number and infinity are outside every range."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        bounds = [(">=", self.ge), (">", self.gt), ("<=", self.le), ("<", self.lt)]
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


@dataclasses.dataclass(frozen=True)
class Form:
    """What a text must look like: a regular expression for all of it, and the same in words."""

    pattern: str
    words: str

    def __contains__(self, value: str) -> bool:
        return re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        return f"such as {self.words}"


@dataclasses.dataclass(frozen=True)
class Names:
    """Text that must be one of many names, which are looked up only when they are needed.

    lookup: the names, sorted; none where what they are of is not installed, and then any text passes.
    what: what they are names of, in words. listing: the command that lists them.
    """

    what: str
    listing: str
    lookup: Callable[[], list[str]]

    def __contains__(self, value: str) -> bool:
        known = self.lookup()
        return not known or value in known

    def __str__(self) -> str:
        return f"that is {self.what}"


Bounds = Range | Form | Names
Count = Annotated[int, Range(ge=1)]
NonNegativeInt = Annotated[int, Range(ge=0)]
Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Fraction = Annotated[float, Range(ge=0, lt=1)]
Probability = Annotated[float, Range(ge=0, le=1)]

REQUIRED = object()  # the default of a parameter that has none


@dataclasses.dataclass(frozen=True)
class Field:
    """One config key: its annotation and its default (`REQUIRED` when the user must give it)."""

    name: str
    annotation: Any
    default: Any


Schema = dict[str, Field]


def schema_of(source: Callable[..., Any] | type) -> Schema:
    """The config keys of a builder (its keyword-only parameters) or of a dataclass (its fields).

    Raises TypeError for a builder that takes `**kwargs`, which would let any misspelt key through.
    """
    if isinstance(source, type) and dataclasses.is_dataclass(source):
        hints = get_type_hints(source, include_extras=True)
        return {f.name: Field(f.name, hints[f.name], _dataclass_default(f)) for f in dataclasses.fields(source)}
    parameters = inspect.signature(source).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        raise TypeError(f"{source.__qualname__} takes **{list(parameters)[-1].name}: name every config key instead")
    namespace = getattr(inspect.unwrap(source), "__globals__", {})
    return {
        p.name: Field(p.name, _resolve(p.annotation, namespace), REQUIRED if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }


def _resolve(annotation: Any, namespace: dict[str, Any]) -> Any:
    # Only the config parameters are resolved: other annotations of the builder may name types that only
    # exist for a type checker (`nn.Module` under TYPE_CHECKING), and resolving them would need torch.
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str):
        return eval(annotation, namespace)  # the text of our own or a plugin's source, never of a config
    return annotation


def _dataclass_default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return REQUIRED


def plain(value: Any) -> Any:
    """A default as plain YAML data: dataclasses become dicts, tuples lists, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def check_node(node: dict[str, Any], schema: Schema, where: str, problems: list[str]) -> dict[str, Any]:
    """Check a mapping against a schema; append a line to `problems` for each fault and return the typed values."""
    prefix = f"{where}." if where else ""
    for key in node:
        if key not in schema:
            problems.append(unknown("key", key, schema, prefix))
    checked: dict[str, Any] = {}
    for name, field in schema.items():
        value = node.get(name, field.default)
        if value is REQUIRED or value == "???":
            problems.append(f"{prefix}{name} is required ({describe(field.annotation)}): add {prefix}{name}=…")
        else:
            checked[name] = convert(value, field.annotation, prefix + name, problems)
    return checked


def convert(value: Any, annotation: Any, key: str, problems: list[str]) -> Any:
    """`value` as the annotated type, or unchanged with a line in `problems` when it does not fit.

    The only conversions are the lossless ones a person expects on a command line: an integer where a float
    is asked, a number where text is asked, text where a path is asked (made absolute, `~` expanded).
    """
    base, bounds = _split(annotation)
    origin = get_origin(base)
    if base is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, annotation, get_args(base), key, problems)
    if origin is list and isinstance(value, (list, tuple)):
        (item,) = get_args(base)
        return [convert(v, item, f"{key}[{i}]", problems) for i, v in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        _, item = get_args(base)
        return {str(k): convert(v, item, f"{key}.{k}", problems) for k, v in value.items()}
    if origin is Literal:
        if value not in get_args(base) or isinstance(value, bool):
            problems.append(unknown(f"{key}: value", str(value), map(str, get_args(base))))
        return value
    if isinstance(base, type) and dataclasses.is_dataclass(base) and isinstance(value, (dict, base)):
        before = len(problems)
        fields = check_node(value if isinstance(value, dict) else plain(value), schema_of(base), key, problems)
        return base(**fields) if len(problems) == before else value
    return _convert_scalar(value, base, bounds, annotation, key, problems)


def _convert_scalar(
    value: Any, base: Any, bounds: Bounds | None, annotation: Any, key: str, problems: list[str]
) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if base is bool and isinstance(value, bool):
        return value
    if base is int and number and isinstance(value, int) and _within(value, bounds):
        return value
    if base is float and number and math.isfinite(value) and _within(value, bounds):
        return float(value)
    if base is str and isinstance(value, (str, int)) and not isinstance(value, bool) and _within(str(value), bounds):
        return str(value)
    if base is Path and isinstance(value, str) and not is_plain(value):
        problems.append(
            f"{key}: the path {value!r} holds a control character, or is not UTF-8: rename it, or link to it"
        )
        return value
    if base is Path and isinstance(value, (str, int, Path)) and not isinstance(value, bool) and str(value):
        return Path(os.path.abspath(os.path.expanduser(str(value))))
    if base is str and isinstance(value, str) and isinstance(bounds, Names):
        close = near(value, bounds.lookup())[:3]
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        problems.append(f"{key}: there is no {bounds.what} '{value}'{hint}; {bounds.listing} lists them")
        return value
    problems.append(f"{key}: expected {describe(annotation)}, got {_show(value)}")
    return value


def _convert_union(value: Any, annotation: Any, options: tuple[Any, ...], key: str, problems: list[str]) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    attempts: list[list[str]] = []
    for option in options:
        faults: list[str] = []
        converted = convert(value, option, key, faults)
        if not faults:
            return converted
        attempts.append(faults)
    # With one real option its own message is the clearest (it may point into a list); else name them all.
    mixed = [f"{key}: expected {describe(annotation)}, got {_show(value)}"]
    problems.extend(attempts[0] if len(options) == 1 else mixed)
    return value


def _within(value: Any, bounds: Bounds | None) -> bool:
    return bounds is None or value in bounds


def _split(annotation: Any) -> tuple[Any, Bounds | None]:
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        return base, next((e for e in extras if isinstance(e, Bounds)), None)
    return annotation, None


def names_of(annotation: Any) -> list[str] | None:
    """The names that an annotation looks up; None for any other annotation."""
    bounds = _split(annotation)[1]
    return bounds.lookup() if isinstance(bounds, Names) else None


def _show(value: Any) -> str:
    return "null" if value is None else repr(value)


_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", Path: "a path", Any: "anything"}


def describe(annotation: Any) -> str:
    """The annotation in words for a person: 'an integer >= 1', 'a list of integers', 'relu or gelu'."""
    base, bounds = _split(annotation)
    origin = get_origin(base)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if option is type(None) else describe(option) for option in get_args(base))
    if origin is Literal:
        return " or ".join(map(str, get_args(base)))
    if origin is list:
        return f"a list, each {describe(get_args(base)[0])}"
    if origin is dict:
        return f"a mapping, each {describe(get_args(base)[1])}"
    if base in _WORDS:
        return _WORDS[base] if bounds is None else f"{_WORDS[base]} {bounds}".strip()
    return f"a mapping with {', '.join(schema_of(base))}"
