"""The flags of a verb, in any order between its other words. What is wrong is said as everywhere else, in one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from trainkit.errors import ConfigError, nearest


class FlagParser(argparse.ArgumentParser):
    """argparse without its usage text and its way out of the process; `-h` and `--help` are `cli.py`'s."""

    def __init__(self, verb: str, meant: Callable[[str, str], str | None] = lambda flag, value: None) -> None:
        """meant: what an unknown flag with its value may mean, as a hint."""
        super().__init__(add_help=False, allow_abbrev=False)
        self.verb = verb
        self.meant = meant
        self._argv: list[str] = []

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the verb. Raises ConfigError, for an unknown flag with the nearest known one."""
        self._argv = list(argv)
        return self.parse_intermixed_args(self._argv)

    @property
    def known(self) -> list[str]:
        """All flags, short and long."""
        return [option for action in self._actions for option in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found as ConfigError."""
        problems = [message]
        if message.startswith("unrecognized arguments: "):
            words = message.partition(": ")[2].split()
            flags = [word for word in words if word.startswith("-")]
            problems = [self._unknown(word) for word in flags or words[:1]]
        elif choice := re.search(r"(--\S+): invalid choice: '(.*?)'", message):
            hint = self.meant(*choice.groups())
            problems = [f"{message}; {hint}" if hint else message]
        raise ConfigError(*(f"{self.verb}: {problem}" for problem in problems))

    def _unknown(self, word: str) -> str:
        name, _, value = word.partition("=")
        after = self._argv[self._argv.index(word) + 1 :][:1] if word in self._argv else []
        if after and not value and not re.match(r"-\D|[^=]+=", after[0]):
            value = after[0]
        close = nearest(name, self.known)
        hint = self.meant(name, value) if word.startswith("-") else None
        hint = hint or (f"did you mean {close}?" if close else f"see trainkit {self.verb} --help")
        return f"unknown {'flag' if word.startswith('-') else 'argument'} '{word}' ({hint})"
