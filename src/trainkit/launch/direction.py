"""Which way an optimizer of a sweep looks: where nobody has said it, the way in which the monitored metric improves."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from hydra import compose

from trainkit.config.compose import composing, expand, parse
from trainkit.config.frame import Train
from trainkit.errors import ConfigError

DIRECTIONS = {"max": "maximize", "min": "minimize"}


def directed(config: Train, config_name: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep, with the direction of its optimizer where they and the config files leave it open.

    Raises ConfigError when they name the other one, and what the data set raises: `monitor=auto` follows its task.
    """
    with composing("train"):
        first = expand(parse(overrides, []))[0]
        sweeper = compose(config_name, first, return_hydra_config=True).hydra.sweeper
    if "direction" not in sweeper:  # it tries what it was given, and optimizes nothing
        return list(overrides)
    name, mode = _aim(config)
    if name == "last":
        raise ConfigError("monitor=last does not say which job of a sweep is better; name a metric")
    if isinstance(sweeper.direction, enum.Enum):  # the plugin's default; what a person has set is a text
        return [*overrides, f"hydra.sweeper.direction={DIRECTIONS[mode]}"]
    refuse_wrong_direction(sweeper, {"monitor": name, "mode": mode})
    return list(overrides)


def _aim(config: Train) -> tuple[str, str]:
    from trainkit.building.components import (  # and with it torch, which a sweep of a grid does without
        build_monitor,
        find_data,
    )
    from trainkit.data.dataset import Data
    from trainkit.tasks.base import sums_of
    from trainkit.tasks.meter import Meter

    if config.overfit:
        return "loss", "min"
    found = find_data(config)
    target = found.spec.target if isinstance(found, Data) else found.target
    metrics = Meter(sums_of(target, full=True, topk=config.topk), "cpu").metrics
    monitor = build_monitor(config, metrics, target)
    return monitor.metric, monitor.mode


def refuse_wrong_direction(sweeper: Any, result: dict[str, Any]) -> None:
    """Raise ConfigError when an optimizer was told to look for the worst value."""
    direction = sweeper.get("direction")
    given, wanted = getattr(direction, "name", direction), DIRECTIONS[result["mode"]]
    if given not in (None, wanted):
        raise ConfigError(
            f"hydra.sweeper.direction={given}: the better {result['monitor']} is the {result['mode']}imum; "
            f"leave it out, or set it to {wanted}"
        )
