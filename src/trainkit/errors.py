"""What can go wrong, as one tree; each leaf knows its exit code.

    TrainkitError        1  a job of a sweep failed, an export differs from its model, or a bug
    ├── ConfigError      2  usage or config: nothing was started
    ├── DataError        3  a data set is missing, damaged or does not fit
    ├── CheckpointError  4  a checkpoint is missing, damaged or of another model
    ├── NumericsError    5  a loss or gradient is not finite
    ├── ResourceError    6  disk, memory, a folder that cannot be written
    └── Interrupted  128+n  stopped by signal n, at a point where nothing is lost

A message says what, where and what to do, in one line. Only `cli.py` prints them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TrainkitError(Exception):
    """A failure with a message for the user, a line for each problem; shown without a traceback."""

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ConfigError(TrainkitError):
    """The command line or the config is wrong."""

    exit_code = 2


class DataError(TrainkitError):
    """The data cannot be used as asked."""

    exit_code = 3


class CheckpointError(TrainkitError):
    """The checkpoint cannot be used as asked."""

    exit_code = 4


class NumericsError(TrainkitError):
    """Training produced a number that is not finite."""

    exit_code = 5


class ResourceError(TrainkitError):
    """The machine lacks something: disk space, memory, a permission."""

    exit_code = 6


class Interrupted(TrainkitError):
    """A signal asked the run to stop; `exit_code` is 128 and the signal's number, as in a shell."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


# What some would call it, as Lightning's and Hugging Face's users would; no likeness of letters leads there.
OTHER_NAMES = {"report": "loggers", "report_to": "loggers"}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that `word` stands for, or is most like, or None when nothing is close."""
    names = list(known)
    if OTHER_NAMES.get(word) in names:
        return OTHER_NAMES[word]
    matches = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(what: str, word: str, known: Iterable[str], prefix: str = "") -> str:
    """One line for a wrong name: the nearest one, and what may be chosen. `prefix` stands before every name."""
    names = list(known)
    close = nearest(word, names)
    hint = f" (did you mean {prefix}{close}?)" if close else ""
    choices = f"choose from: {', '.join(names)}" if names else "it has none"
    return f"{what} '{prefix}{word}' is not known{hint}; {choices}"
