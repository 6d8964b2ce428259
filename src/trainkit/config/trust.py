"""What no config may say, because it would run code, whoever wrote the file: all of Hydra's settings but a few.

Components are names of a closed registry. What is left are the settings of Hydra itself: they name classes, make log
handlers by any factory, look for more config in any package, and set variables of the environment. A word of the
command line is judged by itself; a config file by what it says and where Hydra puts that, because its header, an `@`
or `defaults:` lead to any key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.resolvers import oc

from trainkit.errors import ConfigError
from trainkit.text import is_secret

_ANY = r"(?s:.*)"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}"
_LOG = r"(?:job|hydra)_logging\.(?:.+\.)?"
# The settings of Hydra that may be given, each with a pattern of its values: anywhere, …
_EVERYWHERE = {
    r"(?:run|sweep)\.dir|verbose(?:\.\d+)?|launcher\..+": _ANY,
    r"sweeper\.(?:n_trials|n_jobs|direction|study_name|max_failure_rate|max_batch_size|sampler\..+)": _ANY,
    r"sweep\.subdir": r"\$\{hydra\.job\.num\}",
    r"job\.name|output_subdir": _NAME,
    rf"{_LOG}class": r"trainkit\.run_folders\.rundir\.LogFile|logging\.((Stream|File|Null)Handler|Formatter)",
    rf"{_LOG}filename": r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|[\w-]+)\.log",
    rf"{_LOG}stream": r"ext://sys\.std(out|err)",
    rf"{_LOG}(?:version|disable_existing_loggers|level|handlers\.\d+|propagate|formatter|format|datefmt|style"
    r"|log_colors\.\w+|mode|encoding|delay)": r"((?!\$\{|://).)*",
}
# … in config files alone, …
_IN_FILES = _EVERYWHERE | {r"sweeper\.params\.[+~]*(?!hydra\b|plugins\b)[\w./]+": _ANY}
# … and as words of the command line alone.
_AS_WORDS = _EVERYWHERE | {
    r"sweeper\.(?!params\b).+|job\.(?:id|num|chdir|config\..+)|(?:hydra_)?help\..+": _ANY,
}
# The options of Hydra's own groups that a config file may choose.
_CHOICES = re.compile(r"hydra/(config|\w+/(default|basic)|(sweeper|job_logging|hydra_logging|help|hydra_help)/.+)")
# An interpolation that could make config of text, as `${oc.create:…}` does.
_MAKES_CONFIG = re.compile(r"\$\{(?!(?:oc\.env|oc\.select|hydra|now):|[\w.\[\]]+\})")
_ADVICE = {
    "searchpath": "name a folder with --config-dir",
    "mode": "trainkit sets it: add -m for a sweep",
    "job.env_set": "some variables run code; set them in the shell",
    "job.name": "it names a file: use letters, digits, '.', '_' and '-', at most 80",
    "output_subdir": "it must be a plain name within the run folder",
    "sweep.subdir": "the jobs of a sweep are numbered",
    "sweeper.params": "a config file sweeps the config with it, not Hydra; here write seed=1,2 itself",
    "sweeper": "choose one with hydra/sweeper=NAME",
    "launcher": "choose one with hydra/launcher=NAME",
}


def refuse_targets(node: Any, where: object) -> None:
    """Raise ConfigError when `_target_` stands anywhere in a config: configs name components, never code."""
    if any("_target_" in path for path, _ in _leaves(node)):
        raise ConfigError(f"{where}: `_target_` is refused: a config names registered components, never code")


def refuse_search_path(node: dict[str, Any], where: object) -> None:
    """Raise ConfigError when a file adds places to Hydra's search path: one of them could be a package, hence code."""
    hydra = node.get("hydra", {})
    if not isinstance(hydra, dict) or "searchpath" in hydra:
        raise ConfigError(f"{where}: hydra.searchpath is refused; name a folder with --config-dir")


def refuse_interpolations(node: Any, where: object) -> None:
    """Raise ConfigError when a config that should be resolved, a checkpoint's, still refers to something."""
    if any("${" in value for _, value in _leaves(node) if isinstance(value, str)):
        raise ConfigError(f"{where}: its config holds an interpolation ${{…}}, which trainkit never writes")


def guard_environment() -> None:
    """Have `${oc.env:NAME}` refuse variables that are called like secrets: a config is kept in the run folder."""

    def env(name: str, *default: str) -> str | None:
        if is_secret(name):
            raise ValueError(f"${name} is called like a secret, and a config is kept in the run folder")
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)


def word_faults(override: Override) -> list[str]:
    """A line for each setting of Hydra that a word of the command line may not give."""
    start, *path = override.key_or_group.split(".")
    if "hydra" in (override.package or "").split("."):
        return [f"{override.input_line} is refused: Hydra's settings take no other config"]
    if start != "hydra":
        return []
    if override.is_sweep_override():
        return [f"{override.input_line} is refused: a sweep has one hydra.{'.'.join(path)}"]
    faults = (_fault(leaf, value, _AS_WORDS) for leaf, value in _leaves(override.value(), tuple(path)))
    return [fault for fault in faults if fault]


def file_faults(config_name: str, overrides: list[str]) -> list[str]:
    """A line for each setting of Hydra that a config file may not give. Hydra must be ready to compose."""
    loader = GlobalHydra.instance().config_loader()
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    problems = []
    for item in loader.compute_defaults_list(config_name, overrides, RunMode.RUN).defaults:
        if (name := item.config_path) is None:
            continue
        group, _, option = name.rpartition("/")
        source = next(source for source in loader.get_sources() if source.is_config(name))
        place = tuple(item.package.split(".")) if item.package else ()
        if source.provider != "user":  # what it says is known, but a file may have chosen it and said where it goes
            usual = item.package in ("hydra", group.replace("/", ".")) and (_CHOICES.fullmatch(name) or group in given)
            if place[:1] == ("hydra",) and not usual:
                problems.append(
                    f"{group}={option} in a config file is refused: only a word may set all of {item.package}"
                )
            continue
        node: Any = OmegaConf.to_container(source.load_config(name).config, resolve=False)
        node.pop("defaults", None)
        for path, value in _leaves(node, place):
            if path[:1] == ("hydra",) and (fault := _fault(path[1:], value, _IN_FILES)):
                also = "" if _fault(path[1:], value, _AS_WORDS) else "; as a word of the command line it may be given"
                problems.append(f"{source.path}/{name}.yaml: {fault}{also}")
    return problems


def _fault(path: tuple[str, ...], value: Any, allowed: dict[str, str]) -> str:
    """Why a setting of Hydra is refused; "" where it is allowed."""
    key, text = ".".join(path), str(value)
    if "_target_" in path:
        return f"hydra.{key}={text} is refused: a config names registered components, never code"
    pattern = next((values for keys, values in allowed.items() if re.fullmatch(keys, key)), None)
    if value in ({}, []) or (pattern and re.fullmatch(pattern, text) and not _MAKES_CONFIG.search(text)):
        return ""
    shown = next((start for start in _ADVICE if f"{key}.".startswith(f"{start}.")), key)
    advice = f"; {_ADVICE[shown]}" if shown in _ADVICE else ""
    return f"hydra.{f'{key}={text}' if pattern else shown} is refused{advice}"


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values in a config, empty lists and mappings too, each with the keys that lead to it."""
    if isinstance(node, (dict, list)) and node:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(value, (*path, str(key)))
    else:
        yield path, node
