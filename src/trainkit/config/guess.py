"""What strangers type, and what they mean: flags for keys, a path for a data set, a file for an experiment."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from trainkit import registry
from trainkit.errors import near, unknown

_FILE = re.compile(r"[^=]*\.ya?ml")
_PATH = re.compile(r"[~./].*|.*/.*|.*\.\w+")


def flag(keys: Iterable[str], name: str, value: str) -> str | None:
    """What an unknown flag with this value ("" where there is none) may mean; None when nothing is known of it."""
    known = list(keys)
    key = name.lstrip("-").replace("-", "_")
    if "optim" in known and (name == "--config" or _FILE.fullmatch(value)):  # of a verb that takes experiments
        return experiment(value)
    if key.partition(".")[0] not in known:
        key = next(iter(owners(key, known)), "")
    return f"write {shlex.quote(key + '=' + (value or '…'))}" if key else None


def word(keys: Iterable[str], text: str) -> str | None:
    """What a word without `=` may mean; None when nothing is known of it."""
    known = list(keys)
    if "optim" in known and _FILE.fullmatch(text):
        return f"'{text}': {experiment(text)}"
    if text in known:
        return f"'{text}' has no value: write {text}=…"
    groups = [group for group in registry.FAMILIES if group in known and text in registry.names(group)]
    if groups:
        return f"'{text}' alone: write {groups[0]}={text}"
    place = Path(os.path.expanduser(text))
    if not place.exists():
        return f"'{text}' alone: {data_set(text)}" if "optim" in known and os.sep in text else None
    is_run = (place / "status.json").exists() or place.suffix == ".safetensors"
    if "optim" not in known:
        key = "ckpt" if is_run or "input" not in known else "input"
        return f"'{text}' alone: write {shlex.quote(f'{key}={text}')}"
    if is_run:
        return f"'{text}' is a run: write trainkit resume {shlex.quote(text)}, or trainkit eval ckpt=…"
    return f"'{text}' alone: {data_set(text)}"


def data_set(text: str) -> str | None:
    """How a path that was given for a data set is read; None for what is no path."""
    place = Path(os.path.expanduser(text))
    if place.is_dir():
        return f"for images in folders write dataset=folder {shlex.quote(f'dataset.root={text}')}"
    if place.suffix == ".npz":
        return f"for arrays write dataset=npz {shlex.quote(f'dataset.file={text}')}"
    if place.exists():
        return (
            "no data set reads such a file: save its numbers as x and y of an .npz, for dataset=npz dataset.file=FILE"
        )
    if _PATH.fullmatch(text):
        return "no such file or folder; a path is for dataset=folder dataset.root=… or dataset=npz dataset.file=…"
    return None


def experiment(file: str) -> str:
    """How a config file of one's own is used."""
    name = Path(file).stem if _FILE.fullmatch(file) else "NAME"
    return (
        f"a config file is an experiment: save it as conf/experiment/{name}.yaml, with `# @package _global_` as first "
        f"line, and write experiment={name}; for a conf elsewhere add --config-dir DIR"
    )


def unknown_key(name: str, keys: Iterable[str]) -> str:
    """One line for a key that a verb does not have: with its group where it is an argument of one."""
    known = list(keys)
    found = owners(name, known)
    if found and not near(name, known):
        return f"key '{name}' is not known (did you mean {' or '.join(found)}?)"
    return unknown("key", name, known)


def owners(name: str, keys: Iterable[str]) -> list[str]:
    """`optim.lr` for `lr`: the groups among the keys of which some option has such an argument."""
    return [f"{group}.{name}" for group in registry.FAMILIES if group in keys and registry.having(group, name)]
