"""What no config may say, because it would run code, whoever wrote the file: judged on the composed config.

Components are names of a closed registry. What is left are the settings of Hydra itself: they name classes, make log
handlers by any factory, look for more config in any package, and set variables of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.resolvers import oc

from trainkit.errors import ConfigError
from trainkit.text import is_secret

_LOGGING = (
    "trainkit.run_folders.rundir.LogFile",
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"),
)
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOG_FILE = re.compile(r"\$\{hydra\.runtime\.output_dir\}/(\$\{hydra\.job\.name\}|[\w-]+)\.log")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")


def refuse_targets(node: Any, where: object) -> None:
    """Raise ConfigError when `_target_` stands anywhere in a config: configs name components, never code."""
    if any("_target_" in part for part in _mappings(node)):
        raise ConfigError(f"{where}: `_target_` is refused: a config names registered components, never code")


def refuse_search_path(node: dict[str, Any], where: object) -> None:
    """Raise ConfigError when a file adds places to Hydra's search path: one of them could be a package, hence code."""
    hydra = node.get("hydra", {})
    if not isinstance(hydra, dict) or "searchpath" in hydra:
        raise ConfigError(f"{where}: hydra.searchpath is refused; name a folder with --config-dir")


def refuse_interpolations(node: Any, where: object) -> None:
    """Raise ConfigError when a config that should be resolved, a checkpoint's, still refers to something."""
    if any("${" in text for text in _texts(node)):
        raise ConfigError(f"{where}: its config holds an interpolation ${{…}}, which trainkit never writes")


def guard_environment() -> None:
    """Have `${oc.env:NAME}` refuse variables that are called like secrets: a config is kept in the run folder."""

    def env(name: str, *default: str) -> str | None:
        if is_secret(name):
            raise ValueError(f"${name} is called like a secret, and a config is kept in the run folder")
        return oc.env(name, *default)

    OmegaConf.register_new_resolver("oc.env", env, replace=True)


def faults(hydra: DictConfig, overrides: list[str]) -> list[str]:
    """A line for each setting of Hydra that would run code or write outside the run folder.

    overrides: the words of the command line, which alone may choose a launcher.
    """
    node = OmegaConf.to_container(hydra, resolve=False)
    assert isinstance(node, dict)
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    words = node.pop("overrides")
    node["job"].pop("override_dirname")  # the same words
    problems = [f"hydra: `_target_: {name}` is refused: no installed plugin of Hydra has it" for name in _strange(node)]
    # the two that Hydra itself sets are paths, which may be called anything
    runtime = {name: value for name, value in node["runtime"].items() if name not in ("cwd", "config_sources")}
    if any(re.search(r"_target_|oc\.(create|decode)", text) for text in _texts({**node, "runtime": runtime})):
        problems.append("hydra: text that becomes config (oc.create, oc.decode) is refused")
    problems += [f"hydra.{name}: {fault}" for name in ("job_logging", "hydra_logging") for fault in _log(node[name])]
    if not {*words["hydra"], *words["task"]} <= set(overrides):  # each job of a sweep would be composed with them
        problems.append("hydra.overrides is a record: write the words on the command line")
    if node["searchpath"]:
        problems.append("hydra.searchpath is refused; name a folder with --config-dir")
    if node["job"]["env_set"]:
        problems.append("hydra.job.env_set is refused: some variables run code; set them in the shell")
    if not _NAME.fullmatch(str(node["job"]["name"])):
        problems.append("hydra.job.name names a file: use letters, digits, '.', '_' and '-', at most 80")
    if node["output_subdir"] is not None and not _NAME.fullmatch(str(node["output_subdir"])):
        problems.append("hydra.output_subdir must be a plain name within the run folder")
    if node["sweep"]["subdir"] != "${hydra.job.num}":
        problems.append("hydra.sweep.subdir is set by trainkit: the jobs of a sweep are numbered")
    problems += [
        f"hydra.{part}: choose one with hydra/{part}=NAME" for part in ("launcher", "sweeper") if not node[part]
    ]
    launcher = node["runtime"]["choices"].get("hydra/launcher")
    if launcher != "basic" and "hydra/launcher" not in given:
        problems.append(f"hydra/launcher={launcher} in a config file is refused: some run commands; give it as a word")
    sweeper = node["sweeper"] or {}
    if sweeper.get("custom_search_space") and "hydra.sweeper.custom_search_space" not in given:
        problems.append(
            "hydra.sweeper.custom_search_space in a config file is refused: it runs code; give it as a word"
        )
    if any(re.search(r"^hydra\b|@hydra\b", str(key).lstrip("+~")) for key in sweeper.get("params") or {}):
        problems.append("hydra.sweeper.params sweeps the config, not Hydra's own settings")
    return problems


def _strange(node: Any) -> list[str]:
    """The `_target_`s that neither Hydra nor one of its installed plugins has registered."""
    targets = [str(part["_target_"]) for part in _mappings(node) if "_target_" in part]
    known = set(_registered(ConfigStore.instance().repo.get("hydra", {}))) if targets else set()
    return sorted({target for target in targets if target not in known})


def _registered(entry: Any) -> Iterator[str]:
    if isinstance(entry, ConfigNode):
        for part in _mappings(OmegaConf.to_container(entry.node, resolve=False)):
            if "_target_" in part:
                yield str(part["_target_"])
    elif isinstance(entry, dict):
        for inner in entry.values():
            yield from _registered(inner)


def _log(node: Any) -> list[str]:
    """What in the configuration of Python's logging would call something else than the usual handlers."""
    problems = []
    for part in _mappings(node):
        for key, value in part.items():
            text = value if isinstance(value, str) else ""
            if key in (".", "queue", "listener", "factory") or (key == "()" and text != "colorlog.ColoredFormatter"):
                problems.append(f"'{key}: {value}' is refused: it calls code")
            elif key == "class" and text not in _LOGGING:
                problems.append(f"'class: {value}' is refused; choose from: {', '.join(_LOGGING)}")
            elif key == "filename" and not _LOG_FILE.fullmatch(text):
                problems.append(f"'filename: {value}' is refused: a log is kept in ${{hydra.runtime.output_dir}}")
            elif key != "filename" and ("${" in text or ("://" in text and text not in _STREAMS)):
                problems.append(f"'{key}: {value}' is refused: it refers to something else")
    return problems


def _mappings(node: Any) -> Iterator[dict[Any, Any]]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _mappings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _mappings(value)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, (dict, list)):
        for value in node.values() if isinstance(node, dict) else node:
            yield from _texts(value)
