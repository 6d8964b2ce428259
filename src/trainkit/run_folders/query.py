"""Which runs, in which order: filters as in `model=cnn` and `val/accuracy>0.9`, sort keys, the tree of lineage."""

from __future__ import annotations

import dataclasses
import json
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trainkit.errors import ConfigError, nearest
from trainkit.run_folders.records import FACTS, Record, short_id

# The longer ones first: `>=` is not `>` and a value that begins with `=`.
OPERATORS = {
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
FILTER = re.compile(r"(?P<key>[\w./-]+)(?P<sign>" + "|".join(OPERATORS) + r")(?P<value>.*)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Filter:
    """`key`, one of OPERATORS, and what stands behind it: as typed, and as JSON where it is JSON."""

    key: str
    sign: str
    text: str

    def matches(self, record: Record) -> bool:
        """Whether a run's value is so. A missing value is only ever unequal, or equal to null.

        Raises ConfigError when a number would have to be compared with a word.
        """
        have, want = record.value(self.key), parse_value(self.text)
        if self.sign in ("=", "!="):
            equal = bool(have == want) if isinstance(have, bool) == isinstance(want, bool) else False
            equal = equal or (isinstance(have, str) and have == self.text)  # a text that looks like a number
            return equal == (self.sign == "=")
        if have is None:
            return False
        if is_number(have):
            if not is_number(want):
                raise ConfigError(f"{self.key}{self.sign}{self.text}: '{self.text}' is not a number")
            return bool(OPERATORS[self.sign](have, want))
        return isinstance(have, str) and bool(OPERATORS[self.sign](have, self.text))


def parse_filter(word: str) -> Filter | None:
    """The filter that a word is, or None."""
    match = FILTER.fullmatch(word)
    return Filter(match["key"], match["sign"], match["value"]) if match else None


def parse_value(text: str) -> Any:
    """A value as on a command line: JSON where it is JSON (`0.1`, `1e-3`, `[64,32]`, `true`, `null`), else the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def refuse_unknown(keys: Iterable[str], records: Sequence[Record]) -> None:
    """Raise ConfigError for each key that none of these runs has."""
    problems = []
    measured = any(record.metrics for record in records)
    for key in keys:
        if "/" in key and not measured:  # a metric, as far as one can know
            continue
        if records and not any(key in known for record in records for known in _known(record)):
            everything = {name for record in records for known in _known(record) for name in known}
            close = nearest(key, sorted(everything))
            hint = f" (did you mean {close}?)" if close else ""
            facts = ", ".join(FACTS)
            problems.append(
                f"no run here has '{key}'{hint}; choose a fact ({facts}), a metric as in val/accuracy, "
                "or a config key as in optim.lr"
            )
    if problems:
        raise ConfigError(*problems)


def _known(record: Record) -> tuple[Mapping[str, Any], ...]:
    return FACTS, record.metrics, record.config


def ordered(records: Iterable[Record], keys: Sequence[str]) -> list[Record]:
    """Sorted by keys, the first counting most; `-key` is largest first. Runs without a value come last."""
    found = list(records)
    for key in reversed(keys):
        name = key.removeprefix("-")
        have = [record for record in found if record.value(name) is not None]
        have.sort(key=lambda record: _rank(record.value(name)), reverse=key.startswith("-"))
        found = have + [record for record in found if record.value(name) is None]
    return found


def tree(records: Sequence[Record]) -> list[tuple[int, Record]]:
    """Each run with its depth, below the one it came from if that is here too; else in the order given.

    A run is found by its folder, or, where that was moved, by its short id.
    """
    by_path = {record.path: record for record in records}
    by_id = {record.id: record for record in records}
    children: dict[int, list[Record]] = {}
    roots: list[Record] = []
    for record in records:
        parent = by_path.get(record.origin[1]) or by_id.get(_moved_id(record)) if record.origin else None
        siblings = roots if parent is None or parent is record else children.setdefault(id(parent), [])
        siblings.append(record)
    placed: list[tuple[int, Record]] = []
    waiting = [(0, record) for record in reversed(roots)]
    while waiting:
        depth, record = waiting.pop()
        placed.append((depth, record))
        waiting += [(depth + 1, child) for child in reversed(children.pop(id(record), []))]
    # what is left hangs in a circle, which only a hand-edited status.json can make
    return placed + [(0, record) for siblings in children.values() for record in siblings]


def _moved_id(record: Record) -> str:
    assert record.origin is not None
    return short_id(record.origin[1])


def is_number(value: Any) -> bool:
    """Whether a value is an integer or a float; true and false are neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _rank(value: Any) -> tuple[int, Any]:
    return (0, value) if isinstance(value, (int, float)) else (1, str(value))
