"""The jobs of a sweep: Hydra chooses their values and calls each, in this process or in a launcher's."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from trainkit import registry, storage
from trainkit.config import folders
from trainkit.config.changes import changes_meaning, differences, flat
from trainkit.config.check import check
from trainkit.config.compose import FRAMES, assignment
from trainkit.config.frame import Eval, Frame, Train, to_plain
from trainkit.console.console import Console
from trainkit.errors import ConfigError, ResourceError
from trainkit.launch.direction import directed, refuse_wrong_direction
from trainkit.launch.job import Job, run_job, was_interrupted
from trainkit.launch.outcome import report, tell
from trainkit.run_folders import rundir
from trainkit.run_folders.configs import parse_config
from trainkit.run_folders.rundir import RunDir
from trainkit.text import say, without_secrets

COMMAND = "command.txt"  # in the folder of a sweep: what started it


class JobFailed(Exception):
    """A job of a sweep failed, and has said so already; sweepers must see an exception."""


class SweepJob:
    """What Hydra calls for each job of a sweep: picklable, for launchers with processes.

    `exit_code` is how the last one of this process ended.
    """

    def __init__(self, verb: str, plugins: Sequence[str], as_json: bool) -> None:
        self.verb = verb
        self.plugins = list(plugins)
        self.as_json = as_json
        self.exit_code = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        registry.import_plugins(self.plugins)  # a job's own process composes with the user's components too

    def __call__(self, composed: DictConfig) -> float | None:
        """Run the job; returns the value that a sweeper may optimize. Raises KeyboardInterrupt, JobFailed."""
        settings = HydraConfig.get()
        name = f"job {settings.job.num} ({settings.job.override_dirname}): "
        folder = Path(settings.runtime.output_dir)
        alone = settings.launcher["_target_"].endswith("BasicLauncher")
        console = Console(live=alone, as_json=self.as_json, prefix=f"[{settings.job.num}] ")
        try:
            job = self._job(composed, settings, folder, name)
            if done := finished_before(folder, to_plain(job.config)):
                console.say(f"was done before: {rundir.shown(folder)}")
                return done.get("objective")
            accept = functools.partial(refuse_wrong_direction, settings.sweeper)
            ended = run_job(job, console, log=False, accept=accept)  # Hydra has set up the job's log
        except Exception as error:  # before the folder was this job's
            self.exit_code = report(error, name, RunDir(folder, self.verb))
        else:
            self.exit_code = ended.code
            if ended.result is not None:
                objective = ended.result.get("objective")
                return float(objective) if objective is not None else None
            if was_interrupted(ended):
                raise KeyboardInterrupt from ended.error  # launchers let it end the sweep
        if not settings.sweeper["_target_"].endswith("BasicSweeper"):
            raise JobFailed(f"{name}exit code {self.exit_code}")  # an optimizer must not take None for a result
        return None

    def _job(self, composed: DictConfig, settings: Any, folder: Path, name: str) -> Job:
        """The job that was composed, checked: a sweeper may have chosen its values. Raises ConfigError."""
        problems: list[str] = []
        values = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(values, dict)
        config = check({str(k): v for k, v in values.items()}, FRAMES[self.verb], problems)
        if config is None:
            raise ConfigError(*problems)
        assert isinstance(config, Frame)
        overrides = list(settings.overrides.task)
        if isinstance(config, Eval):  # Hydra knows the checkpoint by the option made for it
            overrides = [f"ckpt={config.ckpt}" if text.startswith("ckpt=") else text for text in overrides]
        return Job(self.verb, config, folder, ["trainkit", self.verb, *overrides], overrides, name)


def run_sweep(task: SweepJob, config: Frame, command: Sequence[str], overrides: list[str], flags: list[str]) -> int:
    """Run the jobs of a sweep in a new folder, or in the user's `hydra.sweep.dir`.

    Returns 1 if one failed or none ran, else 0. Raises ConfigError when the folder is in use or is another sweep's.
    """
    if isinstance(config, Train):
        named = [text.partition("=")[2] for text in flags if text.startswith("--config-name=")]
        overrides = directed(config, named[-1] if named else task.verb, overrides)
    given = [text for text in overrides if text.startswith("hydra.sweep.dir=")]
    if given:
        folder = Path(given[-1].partition("=")[2].strip("'\"")).absolute()
    else:
        folder = rundir.create(config.output_dir / "sweeps")
        overrides = [*overrides, assignment("hydra.sweep.dir", str(folder))]
    lock = rundir.hold(folder)
    try:
        claim(folder, command)
        return run_held_sweep(task, folder, [*overrides, *flags, "--multirun"])
    finally:
        rundir.let_go(folder, lock)


def claim(folder: Path, command: Sequence[str]) -> None:
    """Write into a sweep's folder what started it. Raises ConfigError when it holds the jobs of another command."""
    words = without_secrets(list(command))
    has_jobs = any((folder / name / "status.json").exists() for name in os.listdir(folder) if name.isdigit())
    before = command_of(folder) if has_jobs else []
    if before and jobs_of(before) != jobs_of(words):
        other = f"{rundir.shown(folder)} holds another sweep ({shlex.join(before)})"
        raise ConfigError(f"{other}: name another hydra.sweep.dir for this one")
    if not before:
        storage.replace(folder / COMMAND, (shlex.join(words) + "\n").encode())


