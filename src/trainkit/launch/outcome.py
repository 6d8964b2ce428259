"""How a job ended: recorded in its run folder, and said in one line. No torch."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from pathlib import Path

from trainkit.config.frame import Config, Export, Frame, Train
from trainkit.errors import (
    ConfigError,
    Interrupted,
    ResourceError,
    TrainkitError,
    first_line,
    is_out_of_memory,
    out_of_memory,
)
from trainkit.run_folders.rundir import RunDir
from trainkit.text import say, visible

log = logging.getLogger("trainkit")


def refusal(error: Exception, config: Config) -> TrainkitError | None:
    """What torch or a user's own part refuses, as an error for the user; None for anything else."""
    operation, found, _ = str(error).partition(" does not have a deterministic implementation")
    if found:
        return ConfigError(f"device.deterministic=true: {operation} has no deterministic implementation here")
    if "Expected more than 1 value per channel when training" in str(error):
        return ConfigError(
            "batch norm cannot train on one sample: raise batch_size, lower accumulate, or take another norm"
        )
    if is_out_of_memory(error):
        loading = isinstance(error, (ImportError, OSError))  # of a shared library: no batch is small enough
        return out_of_memory(error) if loading else ResourceError(name_memory(error, config))
    said = f"{first_line(error)}{_place(error)}"
    if isinstance(error, IndexError) and "index out of range in self" in str(error):
        return ConfigError(
            f"model '{config.model.name}' asks an embedding for a row that it does not have; numbers of a table come "
            f"standardized, so what is looked up must be whole numbers from 0 on, and the embedding have as many rows "
            f"({said})"
        )
    whose = getattr(error, "__notes__", None)  # set where users' own parts are tried out
    if whose is None:
        return None
    log.error("%s", whose[0], exc_info=error)
    return ConfigError(f"{whose[0]} failed with {said}")


def _place(error: Exception) -> str:
    """The line of the user's own code that an error came from, if it came from there."""
    torchs = f"{os.sep}torch{os.sep}"
    last = [frame for frame in traceback.extract_tb(error.__traceback__) if torchs not in frame.filename][-1]
    ours = last.filename.startswith(str(Path(__file__).parents[1]))
    return "" if ours else f" ({last.filename}:{last.lineno}: {last.line})"


def name_memory(error: Exception, config: Config) -> str:
    """One line: how much was asked for, and which settings need less."""
    asked = re.search(r"allocate (\d[\d.]* ?\w+)", str(error))
    size = f" ({asked.group(1)} asked for at once)" if asked else ""
    if isinstance(config, Export):
        return f"out of memory{size}; try a smaller model"
    less = ["a smaller batch_size"]
    if isinstance(config, Train):
        less.insert(0, f"accumulate={2 * config.accumulate} (the same batch in smaller parts)")
        less += [] if config.recompute else ["recompute=true"]
    less += ["precision=bf16"] if config.precision == "fp32" else []
    less += ["loader=streaming"] if isinstance(config, Frame) and config.loader != "streaming" else []
    return f"out of memory with batch_size={config.batch_size}{size}; try {', '.join(less)}, or a smaller model"


def break_off(run: RunDir) -> None:
    """Record that a run was interrupted; of one that had not begun nothing is left."""
    if not run.discard() and run.is_open:
        run.close("interrupted", exit_code=130)


def report(error: Exception, name: str, run: RunDir) -> int:
    """Say in one line what went wrong, put it into the log and the run's status; return the exit code.

    Of a run that had not begun nothing is left, unless its log holds more than was said: the traceback of a bug,
    ours or that of a user's own part.
    """
    if os.environ.get("TRAINKIT_FULL_ERROR") == "1":
        say(*"".join(traceback.format_exception(error)).rstrip().split("\n"), stream=sys.stderr)
    code = error.exit_code if isinstance(error, TrainkitError) else 1
    state = "interrupted" if isinstance(error, Interrupted) else "failed"
    if isinstance(error, TrainkitError):
        lines = [visible(line) for line in error.problems]
    else:
        where = run.path / f"{run.verb}.log"
        lines = [visible(f"internal error: {first_line(error)} (traceback in {where})")]
    for line in lines:
        tell(f"trainkit: {'' if state == 'interrupted' else 'error: '}{name}{line}")
    of_user = hasattr(error.__cause__, "__notes__")  # an exception of a user's own part, whose traceback is logged
    is_said = isinstance(error, TrainkitError) and state == "failed" and not of_user
    if is_said and run.discard():
        return code
    try:
        _keep(lines, error, run, state, code)
    except ResourceError as second:
        if not isinstance(error, ResourceError):  # else the disk that the run died of is still full
            tell(f"trainkit: error: {name}{second}")
    return code


def _keep(lines: list[str], error: Exception, run: RunDir, state: str, code: int) -> None:
    """Put how the run ended into its log and its status. Raises ResourceError when either cannot be written."""
    try:
        log.error("%s", "; ".join(lines), exc_info=None if isinstance(error, TrainkitError) else error)
    finally:
        if run.is_open:
            run.close(state, exit_code=code, error="; ".join(lines))


def tell(line: str) -> None:
    """Print a line to stderr. Where that leads nowhere, as to a closed terminal, the run still gets its status."""
    try:
        say(line, stream=sys.stderr)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # or Python fails again when it ends
