"""Which way an optimiser of a sweep looks: where nobody has said it, the way in which the monitored metric improves."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

from hydra import compose

from trainkit import registry
from trainkit.config.compose import composing, expand, parse
from trainkit.config.frame import Train
from trainkit.errors import ConfigError
from trainkit.statistics import monitored

DIRECTIONS = {"max": "maximize", "min": "minimize"}


def directed(config: Train, config_name: str, overrides: Sequence[str]) -> list[str]:
    """The overrides of a sweep, with the direction of its optimiser where they and the config files leave it open.

    Raises ConfigError when they name the other one, and what the data set raises: `monitor=auto` follows its task.
    """
    with composing("train"):
        first = expand(parse(overrides, []))[0]
        sweeper = compose(config_name, first, return_hydra_config=True).hydra.sweeper
    if "direction" not in sweeper:  # it tries what it was given, and optimises nothing
        return list(overrides)
    task = _task(config) if config.monitor.startswith("auto") else ""
    name, mode = ("loss", "min") if config.overfit else monitored(config.monitor, task)
    if mode not in DIRECTIONS:  # which the job will say
        return list(overrides)
    if isinstance(sweeper.direction, enum.Enum):  # the plugin's default; what a person has set is a text
        return [*overrides, f"hydra.sweeper.direction={DIRECTIONS[mode]}"]
    refuse_wrong_direction(sweeper, {"monitor": name, "mode": mode})
    return list(overrides)


def _task(config: Train) -> str:
    from trainkit.data.machine import default_data_dir

    build = registry.get("dataset", config.dataset.name).build
    task: str = build(config.data_dir or default_data_dir(), config.split_seed, **config.dataset.arguments).task
    return task


def refuse_wrong_direction(sweeper: Any, result: dict[str, Any]) -> None:
    """Raise ConfigError when an optimiser was told to look for the worst value."""
    direction = sweeper.get("direction")
    given, wanted = getattr(direction, "name", direction), DIRECTIONS[result["mode"]]
    if given not in (None, wanted):
        raise ConfigError(
            f"hydra.sweeper.direction={given}: the better {result['monitor']} is the {result['mode']}imum; "
            f"leave it out, or set it to {wanted}"
        )
