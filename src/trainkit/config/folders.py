"""Where config files are looked for, and how one is read.

The first folder that has a file wins: `--config-dir`, then `$TRAINKIT_CONF`, then `./conf`, then the packaged ones.
Hydra's own `--config-dir` is searched last, so it can add options but not change them; hence a search path plugin.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainkit import registry, storage
from trainkit.config.trust import guard_environment, refuse_search_path, refuse_targets
from trainkit.errors import ConfigError
from trainkit.schema import REQUIRED, plain

BUNDLES = ["experiment", "debug"]  # groups whose files set keys of the whole config, not one component
MAX_NODES = 10_000  # after aliases are expanded: a file of nine lines can stand for billions


def packaged_conf() -> Path:
    """The folder `conf/` that came with trainkit: inside the wheel, or at the top of a checkout."""
    here = Path(__file__).resolve().parents[1]
    for candidate in (here / "conf", here.parents[1] / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise ConfigError(f"this installation of trainkit has no conf/ folder beside {here}; install it again")


def user_confs(config_dirs: list[str]) -> list[Path]:
    """The user's config folders, most important first. Raises ConfigError for one that is no folder."""
    folders = [Path(folder).absolute() for folder in config_dirs]
    folders += [Path(folder).absolute() for folder in os.environ.get("TRAINKIT_CONF", "").split(os.pathsep) if folder]
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"config folder '{folder}' does not exist")
    beside = Path.cwd() / "conf"
    if beside.is_dir() and not beside.samefile(packaged_conf()):
        folders.append(beside)
    return folders


def read_option(name: str, file: Path | None) -> tuple[str, dict[str, Any]]:
    """The text and the mapping of an option's file; of one without a file, what such a file would say."""
    if file is None:
        return "", {"name": name}
    text = read_text(file)
    return text, read_yaml(text, file)


def install(folders: list[Path]) -> None:
    """Make Hydra read config files from these folders and the packaged one through `ConfigFolder`."""
    TrainkitSearchPath.folders = folders
    TrainkitSearchPath.reach_hydra = False
    guard_environment()
    Plugins.instance().register(ConfigFolder)
    Plugins.instance().register(TrainkitSearchPath)


def options(group: str, folders: list[Path]) -> dict[str, Path | None]:
    """The options of a group: name -> the file that defines it, the user's before the packaged one.

    None for a registered component without a file, which is what its signature says.
    """
    found: dict[str, Path | None] = {}
    for folder in [*folders, packaged_conf()]:
        if (folder / group).is_dir():
            for file in sorted((folder / group).glob("*.yaml")):
                found.setdefault(file.stem, file)
    for name in registry.names(group) if group in registry.FAMILIES else []:
        found.setdefault(name, None)
    return dict(sorted(found.items()))


class TrainkitSearchPath(SearchPathPlugin):
    """Puts the user's folders before the packaged one and reads all of them with `ConfigFolder`."""

    folders: ClassVar[list[Path]] = []
    reach_hydra: ClassVar[bool] = False  # whether a file that was read could set something of Hydra itself

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in reversed(self.folders):
            search_path.prepend(provider="user", path=f"conf://{folder}")
        for element in search_path.get_path():
            if element.provider == "main":
                element.path = f"conf://{packaged_conf()}"  # which Hydra writes with `file://`, or without


class ConfigFolder(ConfigSource):
    """A folder of YAML files. A component's file gets every argument it leaves out from the builder's signature.

    The packaged one, which is searched last, has all registered components, those without a file too.
    """

    @staticmethod
    def scheme() -> str:
        return "conf"

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"config not found: {file}")
        group = config_path.rpartition("/")[0]
        text, node = read_option(file.stem, file if file.is_file() else None)
        refuse_targets(node, file)
        refuse_search_path(node, file)
        if self.provider == "user" and re.search(r"hydra|\$\{", f"{config_path} {text} {node}"):
            TrainkitSearchPath.reach_hydra = True
        if group in registry.FAMILIES and "defaults" not in node:
            node = with_defaults(group, node)
        return ConfigResult(
            config=OmegaConf.create(node),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )

    def available(self) -> bool:
        return os.path.isdir(self.path)

    def is_group(self, config_path: str) -> bool:
        return os.path.isdir(os.path.join(self.path, config_path))

    def is_config(self, config_path: str) -> bool:
        file = self._file(config_path)
        return file.is_file() or file.stem in self._registered(config_path.rpartition("/")[0])

    def _registered(self, group: str) -> list[str]:
        packaged = group in registry.FAMILIES and Path(self.path) == packaged_conf()
        return registry.names(group) if packaged else []

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names: list[str] = []
        for name in os.listdir(os.path.join(self.path, config_path)):
            self._list_add_result(
                files=names, file_path=os.path.join(config_path, name), file_name=name, results_filter=results_filter
            )
        if results_filter != ObjectType.GROUP:
            names += self._registered(config_path)
        return sorted(set(names))


def read_text(file: Path) -> str:
    """The text of a config file. Raises ConfigError when it cannot be read, is not UTF-8, or is too large."""
    try:
        return storage.read_text(file)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise ConfigError(f"{file}: {error.strerror}; a config file is a page of YAML") from error
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error


def read_yaml(text: str, file: Path) -> dict[str, Any]:
    """The mapping in a YAML text, typed as OmegaConf types it (1e-3 is a number, a key stands once)."""
    try:
        if "&" in text:
            _refuse_bomb(yaml.compose(text, Loader=yaml.SafeLoader), file)
        node: Any = OmegaConf.create(text) if text.strip() else {}
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deep for a config") from error
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(f"{file}: {where}{str(error).splitlines()[0]}") from error
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: {str(error).splitlines()[0]}") from error
    container = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if not isinstance(container, dict):
        raise ConfigError(f"{file}: holds a {type(container).__name__}, not `key: value` lines")
    return {str(k): v for k, v in container.items()}


def _refuse_bomb(root: yaml.Node | None, file: Path) -> None:
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_NODES + 1  # a node that contains itself never ends
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in node.value for child in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(size(child) for child in children)
        return sizes[id(node)]

    if root is not None and size(root) > MAX_NODES:
        raise ConfigError(f"{file}: its aliases expand to more than {MAX_NODES:,} nodes")


def with_defaults(group: str, node: dict[str, Any]) -> dict[str, Any]:
    """A component's node with every argument it leaves out; unchanged when its name is not registered."""
    component = registry.find(group, str(node.get("name")))
    if component is None:
        return node
    defaults = {f.name: "???" if f.default is REQUIRED else plain(f.default) for f in component.schema.values()}
    return {"name": component.name, **defaults, **node}