def command_of(folder: Path) -> list[str]:
    """The words that started the sweep of a folder; none when that cannot be read."""
    try:
        return shlex.split(storage.read_text(folder / COMMAND))
    except (OSError, ValueError):
        return []


def jobs_of(words: list[str]) -> list[str]:
    """A sweep's command without what only says where it writes: what decides which jobs it has."""
    return [word for word in words if word != "--json" and not word.startswith(("hydra.sweep.dir=", "output_dir="))]


def run_held_sweep(task: SweepJob, folder: Path, argv: Sequence[str]) -> int:
    """Run the jobs of a sweep whose folder this process holds, and summarize them. Returns the exit code."""
    from trainkit.sweep.summary import summarize

    code = 1
    try:
        code = call_hydra(task.verb, task, argv)
    except KeyboardInterrupt:
        command = f"trainkit resume {shlex.quote(rundir.shown(folder))}"
        say(f"trainkit: the sweep stopped; go on with: {command}", stream=sys.stderr)
        return max(task.exit_code, 130)
    finally:
        try:
            completed = folder.is_dir() and summarize(folder, as_json=task.as_json)
        except ResourceError as error:  # its table has been shown, but sweep.csv could not be written
            completed = False
            tell(f"trainkit: error: {error}")
    return code if completed else 1


def finished_before(path: Path, config: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a run that has ended in this folder with this config, else None.

    Raises ConfigError when it was another experiment, whose result would be lost.
    """
    status = rundir.read_status(path)
    if status.get("state") != "completed":
        return None
    try:
        stored = parse_config(storage.read_text(path / "config.yaml"), path)
    except (OSError, ValueError, RecursionError):  # what cannot be read is done again
        return None
    result = status.get("result")
    if not isinstance(stored, dict) or not isinstance(result, dict):
        return None
    if {**stored, "output_dir": None} == {**config, "output_dir": None}:
        return result
    for key, (was, now) in differences(flat(stored), flat(config)).items():
        if changes_meaning(key):
            other = f"{rundir.shown(path)} holds a finished run with {key}={was}, and not {now}"
            raise ConfigError(f"{other}: name another folder for this one")
    return None


def call_hydra(verb: str, task: Any, argv: Sequence[str]) -> int:
    """Let `hydra.main` run the task for these arguments. Raises what Hydra raises; returns the code it exits with."""
    sys.argv = [f"trainkit {verb}", *argv]
    try:
        with _raising():
            hydra.main(config_path=str(folders.packaged_conf()), config_name=verb, version_base="1.3")(task)()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except JobFailed:
        return 1
    return 0


@contextlib.contextmanager
def _raising() -> Iterator[None]:
    # With this variable Hydra lets exceptions out instead of printing them and leaving the process with 1.
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before
