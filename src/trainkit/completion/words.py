"""Which words may stand at a place of a command line, for tab completion. Composes nothing, imports no torch."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from trainkit import registry
from trainkit.config import folders
from trainkit.config.compose import FRAMES, group_names
from trainkit.errors import ConfigError
from trainkit.launch.run import INFO, flag_parser
from trainkit.launch.verbs import VERBS
from trainkit.schema import Schema, names_of, schema_of

FOLDERS = ("-cd", "--config-dir", "-cp", "--config-path")
VALUES = {"--cfg": ["job", "hydra", "all"], "-c": ["job", "hydra", "all"], "--info": INFO, "-i": INFO}


def answers(before: Sequence[str], word: str) -> list[str]:
    """The words that begin with `word` and may follow the words `before` (without `trainkit` itself)."""
    if not before:
        return starting(word, [*VERBS, "--help", "--version"])
    verb = before[0]
    if verb not in VERBS:
        return []
    if VERBS[verb].kind != "words":
        return Line(verb, before[1:]).answers(word)
    if word.startswith("-"):
        flags = re.findall(r"(?<![\w-])--[a-z][\w-]*", VERBS[verb].long_help())
        return starting(word, [*dict.fromkeys(flags), "--help"])
    if (config := VERBS[verb].config) is not None:  # the words of another verb
        found = Line(config, before[1:]).answers(word)
        return [*(item.removesuffix("=") for item in found if verb == "explain" and item.endswith("=")), *found]
    return PLAIN.get(verb, paths)(word)


def starting(word: str, known: Sequence[str]) -> list[str]:
    """The known words that begin with a word."""
    return [name for name in dict.fromkeys(known) if name.startswith(word)]


def paths(word: str) -> list[str]:
    """Files and folders whose path begins with a word, folders with a slash; hidden ones only if asked for."""
    parent, slash, name = word.rpartition("/")
    try:
        with os.scandir(os.path.expanduser(parent + slash) or ".") as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if entry.name.startswith(name))
    except OSError:
        return []
    return [
        f"{parent}{slash}{file}{'/' if is_dir else ''}"
        for file, is_dir in found
        if file.isprintable() and (name.startswith(".") or not file.startswith("."))
    ]


def runs(word: str, patterns: Sequence[str]) -> list[str]:
    """The folders below outputs/ of these patterns whose path begins with a word; where there is none, paths."""
    found = [path for pattern in patterns for path in sorted(map(str, Path().glob(f"outputs/{pattern}")))]
    return starting(word, found) or paths(word)


TRAINED = ["train/*", "sweeps/*/[0-9]*"]
# what stands behind a verb that takes no config; the others take paths
PLAIN: dict[str, Callable[[str], list[str]]] = {
    "ls": lambda word: starting(word, [*registry.FAMILIES, *folders.BUNDLES, "model.arch"]),
    "resume": lambda word: runs(word, TRAINED),
    "reproduce": lambda word: runs(word, TRAINED),
    "report": lambda word: runs(word, [*TRAINED, "eval/*", "sweeps/*"]),
    "compare": lambda word: runs(word, [*TRAINED, "eval/*", "sweeps/*"]),
    "doctor": lambda word: [],
    "completion": lambda word: starting(word, ["bash", "zsh", "fish"]),
}


class Line:
    """The words of a verb with a config that stand before the one to be completed."""

    def __init__(self, verb: str, before: Sequence[str]) -> None:
        self.verb = verb
        self.before = before
        given = [folder for flag, folder in itertools.pairwise(before) if flag in FOLDERS]
        self.confs = folders.user_confs(given)
        _import_plugins(before)
        self.schema = schema_of(FRAMES[verb])
        self.groups = group_names(verb)

    def answers(self, word: str) -> list[str]:
        last = self.before[-1] if self.before else ""
        if last in FOLDERS:
            return [path for path in paths(word) if path.endswith("/")]
        if last in VALUES:
            return starting(word, VALUES[last])
        if word.startswith("-"):
            return starting(word, [flag for flag in flag_parser(self.verb).known if flag.startswith("--")])
        key, equals, value = word.partition("=")
        return [f"{key}={item}" for item in self.values(key.lstrip("+~"), value)] if equals else self.keys(word)

    def keys(self, word: str) -> list[str]:
        """Groups and keys with their `=`; of a group's arguments once its dot is typed."""
        marks = re.match(r"[+~]*", word)
        prefix = marks.group() if marks else ""
        name = word.removeprefix(prefix)
        group, dot, _ = name.partition(".")
        if dot and group in self.groups:
            found = [f"{group}.{key}=" for key in self.arguments(group)]
        else:
            found = [f"{key}=" for key in [*self.groups, *(key for key in self.schema if key not in self.groups)]]
            exact = f"{name}=" in found and name in self.groups and bool(self.arguments(name))
            found += [f"{name}."] if exact else []
        return [prefix + item for item in starting(name, found)]

    def values(self, key: str, value: str) -> list[str]:
        """The values of a key; after a comma the next one of a sweep."""
        if key == "ckpt":
            return runs(value, TRAINED)
        done, comma, last = value.rpartition(",")
        if key in self.groups:
            known = list(folders.options(key, self.confs))
        else:
            annotation = self.annotation(key)
            if annotation is not None and Path in _parts(annotation):
                return paths(value)
            known = [] if annotation is None else names_of(annotation) or _words(annotation)
        return [done + comma + name for name in starting(last, known)]

    def arguments(self, group: str) -> Schema:
        """The arguments of the option that the line chooses in a group, or of the default one."""
        chosen = [word.partition("=")[2] for word in self.before if word.startswith(f"{group}=")]
        option = chosen[-1] if chosen else _default(self.verb, group)
        try:
            _, node = folders.read_option(option, folders.options(group, self.confs).get(option))
            component = registry.find(group, str(node.get("name", option)))
        except ConfigError:
            return {}
        return component.schema if component is not None else {}

    def annotation(self, key: str) -> Any:
        """The type of a key, or None."""
        group, _, name = key.partition(".")
        if not name:
            return self.schema[key].annotation if key in self.schema else None
        schema = self.arguments(group) if group in self.groups else {}
        return schema[name].annotation if name in schema else None


def _import_plugins(before: Sequence[str]) -> None:
    """Have the components of the modules that a line names; one that does not import is told when the line is run."""
    named = re.findall(r"\w[\w.]*", "".join(word.partition("=")[2] for word in before if word.startswith("plugins=")))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(ConfigError):
        registry.import_plugins(named)


def _default(verb: str, group: str) -> str:
    node = folders.read_yaml(folders.read_text(file := folders.packaged_conf() / f"{verb}.yaml"), file)
    for item in node.get("defaults", []):
        if isinstance(item, dict) and group in item:
            return str(item[group])
    return ""


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The types that an annotation allows."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _words(annotation: Any) -> list[str]:
    """The values of an annotation that are words: of a Literal, true and false, null."""
    words: list[str] = []
    for part in _parts(annotation):
        if part is bool:
            words += ["true", "false"]
        elif part is type(None):
            words.append("null")
        elif get_origin(part) is Literal:
            words += map(str, get_args(part))
    return words
