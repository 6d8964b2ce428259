"""Which losses can train a task, and the usual one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit import registry
from trainkit.errors import ConfigError
from trainkit.registry import Component, register
from trainkit.tasks.base import Task

if TYPE_CHECKING:
    from torch import nn

AUTO = "auto"


@register("loss")
def auto() -> nn.Module:
    """The usual loss of the data set's task."""
    raise TypeError("loss 'auto' stands for the loss of a task: build the component that `resolve` returns")


def fitting(task: Task) -> list[str]:
    """Names of the losses that can train a task, sorted; `auto` is one of them."""
    return [name for name in registry.names("loss") if name == AUTO or _fits(registry.get("loss", name), task)]


def resolve(name: str, task: Task, dataset: str) -> Component:
    """The loss to build: the one named, or for `auto` the task's usual one.

    Raises ConfigError when there is no such loss or it cannot train the task of the data set.
    """
    component = registry.get("loss", (task.losses or fitting(task)[1:] or [AUTO])[0] if name == AUTO else name)
    if not _fits(component, task):
        choices = ", ".join(fitting(task))
        raise ConfigError(
            f"loss '{name}' cannot train dataset '{dataset}', which is {task.name}; choose from: {choices}"
        )
    return component


def _fits(component: Component, task: Task) -> bool:
    return task.accepts(component.name, component.serves)
