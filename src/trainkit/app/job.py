"""One job as Hydra calls it: check, run the verb, record how it ended. Picklable, for launchers with processes."""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainkit import registry
from trainkit.config.check import check
from trainkit.config.compose import FRAMES
from trainkit.config.frame import Eval, Frame, Train, to_plain
from trainkit.errors import ConfigError, ResourceError, TrainkitError
from trainkit.report.console import Console
from trainkit.rundir import RunDir

log = logging.getLogger("trainkit")


class JobFailed(Exception):
    """A job of a sweep failed, and has said so already; sweepers must see an exception."""


class Job:
    """Runs one job. `exit_code` holds how the last one of this process ended."""

    def __init__(
        self,
        verb: str,
        target: str,
        plugins: Sequence[str],
        command: Sequence[str],
        overrides: Sequence[str],
        as_json: bool,
    ) -> None:
        self.verb = verb
        self.target = target
        self.plugins = list(plugins)
        self.command = list(command)
        self.overrides = list(overrides)
        self.as_json = as_json
        self.exit_code = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        registry.import_plugins(self.plugins)  # a job's own process composes with the user's components too

    def __call__(self, composed: DictConfig) -> float | None:
        hydra = HydraConfig.get()
        in_sweep = hydra.mode == RunMode.MULTIRUN
        run = RunDir(Path(hydra.runtime.output_dir), self.verb)
        name = f"job {hydra.job.num} ({hydra.job.override_dirname}): " if in_sweep else ""
        try:
            return self._run(composed, run, hydra, in_sweep)
        except KeyboardInterrupt:
            if run.is_open:
                run.close("interrupted", exit_code=130)
            raise
        except Exception as error:
            self.exit_code = report(error, name, run)
            if os.environ.get("TRAINKIT_FULL_ERROR") == "1":
                raise
        if in_sweep and not hydra.sweeper["_target_"].endswith("BasicSweeper"):
            raise JobFailed(f"{name}exit code {self.exit_code}")  # an optimiser must not take None for a result
        return None

    def _run(self, composed: DictConfig, run: RunDir, hydra: Any, in_sweep: bool) -> float | None:
        problems: list[str] = []
        values = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(values, dict)
        config = check({str(k): v for k, v in values.items()}, FRAMES[self.verb], problems)
        if config is None:
            raise ConfigError(*problems)
        overrides = list(hydra.overrides.task) if in_sweep else self.overrides
        if in_sweep and isinstance(config, Eval):  # Hydra knows the checkpoint by the option made for it
            overrides = [f"ckpt={config.ckpt}" if text.startswith("ckpt=") else text for text in overrides]
        command = ["trainkit", self.verb, *overrides] if in_sweep else self.command
        run.open(to_plain(config), command, overrides)
        started = time.monotonic()
        prefix = f"[{hydra.job.num}] " if in_sweep else ""
        alone = not in_sweep or hydra.launcher["_target_"].endswith("BasicLauncher")
        console = Console(live=alone, as_json=self.as_json, prefix=prefix)
        module, _, function = self.target.partition(":")
        try:
            result = getattr(importlib.import_module(module), function)(config, run, console)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ResourceError(name_memory(error, config)) from error
        refuse_wrong_direction(result, hydra.sweeper)
        run.close("completed", exit_code=0, seconds=round(time.monotonic() - started, 3), result=result)
        objective = result.get("objective")
        return float(objective) if objective is not None else None


def refuse_wrong_direction(result: dict[str, Any], sweeper: Any) -> None:
    """Raise ConfigError when an optimiser would look for the worst value: it minimises unless told otherwise."""
    direction = sweeper.get("direction")
    wanted = {"max": "maximize", "min": "minimize"}[result["mode"]]
    if getattr(direction, "name", direction) not in (None, wanted):
        raise ConfigError(
            f"the better {result['monitor']} is the {result['mode']}imum: add hydra.sweeper.direction={wanted}"
        )


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, torch's allocator of the CPU, or that of a GPU found no memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


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
    code = error.exit_code if isinstance(error, TrainkitError) else 1
    lines = str(error).splitlines() or [type(error).__name__]
    if not isinstance(error, TrainkitError):
        lines = [f"internal error: {type(error).__name__}: {lines[0]} (traceback in {run.path / (run.verb + '.log')})"]
    for line in lines:
        print(f"trainkit: error: {name}{line}", file=sys.stderr)
    log.error("%s", "; ".join(lines), exc_info=None if isinstance(error, TrainkitError) else error)
    if run.is_open:
        run.close("failed", exit_code=code, error="; ".join(lines))
    return code
