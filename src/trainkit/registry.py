"""The closed list of names a config can choose from.

A config or a checkpoint can only say a name of this list, so opening one runs no code. Users extend the list with
`@register` in a module they name themselves, by `plugins=[module]` on the command line.

    @register("model")
    def tiny(in_shape, num_outputs, *, width: int = 8) -> nn.Module: ...

The function's name is the config name. Keyword-only parameters are the config; the others ask the program, by name, for
what it knows when the component is built: see `Component.asks`.
Modules of the packaged components import torch, and those of the common data sets NumPy, inside their functions, so
that reading a signature is cheap: a config error is told before either is loaded.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from trainkit.errors import ConfigError, unknown
from trainkit.schema import Schema, schema_of

# Where the components of each group live: a module, or a package whose modules are all read.
FAMILIES = {
    "dataset": "trainkit.data.datasets",
    "holdout": "trainkit.data.holdout",
    "model": "trainkit.models",
    "init": "trainkit.init",
    "loss": "trainkit.losses",
    "optim": "trainkit.optim",
    "finetune": "trainkit.optim.finetune",
    "sampler": "trainkit.data.samplers",
    "schedule": "trainkit.optim.schedules",
    "augment": "trainkit.data.augment",
    "device": "trainkit.runtime",
}

# What a config does not choose: a data set names its task, and all metrics of a task are measured.
UNCHOSEN = {"task": "trainkit.tasks", "metric": "trainkit.tasks"}
PLACES = FAMILIES | UNCHOSEN

Builder = TypeVar("Builder", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Component:
    """A registered builder: what it is called, what it builds with, which tasks it serves (losses and metrics only)."""

    group: str
    name: str
    build: Callable[..., Any]
    serves: tuple[str, ...] = ()

    @functools.cached_property
    def schema(self) -> Schema:
        return schema_of(self.build)

    @functools.cached_property
    def asks(self) -> dict[str, bool]:
        """What the builder asks of the program, by name: whether it must have it."""
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        parameters = inspect.signature(self.build).parameters.values()
        return {p.name: p.default is p.empty for p in parameters if p.kind in positional}

    def make(self, known: Mapping[str, Any], arguments: Mapping[str, Any] = MappingProxyType({})) -> Any:
        """What the builder returns for what it asks of `known`, and its config arguments.

        Raises ConfigError when it asks for something that is not known for this group.
        """
        strange = [name for name, needed in self.asks.items() if needed and name not in known]
        if strange:
            told = f"{self.group} '{self.name}' asks for '{strange[0]}'"
            raise ConfigError(f"{told}; a {self.group} may ask for: {', '.join(known)}; give the rest a * before it")
        return self.build(**{name: known[name] for name in self.asks if name in known}, **arguments)

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.build) or "").partition("\n")[0]


_components: dict[tuple[str, str], Component] = {}


def register(group: str, name: str | None = None, *, serves: Sequence[str] = ()) -> Callable[[Builder], Builder]:
    """Add a builder to a group, under its own name unless `name` is given.

    Raises ValueError for an unknown group, a name that is no plain word, or a name already taken.
    """
    if group not in PLACES:
        raise ValueError(unknown("group", group, PLACES))

    def add(build: Builder) -> Builder:
        component = Component(group, name or build.__name__, build, tuple(serves))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,63}", component.name):
            raise ValueError(f"'{component.name}' cannot name a {group}: use letters, digits and _")
        known = _components.get((group, component.name))
        holder = known.build.__module__ if known else _packaged(group).get(component.name)  # perhaps not imported yet
        if holder not in (None, build.__module__):
            raise ValueError(f"{group} '{component.name}' is already registered by {holder}")
        _components[group, component.name] = component
        return build

    return add


def names(group: str) -> list[str]:
    """All names of a group, sorted."""
    return sorted({*_packaged(group), *(name for g, name in _components if g == group)})


def find(group: str, name: str) -> Component | None:
    """The component, or None when the group has no such name."""
    if (group, name) not in _components and name in _packaged(group):
        importlib.import_module(_packaged(group)[name])
    return _components.get((group, name))


def get(group: str, name: str) -> Component:
    """The component of that name. Raises ConfigError naming the nearest one."""
    component = find(group, name)
    if component is None:
        raise ConfigError(unknown(group, name, names(group)))
    return component


def having(group: str, argument: str) -> list[str]:
    """The names of a group's components with this argument, sorted; modules without the word are not imported."""
    word = re.compile(rf"\b{re.escape(argument)}\b")
    without = {module for module, text in _sources(group).items() if not word.search(text)}
    wanted = [name for name in names(group) if _packaged(group).get(name) not in without]
    return [name for name in wanted if argument in get(group, name).schema]


@functools.cache
def _packaged(group: str) -> dict[str, str]:
    """The packaged components of a group: name -> module, read from the sources: only what is used is imported."""
    marked = re.compile(rf'^@register\("{group}"(?:, name="(\w+)")?.*?^(?:def|class) (\w+)', re.MULTILINE | re.DOTALL)
    found = {module: marked.findall(text) for module, text in _sources(group).items()}
    return {given or name: module for module, names in found.items() for given, name in names}


@functools.cache
def _sources(group: str) -> dict[str, str]:
    """The text of each module in which a group's packaged components stand."""
    spec = importlib.util.find_spec(PLACES[group])
    assert spec is not None
    assert spec.origin is not None
    modules = {PLACES[group]: Path(spec.origin)}
    for folder in spec.submodule_search_locations or []:
        modules |= {f"{PLACES[group]}.{file.stem}": file for file in Path(folder).glob("[!_]*.py")}
    return {module: file.read_text(encoding="utf-8") for module, file in modules.items()}


def import_plugins(modules: Sequence[str]) -> None:
    """Import the user's modules, whose `@register` lines then take part. Modules beside the user's cwd are found too.

    Raises ConfigError when a module does not import.
    """
    cwd = os.getcwd()
    if modules and cwd not in sys.path:
        sys.path.append(cwd)  # appended: a file of the cwd never shadows an installed package
    for module in modules:
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a script that ends in sys.exit() is no module to import
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"plugins: cannot import '{module}' ({reason})") from error
