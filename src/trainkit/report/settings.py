"""A run's config as rows, and what in it differs from the defaults of this version of trainkit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from trainkit.config import folders
from trainkit.config.changes import differences, flat
from trainkit.config.frame import Eval, Train
from trainkit.errors import ConfigError
from trainkit.registry import FAMILIES
from trainkit.report.facts import Facts, Row
from trainkit.schema import REQUIRED, plain, schema_of

MAX_ROWS = 1000  # of a config or an environment; what a run has written is a tenth of it
PLACES = ("output_dir", "data_dir")  # where files are, which is no choice about the training
UNKNOWN = object()  # the default of a key that this version does not know


def rows_of(node: Row) -> Row:
    """A config or an environment by dotted key, as much of it as a page shows."""
    return dict(itertools.islice(flat(node).items(), MAX_ROWS))


def defaults(facts: Facts) -> Row:
    """What each key of a run's config would be if nobody had said a word, given the components that were chosen."""
    found = {
        name: UNKNOWN if field.default is REQUIRED else plain(field.default)
        for name, field in schema_of(Eval if facts.verb == "eval" else Train).items()
        if name not in FAMILIES
    }
    chosen = _default_options()
    for group, node in facts.config.items():
        if group not in FAMILIES or not isinstance(node, dict):
            continue
        name = str(node.get("name"))
        packaged = _packaged(group, name)
        found |= flat({group: packaged})
        found[group] = _packaged(group, chosen.get(group, "")).get("name", UNKNOWN)
    return found


def _default_options() -> dict[str, str]:
    file = folders.packaged_conf() / "train.yaml"
    entries = folders.read_yaml(folders.read_text(file), file)["defaults"]
    return {key: str(option) for entry in entries if isinstance(entry, dict) for key, option in entry.items()}


def _packaged(group: str, name: str) -> Row:
    """The packaged option of that name with all its arguments; what the signature says where there is no such file."""
    file = folders.packaged_conf() / group / f"{name}.yaml"
    node: Row = {"name": name}
    if name.isidentifier() and file.is_file():
        node = folders.read_yaml(folders.read_text(file), file)
        if str(node.get("name")) != name:  # another component's option that has this component's name
            node = {"name": name}
    try:
        return folders.with_defaults(group, node)
    except ConfigError:
        return node


def config_rows(facts: Facts) -> list[tuple[str, Any, Any, bool]]:
    """Key, value, default (UNKNOWN where there is none) and whether they differ, for every key of the config."""
    values, usual = rows_of(facts.config), flat(defaults(facts))
    rows = []
    for key, value in values.items():
        default = usual.get(key, UNKNOWN)
        differs = default is not UNKNOWN and key not in PLACES and default != value
        rows.append((key, value, UNKNOWN if default == "???" else default, differs))
    return rows


def differing(runs: Sequence[Facts]) -> dict[str, list[Any]]:
    """The keys of config and environment that are not the same in all runs, with the value of each."""
    tables = [
        {key: value for key, value in rows_of(run.config).items() if key not in PLACES}
        | {f"env.{key}": value for key, value in rows_of(run.environment).items() if key != "executable"}
        for run in runs
    ]
    return differences(*tables, missing=UNKNOWN)


def word(value: Any) -> str:
    """A config value as it is written on a command line."""
    if value is UNKNOWN:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
