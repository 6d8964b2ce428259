"""trainkit: config-driven training around PyTorch. Same command, same numbers."""

from trainkit.registry import register

__all__ = ["__version__", "register"]
__version__ = "0.1.0"
