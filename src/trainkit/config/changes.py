"""What differs between two configs, and which differences change what a run computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainkit.errors import CheckpointError
from trainkit.registry import FAMILIES

# No bit of a result depends on these.
FREE = (
    *("log_every", "loader", "workers", "data_dir", "output_dir", "plugins", "checkpoint_every", "keep_last"),
    *("loggers", "anomaly", "max_skipped", "tta", "topk", "plots"),
)
# Where initial weights lie, and what is insisted on: that they are the same is judged by their digest.
FREE_PARTS = ("init.file", "init.sha256")
# These change the rounding, and not what is meant.
ROUNDING = ("device", "precision", "channels_last", "compile", "cuda_graph", "recompute", "accumulate")


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """A nested config as {dotted key: value}, a component's name under its group: `model` and `model.hidden`."""
    return dict(_leaves(config, ""))


def _leaves(node: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            group = prefix.removesuffix(".")
            yield (group if key == "name" and group in FAMILIES else f"{prefix}{key}"), value


def differences(*tables: Mapping[str, Any], missing: Any = None) -> dict[str, list[Any]]:
    """The keys whose values are not the same in all tables, with the value of each, `missing` where it has none."""
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key, missing) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def changes_bits(key: str) -> bool:
    """Whether another value of this dotted key can change any number of a result."""
    return key.partition(".")[0] not in FREE and key not in FREE_PARTS


def changes_meaning(key: str) -> bool:
    """Whether another value of this dotted key makes it another experiment."""
    return changes_bits(key) and key.partition(".")[0] not in ROUNDING


def refuse_other_meaning(old: dict[str, Any], new: dict[str, Any], allow: Sequence[str]) -> list[str]:
    """The changed keys that make it another experiment, all of them in `allow`, as "key old -> new".

    A run that only goes on after its end is none: it is, bit for bit, the one that was planned so from the start.
    Raises CheckpointError naming those that are not.
    """
    changed = {key: pair for key, pair in differences(flat(old), flat(new)).items() if changes_meaning(key)}
    refused = {key: pair for key, pair in changed.items() if key not in allow}
    if refused:
        here = "; ".join(f"{key} is {now} here and {was} in the checkpoint" for key, (was, now) in refused.items())
        raise CheckpointError(f"{here}: it would be another run; allow=[{','.join(refused)}] lets it go on")
    planned = ("epochs", "extensions") if _extends(old, new) else ()
    return [f"{key} {was} -> {now}" for key, (was, now) in changed.items() if key not in planned]


def _extends(old: dict[str, Any], new: dict[str, Any]) -> bool:
    *before, last = new["extensions"] or [""]
    return bool(before == old["extensions"] and str(last).endswith(f"@{old['epochs']}"))
