"""trainkit: config-driven training around PyTorch. Same command, same numbers."""

from trainkit.api import Model, Result, load, runs, train
from trainkit.registry import register
from trainkit.version import __version__

__all__ = ["Model", "Result", "__version__", "load", "register", "runs", "train"]
