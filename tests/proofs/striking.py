"""The n-th call that writes is the last, fails, or writes a part only: everything durable goes through these calls."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CALLS = ("open", "write", "fsync", "ftruncate", "close", "replace", "rename", "symlink", "unlink", "mkdir")
DEATHS = ("before", "within", "after")  # of a SIGKILL; within a write, half of it is done
ERRORS = ("ENOSPC", "EIO", "EINTR", "short", "full")  # short: writes half; full: ENOSPC from this call on
Call = Callable[..., Any]
_FOR_GOOD = contextlib.ExitStack()  # what lasts until the process ends
Act = Callable[[str, Call, tuple[Any, ...], dict[str, Any]], Any]


@contextlib.contextmanager
def intercepted(act: Act) -> Iterator[None]:
    """Have `act(name, call, arguments, options)` made instead of every call of CALLS, in this process."""
    real = {name: getattr(os, name) for name in CALLS}

    def instead(name: str) -> Call:
        return lambda *arguments, **options: act(name, real[name], arguments, options)

    for name in CALLS:
        setattr(os, name, instead(name))
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


class Fault:
    """Strikes at the n-th call (from 0) that concerns what lies under `folder`. `calls`: all of them by name."""

    def __init__(self, folder: Path, number: int, kind: str) -> None:
        self.calls: list[str] = []
        self._folder = str(folder)
        self._number = number
        self._kind = kind
        self._descriptors: set[int] = set()

    def __call__(self, name: str, call: Call, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self._concerns(name, arguments):
            return call(*arguments, **options)
        number = len(self.calls)
        self.calls.append(name)
        struck = number == self._number or (self._kind == "full" and number > self._number)
        try:
            result = self._strike(name, call, arguments, options) if struck else call(*arguments, **options)
        finally:
            if name == "close":
                self._descriptors.discard(arguments[0])
        if name == "open":
            self._descriptors.add(result)
        return result

    def _concerns(self, name: str, arguments: tuple[Any, ...]) -> bool:
        if name in ("write", "fsync", "ftruncate", "close"):
            return arguments[0] in self._descriptors
        return os.path.abspath(arguments[1 if name == "symlink" else 0]).startswith(self._folder)

    def _strike(self, name: str, call: Call, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if self._kind in DEATHS:
            if name == "write" and self._kind == "within":
                call(arguments[0], _half(arguments[1]))
            elif self._kind == "after":
                with contextlib.suppress(OSError):  # such as mkdir of a folder whose parent is not there yet
                    call(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind == "short":
            return call(arguments[0], _half(arguments[1])) if name == "write" else call(*arguments, **options)
        if self._kind == "full" and name not in ("open", "write", "fsync", "mkdir", "symlink"):
            return call(*arguments, **options)  # a full disk still renames and deletes
        if name == "close":
            call(*arguments, **options)  # the descriptor is gone even if closing it reports an error
        number = getattr(errno, "ENOSPC" if self._kind == "full" else self._kind)
        raise OSError(number, os.strerror(number))


def _half(content: Any) -> Any:
    return content[: max(len(content) // 2, 1)]


def strike(folder: str, number: int, kind: str) -> None:
    """A hook for the nursery: the fault strikes in the command that follows."""
    _FOR_GOOD.enter_context(intercepted(Fault(Path(folder), number, kind)))
