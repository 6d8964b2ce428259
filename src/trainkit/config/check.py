"""Every value of a composed config against its schema: what composition alone lets through, all in one report."""

from __future__ import annotations

from typing import Any, TypeVar

from trainkit import registry
from trainkit.config.frame import Choice, Config, groups
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
            typed[name] = _check_component(name, values.get(name), problems)
        elif (value := values.get(name, field.default)) is REQUIRED or value == "???":
            problems.append(f"{name} is required ({describe(field.annotation)}): add {name}=…")
        else:
            typed[name] = convert(value, field.annotation, name, problems)
    return frame(**typed) if len(problems) == before else None


def _check_component(group: str, node: Any, problems: list[str]) -> Choice | None:
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
