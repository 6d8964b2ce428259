"""Where the value of a config key came from: the default in the code, then files in their order, then the words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode

from trainkit import registry
from trainkit.config import folders
from trainkit.config.frame import Train
from trainkit.schema import REQUIRED, Field, plain, schema_of


@dataclasses.dataclass(frozen=True)
class Origin:
    """One place that gives a key a value; of several the last counts.

    file, line: None for the code and the command line. hidden: the file is not read, because a folder of the user's
    has one of the same name. doc: the comment behind the value.
    """

    where: str
    value: Any
    file: Path | None = None
    line: int | None = None
    hidden: bool = False
    doc: str = ""

    @property
    def is_own(self) -> bool:
        """Whether a file of the user's says it."""
        return self.file is not None and not self.file.is_relative_to(folders.packaged_conf())


def field_of(key: str, values: dict[str, Any]) -> Field | None:
    """The schema of a key (`optim.lr`, `device.cudnn.benchmark`, `epochs`) in a composed config; None without one."""
    first, *rest = key.split(".")
    frame = schema_of(Train)
    if not rest:
        return frame.get(first)
    component = registry.find(first, str(values[first].get("name"))) if first in registry.FAMILIES else None
    schema = component.schema if component else {}
    for name in rest[:-1]:
        annotation = schema[name].annotation if name in schema else None
        if get_origin(annotation) is dict:  # whose keys are the user's own
            last = rest[-1]
            return Field(last, get_args(annotation)[1], REQUIRED)
        nested = isinstance(annotation, type) and dataclasses.is_dataclass(annotation)
        outer = schema[name].default if nested else None
        schema = schema_of(annotation) if nested and isinstance(annotation, type) else {}
        if outer is not REQUIRED:  # a component may give a nested field another default than its class has
            schema = {k: dataclasses.replace(f, default=getattr(outer, k, f.default)) for k, f in schema.items()}
    return schema.get(rest[-1])


def defaults_of(config_name: str, overrides: list[str]) -> Any:
    """Hydra's list of the files that a config is composed of. Hydra must be ready to compose; it reads all of them."""
    return GlobalHydra.instance().config_loader().compute_defaults_list(config_name, overrides, RunMode.RUN)


def origins(key: str, overrides: list[str], found: Any, values: dict[str, Any]) -> list[Origin]:
    """The places that set a key or, for a group, choose its option. found: as `defaults_of` the overrides."""
    chosen = key in registry.FAMILIES
    chain = [] if chosen else list(_in_code(key, values))
    for item in found.defaults:
        package = item.package or ""
        inside = key if not package else key.removeprefix(f"{package}.") if key.startswith(f"{package}.") else None
        if item.config_path is None or inside is None or item.config_path.split("/")[0] == "hydra":
            continue
        chain += in_files(item.config_path, inside, chosen)
    given = OverridesParser.create().parse_overrides(overrides) if chosen else found.config_overrides
    return chain + [_said(override, key) for override in given if _concerns(override, key, chosen)]


def _in_code(key: str, values: dict[str, Any]) -> Iterator[Origin]:
    field = field_of(key, values)
    if field is None or field.default is REQUIRED:
        return
    group, _, argument = key.partition(".")
    name = values[group]["name"] if argument else ""
    told = in_files(f"{group}/{name}", argument, chosen=False) if argument else []  # a preset's file may leave it out
    doc = next((origin.doc for origin in told if origin.doc), "")
    yield Origin(f"default of {group} {name}" if argument else "default of trainkit", plain(field.default), doc=doc)


def in_files(config_path: str, key: str, chosen: bool) -> list[Origin]:
    """What the files of this name say: the first in the search path is read, the others are hidden by it."""
    packaged = folders.packaged_conf()
    places = [folder / f"{config_path}.yaml" for folder in [*folders.TrainkitSearchPath.folders, packaged]]
    files = [file for file in places if file.is_file()]
    found = []
    for file in files:
        text = folders.read_text(file)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        pair = _choice(root, key) if chosen else _pair(root, key.split("."))
        if pair is None:
            continue
        line = pair[0].start_mark.line + 1
        value = pair[1].value if chosen else _value(folders.read_yaml(text, file), key.split("."))
        comment = re.search(r"\s#\s*(.*)$", text.splitlines()[line - 1])
        inside = file.is_relative_to(packaged)
        where = f"conf/{file.relative_to(packaged)}" if inside else _shown(file)
        found.append(
            Origin(
                f"{where}:{line}" + (" (packaged)" if inside else ""),
                value,
                file,
                line,
                hidden=file != files[0],
                doc=comment.group(1).strip() if comment else "",
            )
        )
    return sorted(found, key=lambda origin: not origin.hidden)


def _shown(file: Path) -> str:
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def _pair(node: yaml.Node | None, names: list[str]) -> tuple[yaml.Node, yaml.Node] | None:
    """The YAML key and value at these names, one below the other."""
    pair = None
    for name in names:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        pair = next((pair for pair in pairs if pair[0].value == name), None)
        node = pair[1] if pair else None
    return pair


def _choice(root: yaml.Node | None, group: str) -> tuple[yaml.Node, yaml.Node] | None:
    """Where a file's `defaults:` choose an option of the group: `- optim: sgd` or `- override /optim: adam`."""
    defaults = _pair(root, ["defaults"])
    for item in defaults[1].value if defaults and isinstance(defaults[1], yaml.SequenceNode) else []:
        for pair in item.value if isinstance(item, yaml.MappingNode) else []:
            if pair[0].value.removeprefix("override ").strip().lstrip("/") == group:
                return pair[0], pair[1]
    return None


def _value(node: Any, names: list[str]) -> Any:
    for name in names:
        node = node[name]
    return node


def _concerns(override: Override, key: str, chosen: bool) -> bool:
    name = override.key_or_group
    return name == key or (not chosen and key.startswith(f"{name}.") and isinstance(override.value(), dict))


def _said(override: Override, key: str) -> Origin:
    value = override.value()
    for name in key.removeprefix(override.key_or_group).split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return Origin(f"command line: {override.input_line}", value)
