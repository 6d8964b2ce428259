"""`trainkit ls [GROUP]`: what can be chosen, one line each. Reads file heads only; no Hydra run, no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase as fnmatch
from pathlib import Path
from typing import Any

from trainkit import registry, schema
from trainkit.config import folders
from trainkit.config.flags import FlagParser
from trainkit.errors import ConfigError, near, unknown
from trainkit.text import say, say_json, visible

HELP = """\
usage: trainkit ls [GROUP] [--config-dir DIR] [--plugins MODULE] [--json]
       trainkit ls model.arch [PATTERN] [--model NAME] [--json]

Without GROUP: the config groups and their options. With GROUP: each option with one line and its arguments. With
model.arch: the models of other libraries by name, those that match a PATTERN with wildcards. No network is asked.

examples:
  trainkit ls
  trainkit ls model
  trainkit ls optim --json
  trainkit ls model.arch 'mobilenet*'
  trainkit ls model.arch --model timm '*efficientnet*'"""


def ls(argv: Sequence[str]) -> int:
    """Print what can be chosen. Raises ConfigError for an unknown group."""
    parser = FlagParser("ls")
    parser.add_argument("group", nargs="?")
    parser.add_argument("pattern", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-cd", "--config-dir", action="append", default=[])
    parser.add_argument("--plugins", action="append", default=[])
    flags = parser.read(argv)
    known = [*registry.FAMILIES, *folders.BUNDLES]
    registry.import_plugins(flags.plugins)
    if flags.group == ARCH:
        _list_names(flags.model, flags.pattern, as_json=flags.json)
        return 0
    if flags.group is not None and flags.group not in known:
        raise ConfigError(unknown("group", flags.group, [*known, ARCH]))
    if flags.pattern is not None or flags.model is not None:
        raise ConfigError(f"a pattern and --model are for trainkit ls {ARCH}")
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


ARCH = "model.arch"


def _list_names(model: str | None, pattern: str | None, *, as_json: bool) -> None:
    """Print the names that models take as `arch`: of one model, or of all. Raises ConfigError when none matches."""
    models = registry.having("model", "arch")
    if model is not None and model not in models:
        raise ConfigError(unknown("--model", model, models))
    asked = [model] if model is not None else models
    names = {name: schema.names_of(registry.get("model", name).schema["arch"].annotation) or [] for name in asked}
    if model is not None and not names[model]:
        raise ConfigError(f"model={model} needs the package {model}: pip install 'trainkit[{model}]'")
    found = {name: [arch for arch in known if fnmatch(arch, pattern or "*")] for name, known in names.items()}
    if pattern is not None and not any(found.values()):
        everything = [arch for known in names.values() for arch in known]
        close = near(pattern.strip("*"), everything)[:3]
        raise ConfigError(f"no model matches '{pattern}'" + (f"; there is {', '.join(close)}" if close else ""))
    if as_json:
        say_json(found, indent=2)
        return
    for name, archs in found.items():
        say(*(arch if model is not None else f"{name:{max(map(len, asked))}}  {arch}" for arch in archs))


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
