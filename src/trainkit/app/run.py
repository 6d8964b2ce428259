"""A verb under Hydra: flags, overrides, checks, then one job or the jobs of a sweep."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

import trainkit
from trainkit import registry, rundir, storage
from trainkit.app.direction import directed
from trainkit.app.job import Job, JobFailed
from trainkit.conduct import is_out_of_memory
from trainkit.config import folders, stored
from trainkit.config.compose import FRAMES, assignment, check_jobs, explain, parse
from trainkit.config.frame import Config, Frame, Predict, Train
from trainkit.config.words import common_flags, prepare
from trainkit.errors import ConfigError, ResourceError
from trainkit.flags import FlagParser
from trainkit.safety import without_secrets
from trainkit.schema import schema_of

COMMAND = "command.txt"  # of a sweep: what started it
INFO = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]


def flag_parser(verb: str) -> FlagParser:
    """The flags of trainkit's verbs: Hydra's own, and `--json`.

    `--config-path` is taken as another `--config-dir`: the packaged options stay within reach behind it.
    """
    parser = common_flags(verb)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-r", "--run", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    return parser


def run(verb: str, target: str, argv: Sequence[str]) -> int:
    """Run `trainkit VERB argv…`; `target` is the "module:function" that does a job. Returns the exit code.

    Raises TrainkitError for what is wrong before the first job starts.
    """
    flags = flag_parser(verb).read(argv)
    if flags.version:
        print(f"trainkit {trainkit.__version__}, hydra {hydra.__version__}")
        return 0
    if flags.experimental_rerun is not None:
        raise ConfigError("--experimental-rerun reads a pickle, which can run code; use a run's config.yaml instead")
    if flags.shell_completion:  # Hydra's own knows nothing of verbs
        raise ConfigError("--shell-completion: the script for tab completion is printed by trainkit completion SHELL")
    confs = folders.user_confs(flags.config_dir)
    folders.install(confs)
    problems: list[str] = []
    overrides, plugins = prepare(flags.overrides, problems)
    registry.import_plugins(plugins)
    if flags.help:
        from trainkit.app.help import show_help

        show_help(verb, confs)
        return 0
    job = Job(verb, target, plugins, ["trainkit", verb, *argv], list(overrides), flags.json)
    try:
        if "ckpt" in schema_of(FRAMES[verb]):
            overrides = stored.offer(FRAMES[verb], overrides, problems)
        return start(job, flags, overrides, problems)
    finally:
        stored.withdraw()


def start(job: Job, flags: argparse.Namespace, overrides: list[str], problems: list[str]) -> int:
    """Show the config, or check all jobs and run them. Raises ConfigError with all faults, `problems` first."""
    if flags.multirun and not issubclass(FRAMES[job.verb], Frame):
        raise ConfigError(f"trainkit {job.verb} does one thing at a time: leave out -m")
    if flags.multirun:
        overrides = defer_to_jobs(overrides)
    if flags.cfg or flags.info or flags.hydra_help:
        if problems:
            raise ConfigError(*problems)
        return show_config(job.verb, [*overrides, *_hydra_flags(flags)])
    configs = check_jobs(job.verb, overrides, flags.multirun, problems, flags.config_name)
    config = configs[0]
    if not isinstance(config, Frame):
        return run_here(job, config)
    run_jobs = run_sweep if flags.multirun else run_alone
    return run_jobs(job, config, overrides, _hydra_flags(flags))


def run_here(job: Job, config: Config) -> int:
    """Run a verb that writes no run folder, only the file that its `output` names. Returns 0; raises what it raises."""
    module, _, function = job.target.partition(":")
    try:
        getattr(importlib.import_module(module), function)(config, as_json=job.as_json)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        less = "a smaller batch_size or model" if isinstance(config, Predict) else "a smaller model"
        raise ResourceError(f"out of memory; try {less}") from error
    return 0


def run_alone(job: Job, config: Frame, overrides: list[str], flags: list[str]) -> int:
    """Run one job in a new folder, or in the user's `hydra.run.dir`. Returns its exit code."""
    if not any(text.startswith("hydra.run.dir=") for text in overrides):
        folder = rundir.create(config.output_dir / job.verb, f"{config.dataset.name}-{config.model.name}")
        overrides = [*overrides, assignment("hydra.run.dir", str(folder))]
    call_hydra(job.verb, job, [*overrides, *flags])
    return job.exit_code


def run_sweep(job: Job, config: Frame, overrides: list[str], flags: list[str]) -> int:
    """Run the jobs of a sweep and summarise them. Returns 1 if one failed or none ran, else 0."""
    from trainkit.sweep.summary import summarise

    if isinstance(config, Train):
        overrides = directed(
            config, next((f.partition("=")[2] for f in flags if "config-name" in f), job.verb), overrides
        )
    given = [text for text in overrides if text.startswith("hydra.sweep.dir=")]
    if given:
        folder = Path(given[-1].partition("=")[2].strip("'\"")).absolute()
    else:
        folder = rundir.create(config.output_dir / "sweeps")
        overrides = [*overrides, assignment("hydra.sweep.dir", str(folder))]
    code = 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / COMMAND).exists():
            storage.replace(folder / COMMAND, (shlex.join(without_secrets(job.command)) + "\n").encode())
        code = call_hydra(job.verb, job, [*overrides, *flags, "--multirun"])
    except KeyboardInterrupt:
        print(
            f"trainkit: the sweep stopped; go on with: trainkit resume {shlex.quote(rundir.shown(folder))}",
            file=sys.stderr,
        )
        return max(job.exit_code, 130)
    finally:
        completed = folder.is_dir() and summarise(folder, as_json=job.as_json)
    return code if completed else 1


def show_config(verb: str, argv: Sequence[str]) -> int:
    """Let Hydra print the config (`--cfg`, `--info`). Raises ConfigError when it cannot be composed."""
    try:
        return call_hydra(verb, lambda config: None, argv)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error)[0]) from error


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


@contextmanager
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


def _hydra_flags(flags: argparse.Namespace) -> list[str]:
    given = ["--resolve"] if flags.resolve else []
    given += ["--hydra-help"] if flags.hydra_help else []
    pairs = {"cfg": flags.cfg, "package": flags.package, "info": flags.info, "config-name": flags.config_name}
    return given + [f"--{name}={value}" for name, value in pairs.items() if value is not None]


def defer_to_jobs(overrides: list[str]) -> list[str]:
    """Make `model.x=1` a choice of one when `model` itself is swept.

    Hydra first composes a sweep without its swept keys, and would look for `x` in the default model.
    """
    parsed = parse(overrides, [])
    swept = [override.key_or_group for override in parsed.values() if override.is_sweep_override()]
    deferred = []
    for text in overrides:
        key, _, value = text.partition("=")
        override = parsed.get(text)
        in_swept = any(key.startswith(f"{group.replace('/', '.')}.") for group in swept)
        plain = override is not None and override.type.name == "CHANGE" and not override.is_sweep_override()
        deferred.append(f"{key}=choice({value})" if plain and in_swept else text)
    return deferred
