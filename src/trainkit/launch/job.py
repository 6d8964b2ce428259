"""One job: a resolved, checked config and a run folder. The same call for train, resume, reproduce and a sweep."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainkit.config.frame import Frame, to_plain
from trainkit.console.console import Console
from trainkit.errors import Interrupted, TrainkitError
from trainkit.launch.outcome import break_off, refusal, report
from trainkit.launch.verbs import VERBS
from trainkit.run_folders.rundir import LogFile, RunDir

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a verb needs, in whichever process it runs.

    command: what to type for it. overrides: what of that is config. name: before what is said when it fails. is_new:
    its folder was made for it. options: arguments of the verb's function beyond config, folder and console.
    """

    verb: str
    config: Frame
    folder: Path
    command: Sequence[str]
    overrides: Sequence[str]
    name: str = ""
    is_new: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code, and its result or the error."""

    code: int
    result: Result | None = None
    error: Exception | None = None


def run_job(
    job: Job, console: Console, *, log: bool = True, accept: Callable[[Result], None] = lambda result: None
) -> Ended:
    """Open the job's folder, do the work, record and say how it ended; it may be refused by `accept`, which raises.

    log: write the job's own log, where nobody else has set one up. Raises ConfigError when another process holds the
    folder, whose log is then left alone; and KeyboardInterrupt.
    """
    run = RunDir(job.folder, job.verb, is_new=job.is_new)
    started = time.monotonic()
    try:
        run.open(to_plain(job.config), job.command, job.overrides)
    except TrainkitError:
        run.discard()
        raise
    if log:
        open_log(job)
    try:
        result: Result = VERBS[job.verb].function()(job.config, run, console, **job.options)
        accept(result)
        run.close("completed", exit_code=0, seconds=round(time.monotonic() - started, 3), result=result)
    except KeyboardInterrupt:
        break_off(run)
        raise
    except Exception as error:
        known = error if isinstance(error, TrainkitError) else refusal(error, job.config)
        if known is not None and known is not error:
            known.__cause__ = error
        return Ended(report(known or error, job.name, run), error=known or error)
    return Ended(0, result)


def open_log(job: Job) -> None:
    """Have Python's logging write into the job's folder."""
    handlers = [LogFile(str(job.folder / f"{job.verb}.log"))]
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(handlers=handlers, level=logging.INFO, format=form, force=True)


def was_interrupted(ended: Ended) -> bool:
    """Whether a signal stopped the job."""
    return isinstance(ended.error, Interrupted)
