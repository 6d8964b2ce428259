"""A verb with a config, from its words on: flags, overrides, one composition and one check; then its jobs."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from trainkit import registry
from trainkit.checkpoints import record
from trainkit.config import folders, stored
from trainkit.config.compose import FRAMES, check_jobs, explain, parse
from trainkit.config.flags import FlagParser
from trainkit.config.frame import Config, Frame, to_plain
from trainkit.config.words import common_flags, prepare
from trainkit.console.console import Console
from trainkit.errors import ConfigError, TrainkitError
from trainkit.launch.job import Job, run_job
from trainkit.launch.outcome import refusal
from trainkit.launch.sweep import SweepJob, call_hydra, finished_before, run_sweep
from trainkit.launch.verbs import VERBS
from trainkit.run_folders import rundir
from trainkit.schema import schema_of
from trainkit.text import pass_on, say
from trainkit.version import __version__

INFO = ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"]


def flag_parser(verb: str) -> FlagParser:
    """The flags of verbs with a config: Hydra's own, and `--json`.

    `--config-path` is taken as another `--config-dir`: the packaged options stay within reach behind it.
    """
    parser = common_flags(verb)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-r", "--run", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-sc", "--shell-completion", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("--hydra-help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all", choices=INFO)
    return parser


def run(verb: str, argv: Sequence[str]) -> int:
    """Run `trainkit VERB argv…`. Returns the exit code; raises TrainkitError for what is wrong before the first job."""
    flags = flag_parser(verb).read(argv)
    if flags.version:
        say(f"trainkit {__version__}, hydra {hydra.__version__}")
        return 0
    if flags.shell_completion:  # Hydra's own knows nothing of verbs
        raise ConfigError("--shell-completion: the script for tab completion is printed by trainkit completion SHELL")
    confs = folders.user_confs(flags.config_dir)
    folders.install(confs)
    problems: list[str] = []
    words, plugins = prepare(flags.overrides, problems, verb)
    registry.import_plugins(plugins)
    if flags.help:
        from trainkit.launch.help import show_help

        show_help(verb, confs)
        return 0
    try:
        overrides = stored.offer(FRAMES[verb], words, problems) if "ckpt" in schema_of(FRAMES[verb]) else words
        if flags.multirun and VERBS[verb].kind != "run":
            raise ConfigError(f"trainkit {verb} does one thing at a time: leave out -m")
        if flags.multirun:
            overrides = defer_to_jobs(overrides)
        if flags.cfg or flags.info or flags.hydra_help:
            return show_config(verb, [*overrides, *_hydra_flags(flags)], problems)
        config = check_jobs(verb, overrides, flags.multirun, problems, flags.config_name)[0]
        command = ["trainkit", verb, *argv]
        if not isinstance(config, Frame):
            return write_file(verb, config, as_json=flags.json)
        if flags.multirun:
            task = SweepJob(verb, plugins, flags.json)
            return run_sweep(task, config, command, overrides, _hydra_flags(flags))
        folder, is_new = folder_of(verb, config, overrides)
        job = Job(verb, config, folder, command, words, is_new=is_new)
    finally:
        stored.withdraw()
    return run_job(job, Console(as_json=flags.json)).code


def compose_job(verb: str, words: Sequence[str]) -> Job:
    """The one job that these overrides ask for, with a folder made for it. Raises ConfigError with all faults."""
    folders.install(folders.user_confs([]))
    problems: list[str] = []
    overrides, plugins = prepare(list(words), problems, verb)
    registry.import_plugins(plugins)
    (config,) = check_jobs(verb, overrides, False, problems)
    assert isinstance(config, Frame)
    folder, is_new = folder_of(verb, config, overrides)
    return Job(verb, config, folder, ["trainkit", verb, *words], overrides, is_new=is_new)


def folder_of(verb: str, config: Frame, overrides: Sequence[str]) -> tuple[Path, bool]:
    """A new run folder, or the user's `hydra.run.dir`, and whether it was made here.

    Raises ConfigError for a folder that holds another experiment.
    """
    given = [text.partition("=")[2].strip("'\"") for text in overrides if text.startswith("hydra.run.dir=")]
    if not given:
        return rundir.create(config.output_dir / verb, f"{config.dataset.name}-{config.model.name}"), True
    folder = Path(given[-1]).expanduser().absolute()
    if record.candidates(folder / "checkpoints"):
        finished_before(folder, to_plain(config))
    return folder, False


def write_file(verb: str, config: Config, *, as_json: bool) -> int:
    """Run a verb that writes no run folder, only the file that its `output` names. Returns 0; raises what it raises."""
    try:
        VERBS[verb].function()(config, as_json=as_json)
    except Exception as error:
        known = None if isinstance(error, TrainkitError) else refusal(error, config)
        if known is None:
            raise
        raise known from error
    return 0


def show_config(verb: str, argv: Sequence[str], problems: Sequence[str]) -> int:
    """Let Hydra print the config (`--cfg`, `--info`). Raises ConfigError for problems."""
    if problems:
        raise ConfigError(*problems)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            code = call_hydra(verb, lambda config: None, argv)
        pass_on(shown.getvalue())
        return code
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(explain(error)[0]) from error


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
