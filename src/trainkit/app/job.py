"""One job as Hydra calls it: check, run the verb, record how it ended. Picklable, for launchers with processes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainkit import registry, rundir
from trainkit.app.direction import refuse_wrong_direction
from trainkit.conduct import carry_out, report
from trainkit.config.check import check
from trainkit.config.compose import FRAMES
from trainkit.config.frame import Eval, Frame, to_plain
from trainkit.errors import ConfigError, Interrupted
from trainkit.report.console import Console
from trainkit.rundir import RunDir


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
            if isinstance(error, Interrupted) and in_sweep:
                raise KeyboardInterrupt from error  # launchers let it end the sweep
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
        assert isinstance(config, Frame)  # the other verbs have no job
        overrides = list(hydra.overrides.task) if in_sweep else self.overrides
        if in_sweep and isinstance(config, Eval):  # Hydra knows the checkpoint by the option made for it
            overrides = [f"ckpt={config.ckpt}" if text.startswith("ckpt=") else text for text in overrides]
        command = ["trainkit", self.verb, *overrides] if in_sweep else self.command
        prefix = f"[{hydra.job.num}] " if in_sweep else ""
        alone = not in_sweep or hydra.launcher["_target_"].endswith("BasicLauncher")
        console = Console(live=alone, as_json=self.as_json, prefix=prefix)
        if in_sweep and (done := finished_before(run.path, to_plain(config))):
            console.say(f"was done before: {rundir.shown(run.path)}")
            return done.get("objective")
        run.open(to_plain(config), command, overrides)
        accept = functools.partial(refuse_wrong_direction, hydra.sweeper)
        result = carry_out(self.target, config, run, console, accept=accept)
        objective = result.get("objective")
        return float(objective) if objective is not None else None


def finished_before(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a job that a sweep has run before with this config, else None."""
    status = rundir.read_status(path)
    if status.get("state") != "completed":
        return None
    try:
        stored = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # what cannot be read is done again
        return None
    return dict(status["result"]) if stored == config else None
