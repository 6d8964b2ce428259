"""The words after a verb: flags and overrides in any order, and the plugins that the overrides name."""

from __future__ import annotations

import argparse
import functools
import os
import re

from hydra.core.override_parser.types import Override

from trainkit import registry
from trainkit.config import folders, guess
from trainkit.config.compose import FRAMES, assignment, check_jobs, parse
from trainkit.config.flags import FlagParser
from trainkit.config.frame import Train
from trainkit.errors import ConfigError
from trainkit.schema import schema_of


def common_flags(verb: str) -> FlagParser:
    """The flags of every verb that composes a config."""
    parser = FlagParser(verb, functools.partial(guess.flag, _keys(verb)))
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-cd", "--config-dir", "-cp", "--config-path", action="append", default=[])
    parser.add_argument("-cn", "--config-name")
    return parser


def _keys(verb: str) -> list[str]:
    return list(schema_of(FRAMES.get(verb, Train)))  # plan, check and explain take the words of train


def prepare(overrides: list[str], problems: list[str], verb: str = "train") -> tuple[list[str], list[str]]:
    """Overrides as Hydra can read them, short forms spelled out, and the plugins they name."""
    spelled: list[str] = []
    for text in overrides:
        if not re.match(r"[^=]+=|~\w", text) and (meant := guess.word(_keys(verb), text)):
            problems.append(meant)
            continue
        spelled += _spelled(text)
    parsed = parse(spelled, problems)
    plugins: list[str] = []
    for override in parsed.values():
        if override.key_or_group == "plugins":
            plugins = _names(override)
    return list(parsed), plugins


def _spelled(text: str) -> list[str]:
    """`device=cuda:1` and `init=PATH` as an option of the group and its argument; any other word as it is."""
    if match := re.fullmatch(r"device=cuda:(\d+)", text):
        return ["device=cuda", f"device.index={match[1]}"]
    name, _, value = text.partition("=")
    path = value.strip("'\"")
    known = folders.options("init", folders.TrainkitSearchPath.folders)
    if name == "init" and path not in known and (os.sep in path or "." in path or os.path.exists(path)):
        return ["init=file", assignment("init.file", path)]
    return [text]


def _names(override: Override) -> list[str]:
    value = override.value()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ConfigError("plugins: expected a list of module names: plugins=[my_package.models]")
    return value


def ready(flags: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Set up the config folders and import the plugins that these words name: (overrides, problems so far)."""
    problems: list[str] = []
    folders.install(folders.user_confs(flags.config_dir))
    overrides, plugins = prepare(flags.overrides, problems)
    registry.import_plugins(plugins)
    return overrides, problems


def train_config(flags: argparse.Namespace) -> Train:
    """The config that `trainkit train` would run with for these words. Raises ConfigError with every problem."""
    overrides, problems = ready(flags)
    (config,) = check_jobs("train", overrides, False, problems, flags.config_name)
    assert isinstance(config, Train)
    return config
