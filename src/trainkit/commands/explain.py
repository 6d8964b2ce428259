"""`trainkit explain KEY`: what a config key is, what its value is, and every place that set it. No torch."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit import registry
from trainkit.commands.ls import describe as describe_options
from trainkit.config import folders
from trainkit.config.compose import compose_values, composing
from trainkit.config.frame import Train
from trainkit.config.origin import Origin, defaults_of, field_of, in_files, origins
from trainkit.config.words import common_flags, ready
from trainkit.console.columns import prose_width
from trainkit.errors import ConfigError, nearest
from trainkit.schema import REQUIRED, convert, describe, plain
from trainkit.text import say, say_json

HELP = """\
usage: trainkit explain KEY… [group=option …] [key=value …] [flags]

What a key of `trainkit train` is and what sets it: value, type, default, and the chain of files and words, of which
the last counts. KEY is a key (epochs, optim.lr, device.cudnn.benchmark) or a group (optim).

examples:
  trainkit explain optim.lr
      the learning rate of the default optimizer
  trainkit explain optim.lr experiment=mnist_cnn optim.lr=0.01
      the same, as a command line has it
  trainkit explain optim optim=adam
      a group: what chose the option, its arguments and what they are for

flags:
  --json                   the same for a program to read
  -cd, --config-dir DIR    config files of your own
  -cn, --config-name NAME  compose NAME.yaml of such a folder instead"""


def explain(argv: Sequence[str]) -> int:
    """Explain keys. Raises ConfigError for a key that the config does not have."""
    flags = common_flags("explain").read(argv)
    keys = [word for word in flags.overrides if "=" not in word and word[:1] not in "~+"]
    flags.overrides = [word for word in flags.overrides if word not in keys]
    if not keys:
        raise ConfigError("explain: name a key, as in trainkit explain optim.lr; see trainkit explain --help")
    overrides, problems = ready(flags)
    name = flags.config_name or "train"
    with composing("train"):
        values, faults = compose_values(name, Train, overrides)
        problems += faults
        if values is None or problems:
            raise ConfigError(*problems)

        read = defaults_of(name, overrides)

        def facts_of(key: str) -> dict[str, Any]:
            return _facts(key, values, origins(_known(key, values), overrides, read, values))

        facts = []
        for key in keys:
            facts.append(facts_of(key))
            if key in registry.FAMILIES:
                below = [argument for argument in _names({key: values[key]}) if argument != key]
                found = {argument: facts_of(argument) for argument in below}
                facts[-1]["arguments"] = {k: fact for k, fact in found.items() if not isinstance(fact["value"], dict)}
    if flags.json:
        say_json(facts[0] if len(facts) == 1 else facts, indent=2)
        return 0
    confs = folders.user_confs(flags.config_dir)
    for index, fact in enumerate(facts):
        lines = _show_group(fact, confs) if fact["key"] in registry.FAMILIES else _show_key(fact)
        say(*[""] * (index > 0), *lines)
    return 0


def _known(key: str, values: dict[str, Any]) -> str:
    """The key, where the composed config has it. Raises ConfigError with the nearest names."""
    known = _names(values)
    if key in known:
        return key
    if key in folders.BUNDLES:
        raise ConfigError(f"'{key}' sets other keys and has no value of its own; see trainkit ls {key}")
    group, _, argument = key.partition(".")
    if group in registry.FAMILIES and argument and (owners := registry.having(group, argument.split(".")[0])):
        chosen = f"{group}={values[group].get('name')}"
        raise ConfigError(f"{chosen} has no key '{key}'; these have: {', '.join(owners)}: add {group}={owners[0]}")
    close = nearest(key, known)
    hint = f"did you mean {close}?" if close else "see trainkit train --cfg job"
    raise ConfigError(f"key '{key}' is not known ({hint})")


def _names(node: dict[str, Any], prefix: str = "") -> list[str]:
    """All keys of a config by their dotted names, groups included."""
    names = []
    for key, value in node.items():
        names.append(prefix + key)
        if isinstance(value, dict):
            names += [name for name in _names(value, f"{prefix}{key}.") if name != f"{key}.name"]
    return names


def _facts(key: str, values: dict[str, Any], chain: list[Origin]) -> dict[str, Any]:
    """What is known of a key, as JSON."""
    value: Any = values
    for name in key.split("."):
        value = value[name]
    field = None if key in registry.FAMILIES else field_of(key, values)
    if field is not None and value != "???":
        faults: list[str] = []
        convert(value, field.annotation, key, faults)
        if faults:
            raise ConfigError(*faults)
    required = field is not None and field.default is REQUIRED
    return {
        "key": key,
        "value": None if value == "???" else value,
        "given": value != "???",
        "type": describe(field.annotation) if field else None,
        "default": None if field is None or required else plain(field.default),
        "required": required,
        "doc": next((origin.doc for origin in [*chain, *_in_own_file(key, values)] if origin.doc), ""),
        "chain": [
            {
                "where": origin.where,
                "file": str(origin.file) if origin.file else None,
                "line": origin.line,
                "value": origin.value,
                "hidden": origin.hidden,
            }
            for origin in chain
        ],
    }


def _in_own_file(key: str, values: dict[str, Any]) -> list[Origin]:
    """What the file of the component's own name says of an argument, which a preset may leave out."""
    group, _, argument = key.partition(".")
    return in_files(f"{group}/{values[group].get('name')}", argument, False) if argument else []


def _show_key(fact: dict[str, Any]) -> list[str]:
    lines = [f"{fact['key']} = {_short(fact['value'])}" if fact["given"] else f"{fact['key']} is not given yet"]
    lines += [f"  {fact['doc']}"] if fact["doc"] else []
    if fact["type"]:
        lines += _wrapped("  type     ", fact["type"])
        lines.append("  default  " + ("none: it must be given" if fact["required"] else _short(fact["default"])))
    return [*lines, *_chain(fact["chain"])]


def _show_group(fact: dict[str, Any], confs: list[Path]) -> list[str]:
    """A group: the chosen option, what chose it, its arguments with their docs."""
    group, chosen = fact["key"], str(fact["value"].get("name"))
    options = describe_options(group, confs)
    summary = options.get(chosen, {}).get("summary", "")
    lines = [f"{group} = {chosen}" + (f": {summary}" if summary else "")]
    lines += _wrapped("  options  ", ", ".join(options))
    lines += _chain(fact["chain"])
    shown = {
        f"{argument['key']}={_short(argument['value'])}": argument["doc"] for argument in fact["arguments"].values()
    }
    if shown:
        width = min(max(map(len, shown)), 34)
        lines.append("  arguments")
        lines += [f"    {text:{width}}  {doc}".rstrip() for text, doc in shown.items()]
    return lines


def _chain(chain: list[dict[str, Any]]) -> list[str]:
    if not chain:
        return []
    texts = [_short(origin["value"]) for origin in chain]
    width = min(max(map(len, texts)), 24)
    last = max((index for index, origin in enumerate(chain) if not origin["hidden"]), default=-1)
    lines = ["  set by, the last one counts"]
    for index, (text, origin) in enumerate(zip(texts, chain, strict=True)):
        mark = "*" if index == last else " "
        note = ", not read: your file of this name is" if origin["hidden"] else ""
        lines.append(f"  {mark} {text:{width}}  {origin['where']}{note}")
    return lines


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, prose_width(), initial_indent=label, subsequent_indent=" " * len(label), break_on_hyphens=False
    )


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")
