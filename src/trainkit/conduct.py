"""A verb at work in its run folder: how it ends is recorded there, and said in one line. No torch."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from trainkit.config.frame import Frame, Train, to_plain
from trainkit.errors import ConfigError, Interrupted, ResourceError, TrainkitError
from trainkit.report.console import Console
from trainkit.rundir import RunDir
from trainkit.safety import visible

log = logging.getLogger("trainkit")
Result = dict[str, Any]


def carry_out(
    target: str,
    config: Frame,
    run: RunDir,
    console: Console,
    *,
    accept: Callable[[Result], None] = lambda result: None,
    **options: Any,
) -> Result:
    """Call the "module:function" of a verb in its open folder and record the result, if `accept` does not raise.

    Raises what the verb raises; what torch refuses becomes a `refusal`.
    """
    started = time.monotonic()
    module, _, function = target.partition(":")
    try:
        result: Result = getattr(importlib.import_module(module), function)(config, run, console, **options)
    except TrainkitError:
        raise
    except Exception as error:
        known = refusal(error, config)
        if known is None:
            raise
        raise known from error
    accept(result)
    run.close("completed", exit_code=0, seconds=round(time.monotonic() - started, 3), result=result)
    return result


def run_training(
    config: Train, run: RunDir, console: Console, command: Sequence[str], overrides: Sequence[str], **options: Any
) -> int:
    """Train in a folder outside of Hydra, which would have set up the log; returns the exit code.

    Raises ConfigError when another process holds the folder, whose log is then left alone.
    """
    run.open(to_plain(config), command, overrides)
    logging.basicConfig(
        filename=run.path / "train.log", level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    try:
        carry_out("trainkit.commands.train:train", config, run, console, **options)
    except KeyboardInterrupt:
        if run.is_open:
            run.close("interrupted", exit_code=130)
        raise
    except Exception as error:
        return report(error, "", run)
    return 0


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's allocator of the CPU, or that of a GPU found no memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def refusal(error: Exception, config: Frame) -> TrainkitError | None:
    """What torch or a user's own part refuses, as an error for the user; None for anything else."""
    operation, found, _ = str(error).partition(" does not have a deterministic implementation")
    if found:
        return ConfigError(f"device.deterministic=true: {operation} has no deterministic implementation here")
    if "Expected more than 1 value per channel when training" in str(error):
        return ConfigError(
            "batch norm cannot train on one sample: raise batch_size, lower accumulate, or take another norm"
        )
    if is_out_of_memory(error):
        return ResourceError(name_memory(error, config))
    said = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}{_place(error)}"
    if isinstance(error, IndexError) and "index out of range in self" in str(error):
        return ConfigError(
            f"model '{config.model.name}' asks an embedding for a row that it does not have; inputs come standardised, "
            f"so what is looked up must be made whole numbers from 0 on, and the embedding have as many rows ({said})"
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
    return (
        "" if last.filename.startswith(os.path.dirname(__file__)) else f" ({last.filename}:{last.lineno}: {last.line})"
    )


def name_memory(error: Exception, config: Frame) -> str:
    """One line: how much was asked for, and which settings need less."""
    asked = re.search(r"allocate (\d[\d.]* ?\w+)", str(error))
    size = f" ({asked.group(1)} asked for at once)" if asked else ""
    less = ["a smaller batch_size"]
    if isinstance(config, Train):
        less.insert(0, f"accumulate={2 * config.accumulate} (the same batch in smaller parts)")
        less += [] if config.recompute else ["recompute=true"]
    less += ["precision=bf16"] if config.precision == "fp32" else []
    less += ["loader=streaming"] if config.loader != "streaming" else []
    return f"out of memory with batch_size={config.batch_size}{size}; try {', '.join(less)}, or a smaller model"


def report(error: Exception, name: str, run: RunDir) -> int:
    """Say in one line what went wrong, put it into the log and the run's status; return the exit code."""
    if os.environ.get("TRAINKIT_FULL_ERROR") == "1":
        traceback.print_exception(error)
    code = error.exit_code if isinstance(error, TrainkitError) else 1
    state = "interrupted" if isinstance(error, Interrupted) else "failed"
    if isinstance(error, TrainkitError):
        lines = [visible(line) for line in error.problems]
    else:
        reason = (str(error).splitlines() or [""])[0]
        where = run.path / f"{run.verb}.log"
        lines = [visible(f"internal error: {type(error).__name__}: {reason} (traceback in {where})")]
    for line in lines:
        tell(f"trainkit: {'' if state == 'interrupted' else 'error: '}{name}{line}")
    log.error("%s", "; ".join(lines), exc_info=None if isinstance(error, TrainkitError) else error)
    if run.is_open:
        try:
            run.close(state, exit_code=code, error="; ".join(lines))
        except TrainkitError as second:  # the disk that the run died of is still full
            tell(f"trainkit: error: {name}{visible(str(second))}")
    return code


def tell(line: str) -> None:
    """Print a line to stderr. Where that leads nowhere, as to a closed terminal, the run still gets its status."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # or Python fails again when it ends
