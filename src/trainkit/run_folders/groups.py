"""Runs of one config but for the seed as a group; what differs between groups; their metrics as estimates."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any

from trainkit.config.changes import differences
from trainkit.run_folders.configs import read_config
from trainkit.run_folders.records import Record
from trainkit.statistics import Estimate, estimate
from trainkit.tasks import metrics
from trainkit.tasks.base import LOSS

# What a group has several of: the same experiment with other random numbers, or judged by another part of the data.
REPEATED = ("seed", "holdout.fold")
IGNORED = (*REPEATED, "output_dir")  # what does not make a run another experiment
REPEATS = ("seed", "split_seed", "fold")  # keys whose values are no choice: the same again, on other numbers drawn


@dataclasses.dataclass
class Group:
    """Runs that differ in their seed or fold alone, each once. name: A, B, …; config: what they have in common."""

    name: str
    records: list[Record]
    config: dict[str, Any]

    @property
    def repeats(self) -> list[tuple[Any, ...]]:
        """The seed of each run, and its fold where it has one."""
        return [repeat_of(record) for record in self.records]

    @property
    def repeated(self) -> str:
        """What it has several of, in words: `seeds 0, 1`, or `seed 0, folds 0, 1, 2`."""
        found = []
        for key, word in zip(REPEATED, ("seed", "fold"), strict=True):
            values = list(dict.fromkeys(str(one.config[key]) for one in self.records if key in one.config))
            if values:
                found.append(f"{word}{'s' if len(values) > 1 else ''} {', '.join(values)}")
        return ", ".join(found)

    def values(self, metric: str) -> list[float]:
        """A metric's value of each run that has it."""
        return [record.metrics[metric] for record in self.records if metric in record.metrics]

    def estimate(self, metric: str) -> Estimate | None:
        values = self.values(metric)
        return estimate(values) if values else None


def group(records: Sequence[Record]) -> list[Group]:
    """The groups, in the order of their first runs. Of two runs of one config, seed and fold each gets its own."""
    found: dict[tuple[str, int], Group] = {}
    for record in records:
        config = compared_config(record)
        text = json.dumps(config, sort_keys=True, default=str)
        repetition = 0
        while (text, repetition) in found and repeat_of(record) in found[text, repetition].repeats:
            repetition += 1
        if (text, repetition) in found:
            found[text, repetition].records.append(record)
        else:
            found[text, repetition] = Group(letters(len(found)), [record], config)
    return list(found.values())


def repeat_of(record: Record) -> tuple[Any, ...]:
    """What of a run is not its group's: its seed, and its fold where it has one."""
    return tuple(record.config[key] for key in REPEATED if key in record.config)


def only_repeated(keys: Iterable[str]) -> bool:
    """Whether runs that differ in these keys alone are one experiment, done several times: then none is the best."""
    names = {key.rpartition(".")[2] for key in keys}
    return bool(names) and names <= set(REPEATS)


def letters(index: int) -> str:
    """A, B, …, Z, AA, AB, …"""
    text = ""
    index += 1
    while index:
        index, rest = divmod(index - 1, 26)
        text = chr(ord("A") + rest) + text
    return text


def compared_config(record: Record) -> dict[str, Any]:
    """The config by which runs are grouped.

    An evaluation counts as the run it evaluates, with its own keys on top; `ckpt` is left only if it is not the best.
    """
    config = dict(record.config)
    if record.verb == "eval" and record.origin is not None:
        trained = read_config(record.origin[1] / "config.yaml")
        if trained:
            config = {**trained, **config, "ckpt": str(config["ckpt"]).rpartition("/")[2]}
    found = {key: value for key, value in config.items() if key not in IGNORED}
    if found.get("ckpt") == "best.safetensors":  # what a training run measures in the end, too
        del found["ckpt"]
    return found


def differing(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The config keys whose values are not the same in all groups: components first, then their arguments, the rest."""
    found = differences(*(one.config for one in groups))
    return dict(sorted(found.items(), key=lambda item: item[0].count(".")))


def by_dataset(groups: Sequence[Group]) -> list[list[Group]]:
    """The groups of each data set: numbers of different ones are not compared."""
    found: dict[str, list[Group]] = {}
    for one in groups:
        found.setdefault(str(one.config.get("dataset")), []).append(one)
    return list(found.values())


def metric_names(groups: Sequence[Group]) -> list[str]:
    """All metrics of all runs, in the order in which they are first met."""
    return list(dict.fromkeys(name for one in groups for record in one.records for name in record.metrics))


def best(groups: Sequence[Group], metric: str) -> list[Group]:
    """The groups of one data set with the best mean, more than one if they tie; none where there is no difference.

    None either where no run says which way the metric is better.
    """
    means = [(found.mean, one) for one in groups if (found := one.estimate(metric)) is not None]
    known = [record.measured for one in groups for record in one.records]
    better = next((names[short].better for names in known if (short := metric.rpartition("/")[2]) in names), None)
    if better is None or len({mean for mean, _ in means}) < 2:
        return []
    top = (min if better == "min" else max)(mean for mean, _ in means)
    return [one for mean, one in means if mean == top]


def headline(groups: Sequence[Group]) -> str | None:
    """What a verdict is about: the metric that says most, else the loss, on test if all groups have it, else on val."""
    names = [metrics.headline(record.measured) for one in groups for record in one.records]
    for name in dict.fromkeys([*names, LOSS.name]):
        for split in ("test", "val", "train"):
            if all(one.values(f"{split}/{name}") for one in groups):
                return f"{split}/{name}"
    return None
