"""The flags of a verb, in any order between its other words. What is wrong is said as everywhere else, in one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from trainkit.errors import ConfigError, nearest


class FlagParser(argparse.ArgumentParser):
    """argparse without its usage text and its way out of the process; `-h` and `--help` are `cli.py`'s."""

    def __init__(self, verb: str) -> None:
        super().__init__(add_help=False, allow_abbrev=False)
        self.verb = verb

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the verb. Raises ConfigError, for an unknown flag with the nearest known one."""
        return self.parse_intermixed_args(list(argv))

    @property
    def known(self) -> list[str]:
        """All flags, short and long."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as ConfigError."""
        if message.startswith("unrecognized arguments: "):
            word = message.partition(": ")[2].split()[0]
            what = "flag" if word.startswith("-") else "argument"
            close = nearest(word, self.known)
            hint = f"did you mean {close}?" if close else f"see trainkit {self.verb} --help"
            message = f"unknown {what} '{word}' ({hint})"
        raise ConfigError(f"{self.verb}: {message}")
