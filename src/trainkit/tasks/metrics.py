"""The metrics that a run's result describes, so that a run of any task can be read without its code. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainkit.tasks.base import LOSS, Metric


def read_metrics(described: Any) -> dict[str, Metric]:
    """The metrics of a result's `measured`, by name, the loss always; what is damaged is left out."""
    found = {LOSS.name: LOSS}
    for row in described if isinstance(described, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or row.get("better") not in ("max", "min"):
            continue
        texts = {key: row[key] for key in ("short", "title") if isinstance(row.get(key), str)}
        found[row["name"]] = Metric(
            row["name"], row["better"], "share" if row.get("unit") == "share" else "number", **texts
        )
    return found


def of_split(values: dict[str, float], metrics: list[Metric], split: str) -> dict[str, float]:
    """The values that mean something of a split."""
    other = {metric.name for metric in metrics if metric.only not in (None, split)}
    return {name: value for name, value in values.items() if name not in other}


def describe_metrics(metrics: list[Metric]) -> list[dict[str, Any]]:
    """As a result keeps them."""
    return [dataclasses.asdict(metric) for metric in metrics]


def headline(metrics: Mapping[str, Metric]) -> str:
    """The name of the metric that says most: the first beside the loss that an epoch's line shows; else the loss."""
    shown = (name for name, metric in metrics.items() if metric.short is not None and name != LOSS.name)
    return next(shown, LOSS.name)
