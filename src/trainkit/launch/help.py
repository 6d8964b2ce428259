"""`trainkit train --help`: usage, examples, the groups with their options, the config with its values."""

from __future__ import annotations

from pathlib import Path

from trainkit.config import folders
from trainkit.config.compose import group_names
from trainkit.launch.verbs import VERBS
from trainkit.text import say, visible

FLAGS = [
    ("-m, --multirun", "sweep: every comma-separated value, range() or choice()"),
    ("-c, --cfg job|hydra|all", "print the config and stop; -p KEY one part; --resolve"),
    ("-cd, --config-dir DIR", "config files of your own, before ./conf and the packaged ones"),
    ("-cn, --config-name NAME", "compose NAME.yaml of such a folder instead"),
    ("-i, --info [WHAT]", "searchpath, defaults-tree, plugins, …"),
    ("--json", "print the result as JSON on stdout, everything else on stderr"),
    ("--hydra-help", "Hydra's own flags"),
]


def show_help(verb: str, confs: list[Path]) -> None:
    """Print the help of a verb."""
    say(f"usage: trainkit {verb} [group=option …] [key=value …] [flags]", "", "examples:")
    for command, meaning in VERBS[verb].examples:
        say(f"  {command}", f"      {meaning}")
    say("", "groups (trainkit ls GROUP describes the options):")
    for group in group_names(verb):
        say(*_wrap(group, list(folders.options(group, confs))))
    say("", "keys:", *_keys(verb, confs))
    say("", "flags:")
    for flag, meaning in FLAGS if VERBS[verb].kind == "run" else FLAGS[1:]:
        say(f"  {flag:26} {meaning}")


def _wrap(group: str, names: list[str]) -> list[str]:
    import textwrap

    return textwrap.wrap(visible(", ".join(names)), 79, initial_indent=f"  {group:10} ", subsequent_indent=" " * 13)


def _keys(verb: str, confs: list[Path]) -> list[str]:
    """The top-level keys as the verb's YAML file has them, with its comments."""
    files = [folder / f"{verb}.yaml" for folder in [*confs, folders.packaged_conf()]]
    lines = folders.read_text(next(file for file in files if file.is_file())).splitlines()
    start = lines.index("# keys") + 1 if "# keys" in lines else 0
    end = next((i for i in range(start, len(lines)) if lines[i].startswith("hydra:")), len(lines))
    while end > start and not lines[end - 1].strip():
        end -= 1
    return [f"  {line}" for line in lines[start:end]]
