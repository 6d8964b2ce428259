"""`trainkit ls [GROUP]`: what can be chosen, one line each. Reads file heads only; no Hydra run, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit import registry
from trainkit.config import folders
from trainkit.config.flags import FlagParser
from trainkit.errors import ConfigError, unknown
from trainkit.text import say, say_json, visible

HELP = """\
usage: trainkit ls [GROUP] [--config-dir DIR] [--plugins MODULE] [--json]

Without GROUP: the config groups and their options. With GROUP: each option with one line and its arguments.

examples:
  trainkit ls
  trainkit ls model
  trainkit ls optim --json"""


def ls(argv: Sequence[str]) -> int:
    """Print what can be chosen. Raises ConfigError for an unknown group."""
    parser = FlagParser("ls")
    parser.add_argument("group", nargs="?")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    parser.add_argument("--plugins", action="append", default=[])
    flags = parser.read(argv)
    known = [*registry.FAMILIES, *folders.BUNDLES]
    if flags.group is not None and flags.group not in known:
        raise ConfigError(unknown("group", flags.group, known))
    registry.import_plugins(flags.plugins)
    confs = folders.user_confs(flags.config_dir)
    groups = [flags.group] if flags.group else known
    found = {group: describe(group, confs) for group in groups}
    if flags.json:
        say_json(found, indent=2)
    elif flags.group:
        _show_group(flags.group, found[flags.group])
    else:
        for group, options in found.items():
            say(f"{group:10} {', '.join(options)}")
    return 0


def describe(group: str, confs: list[Path]) -> dict[str, dict[str, object]]:
    """Each option of a group: its summary and its arguments with their values."""
    found: dict[str, dict[str, object]] = {}
    for name, file in folders.options(group, confs).items():
        text, node = folders.read_option(name, file)
        first = next((line for line in text.splitlines() if not line.startswith("# @")), "")  # not Hydra's directives
        summary = first.lstrip("# ") if first.startswith("#") else ""
        if group in folders.BUNDLES:
            found[name] = {"summary": summary, "arguments": _words(node)}
            continue
        if "defaults" not in node:
            node = folders.with_defaults(group, node)
        component = registry.find(group, str(node.get("name")))
        summary = summary or (component.summary if component else "")
        arguments = {key: value for key, value in node.items() if key not in ("name", "defaults")}
        found[name] = {"summary": summary, "arguments": arguments}
    return found


def _words(node: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """What a bundle sets, as the words of a command line: group options, then keys by their dotted names."""
    words: dict[str, object] = {}
    for item in node.get("defaults", []) if not prefix else []:
        if isinstance(item, dict):
            words |= {key.removeprefix("override ").lstrip("/"): option for key, option in item.items()}
    for key, value in node.items():
        if isinstance(value, dict):
            words |= _words(value, f"{prefix}{key}.")
        elif prefix or key != "defaults":
            words[prefix + key] = value
    return words


def _show_group(group: str, options: dict[str, dict[str, object]]) -> None:
    import textwrap

    width = max(map(len, options))
    for name, facts in options.items():
        say(f"{name:{width}}  {facts['summary']}")
        arguments = facts["arguments"]
        assert isinstance(arguments, dict)
        if arguments:
            text = " ".join(f"{key}={_show(value)}" for key, value in arguments.items())
            indent = " " * (width + 2)
            say(*textwrap.wrap(visible(text), 79, initial_indent=indent, subsequent_indent=indent))
    if group in folders.BUNDLES:
        say("", f"choose one with {group}=NAME; other words of the command line win over its own")
    else:
        say("", f"choose one with {group}=NAME, and its arguments with {group}.ARGUMENT=VALUE")


def _show(value: object) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"', "").replace(" ", "")
