"""The version of trainkit, which imports nothing."""

__version__ = "0.1.0"
