"""Every value of a composed config against its schema: what composition alone lets through, all in one report."""

from __future__ import annotations

import importlib.util
from typing import Any, TypeVar

from trainkit import registry
from trainkit.config.frame import Choice, Config, default_node, groups
from trainkit.errors import unknown
from trainkit.schema import REQUIRED, check_node, convert, describe, schema_of

AnyFrame = TypeVar("AnyFrame", bound=Config)


def check(values: dict[str, Any], frame: type[AnyFrame], problems: list[str]) -> AnyFrame | None:
    """The typed config, or None with a line in `problems` for each unknown, missing, mistyped or out-of-range key."""
    before = len(problems)
    chosen = groups(frame)
    schema = schema_of(frame)
    for key in values:
        if key not in schema:
            problems.append(unknown("key", key, schema))
    typed: dict[str, Any] = {}
    for name, field in schema.items():
        if name in chosen:
            typed[name] = check_component(name, values.get(name, default_node(frame, name)), problems)
        elif (value := values.get(name, field.default)) is REQUIRED or value == "???":
            problems.append(f"{name} is required ({describe(field.annotation)}): add {name}=…")
        else:
            typed[name] = convert(value, field.annotation, name, problems)
    if len(problems) == before:
        problems += missing_packages(typed.get("loggers", []))
    return frame(**typed) if len(problems) == before else None


def missing_packages(loggers: list[str]) -> list[str]:
    """A line for each logger whose package, of the same name, is not installed."""
    specs = {name: importlib.util.find_spec(name) for name in loggers}
    # a folder of that name in the current one counts as a package too, but has no origin
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    return [f"loggers={name} needs the package {name}: pip install 'trainkit[{name}]'" for name in missing]


def check_component(group: str, node: Any, problems: list[str]) -> Choice | None:
    """The component that a node of a config chooses, or None with lines in `problems`."""
    if not isinstance(node, dict) or node.get("name") in (None, "???"):
        problems.append(f"{group} has no `name:`; choose one with {group}=…: {', '.join(registry.names(group))}")
        return None
    name = str(node["name"])
    component = registry.find(group, name)
    if component is None:
        hint = "; a component of your own needs plugins=[its.module]"
        problems.append(unknown(f"{group}.name:", name, registry.names(group)) + hint)
        return None
    arguments = {key: value for key, value in node.items() if key != "name"}
    return Choice(name, check_node(arguments, component.schema, group, problems))
