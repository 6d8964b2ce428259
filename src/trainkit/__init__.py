"""trainkit: config-driven training around PyTorch. Same command, same numbers."""

from trainkit.api import Model, Result, load, runs, train
from trainkit.registry import register

__all__ = ["Model", "Result", "__version__", "load", "register", "runs", "train"]
__version__ = "0.1.0"
