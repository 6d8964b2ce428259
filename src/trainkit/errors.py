"""What can go wrong, as one tree; each leaf knows its exit code.

    TrainkitError        1  a job of a sweep failed, an export differs from its model, or a bug
    ├── ConfigError      2  usage or config: nothing was started
    ├── DataError        3  a data set is missing, damaged or does not fit
    ├── CheckpointError  4  a checkpoint is missing, damaged or of another model
    ├── NumericsError    5  a loss or gradient is not finite
    ├── ResourceError    6  disk, memory, a folder that cannot be written
    └── Interrupted  128+n  stopped by signal n, at a point where nothing is lost

A message says what, where and what to do, in one line. `cli.py` prints them, and of a run `launch/outcome.py`.
"""

from __future__ import annotations

import re
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
_MANY = 20  # names that nobody reads through
_NO_MEMORY = re.compile(r"can(?:'t|not) allocate memory|failed to map segment", re.IGNORECASE)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's allocator, that of a GPU, or the loader of shared libraries found no memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or _NO_MEMORY.search(str(error)) is not None


def out_of_memory(error: Exception) -> ResourceError:
    """What is said of an error that `is_out_of_memory` where no setting of a run can help, as in an import."""
    reason = (str(error).splitlines() or [""])[0]
    what = f" ({reason})" if reason else ""
    return ResourceError(f"out of memory{what}; end other programs, or raise the limit that ulimit -v shows")


def kind_of(value: object) -> str:
    """What a value is, in words, where something else was wanted."""
    return "None" if value is None else f"a {type(value).__name__}"


def first_line(error: BaseException) -> str:
    """The kind of an error that is not ours, and its first line that says something."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def near(word: str, known: Iterable[str]) -> list[str]:
    """The known names that `word` stands for, or may be a slip of, all equally likely.

    A third of the letters may be wrong, one at least; one may also be the beginning of the other, or a part of it.
    """
    found: dict[str, int] = {}
    names = list(dict.fromkeys(known))
    if OTHER_NAMES.get(word) in names:
        return [OTHER_NAMES[word]]
    for name in names:
        said, meant = (text.strip("-").lower().replace("-", "_") for text in (word, name))
        begins = (len(said) >= 3 and meant.startswith(said)) or (len(meant) >= 4 and said.startswith(meant))
        part = begins or (len(said) >= 4 and said in meant.split("_"))
        cost = 1 if part and said != meant else _edits(said, meant)
        if cost <= max(1, max(len(said), len(meant)) // 3):
            found[name] = cost
    return [name for name, cost in found.items() if cost == min(found.values())]


def _edits(said: str, meant: str) -> int:
    """Letters left out, put in, exchanged or changed; another first letter or digit counts twice: `rnn` is no `cnn`."""
    rows = [list(range(len(meant) + 1))]
    for i, a in enumerate(said):
        row = [i + 1]
        for j, b in enumerate(meant):
            change = 0 if a == b else 2 if i == j == 0 or (a.isdigit() and b.isdigit()) else 1
            best = min(rows[i][j] + change, rows[i][j + 1] + 1, row[j] + 1)
            if i and j and a == meant[j - 1] and b == said[i - 1]:
                best = min(best, rows[i - 1][j - 1] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name most like `word`, or None when nothing is close."""
    return next(iter(near(word, known)), None)


def unknown(what: str, word: str, known: Iterable[str], prefix: str = "") -> str:
    """One line for a wrong name: the nearest ones, and what may be chosen. `prefix` stands before every name."""
    names = list(known)
    close = [f"{prefix}{name}" for name in near(word, names)[:3]]
    hint = f" (did you mean {' or '.join(close)}?)" if close else ""
    choices = f"choose from: {', '.join(names)}" if names else "it has none"
    if len(names) > _MANY:
        choices = f"--help lists all {len(names)}"
    return f"{what} '{prefix}{word}' is not known{hint}; {choices}"
