"""`trainkit ls [GROUP]`: what can be chosen, one line each. Reads file heads only; no Hydra run, no torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from trainkit import registry
from trainkit.config import folders
from trainkit.errors import ConfigError, unknown

HELP = """\
usage: trainkit ls [GROUP] [--config-dir DIR] [--plugins MODULE] [--json]

Without GROUP: the config groups and their options. With GROUP: each option with one line and its arguments.

examples:
  trainkit ls
  trainkit ls model
  trainkit ls optim --json"""


def ls(argv: Sequence[str]) -> int:
    """Print what can be chosen. Raises ConfigError for an unknown group."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("group", nargs="?")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    parser.add_argument("--plugins", action="append", default=[])
    try:
        flags, rest = parser.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from None
    if flags.help:
        print(HELP)
        return 0
    if rest:
        raise ConfigError(f"ls: unknown argument '{rest[0]}'; see trainkit ls --help")
    if flags.group is not None and flags.group not in registry.FAMILIES:
        raise ConfigError(unknown("group", flags.group, registry.FAMILIES))
    registry.import_plugins(flags.plugins)
    confs = folders.user_confs(flags.config_dir)
    groups = [flags.group] if flags.group else list(registry.FAMILIES)
    found = {group: describe(group, confs) for group in groups}
    if flags.json:
        print(json.dumps(found, indent=2))
    elif flags.group:
        _show_group(flags.group, found[flags.group])
    else:
        for group, options in found.items():
            print(f"{group:9} {', '.join(options)}")
    return 0


def describe(group: str, confs: list[Path]) -> dict[str, dict[str, object]]:
    """Each option of a group: its summary and its arguments with their values."""
    found: dict[str, dict[str, object]] = {}
    for name, file in folders.options(group, confs).items():
        text = folders.read_text(file)
        node = folders.read_yaml(text, file)
        if "defaults" not in node:
            node = folders.with_defaults(group, node)
        first = text.partition("\n")[0]
        component = registry.find(group, str(node.get("name")))
        summary = first.lstrip("# ") if first.startswith("#") else component.summary if component else ""
        arguments = {key: value for key, value in node.items() if key not in ("name", "defaults")}
        found[name] = {"summary": summary, "arguments": arguments}
    return found


def _show_group(group: str, options: dict[str, dict[str, object]]) -> None:
    import textwrap

    width = max(map(len, options))
    for name, facts in options.items():
        print(f"{name:{width}}  {facts['summary']}")
        arguments = facts["arguments"]
        assert isinstance(arguments, dict)
        if arguments:
            text = " ".join(f"{key}={_show(value)}" for key, value in arguments.items())
            indent = " " * (width + 2)
            print(textwrap.fill(text, 79, initial_indent=indent, subsequent_indent=indent))
    print(f"\nchoose one with {group}=NAME, and its arguments with {group}.ARGUMENT=VALUE")


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"', "").replace(" ", "")
