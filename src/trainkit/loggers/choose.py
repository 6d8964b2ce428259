"""The loggers that `loggers=` can choose; a module is imported only when its name is chosen."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainkit.loggers.sinks import Logger
from trainkit.text import without_secrets

CLASSES = {"tensorboard": "TensorBoard", "wandb": "WandB", "mlflow": "MLflow"}


def make_loggers(names: Sequence[str], folder: Path, config: dict[str, Any]) -> list[Logger]:
    """The loggers of these names, each once, for a run folder and its plain config, of which secrets are kept back.

    Nothing is opened yet.
    """
    shown = without_secrets(config)
    modules = {name: importlib.import_module(f"trainkit.loggers.{name}") for name in names}
    return [getattr(module, CLASSES[name])(folder, shown) for name, module in modules.items()]
