"""Models whose parameters share memory, as a plug-in: one under two names, two in one place, one in part of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLUGIN = """
from math import prod
from torch import nn
from trainkit.registry import register


class Shared(nn.Sequential):
    def __init__(self, features, num_outputs):
        first, second = nn.Linear(16, 16, bias=False), nn.Linear(16, 16, bias=False)
        start, end = nn.Linear(features, 16), nn.Linear(16, num_outputs)
        super().__init__(nn.Flatten(), start, nn.BatchNorm1d(16), first, nn.ReLU(), second, end)


@register("model")
def tied(in_shape, num_outputs):
    "Two layers have one matrix."
    model = Shared(prod(in_shape), num_outputs)
    model[5].weight = model[3].weight
    return model


@register("model")
def viewed(in_shape, num_outputs):
    "Two layers have two parameters in one memory, and a third has half of it."
    model = Shared(prod(in_shape), num_outputs)
    model[5].weight = nn.Parameter(model[3].weight)
    model[6].weight = nn.Parameter(model[3].weight[:num_outputs])
    return model
"""
NAMES = ("tied", "viewed")


def lay_out(folder: Path) -> None:
    """Put the plug-in `shared_plugin` and its models' configs into a folder that commands run in."""
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "shared_plugin.py").write_text(PLUGIN)
    for name in NAMES:
        (folder / "conf" / "model" / f"{name}.yaml").write_text(f"name: {name}\n")


def build(name: str, *, features: int = 8, outputs: int = 4) -> Any:
    """One of the models, without registering it."""
    source = PLUGIN.replace('@register("model")', "")
    scope: dict[str, Any] = {}
    exec(source, scope)
    return scope[name]((features,), outputs)
