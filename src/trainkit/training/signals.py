"""Ctrl-C, SIGTERM and SIGHUP: the first one lets the current step finish, the second ends the process at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from trainkit.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a signal asked the run to stop.

    Inside `catching` a signal raises Interrupted where the program stands; inside `deferred` it only leaves a note,
    and `check` raises. After the first signal the handlers of before are back, so that a second one acts at once.
    A signal that the parent had ignored (`nohup`) stays ignored.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._deferred = False
        self._before: dict[int, signal._HANDLER] = {}

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Handle the signals; only the main thread of a process can, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for signum in SIGNALS:
            handler = signal.getsignal(signum)
            if handler is not signal.SIG_IGN and handler is not None:
                self._before[signum] = handler
                signal.signal(signum, self._receive)
        try:
            yield
        finally:
            self._restore()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait for `check`, because what is being done must not be broken off."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise Interrupted if a signal has come."""
        if self.signum is not None:
            raise Interrupted(f"stopped by {signal.Signals(self.signum).name}", self.signum)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        self._restore()
        if not self._deferred:
            self.check()

    def _restore(self) -> None:
        while self._before:
            signum, handler = self._before.popitem()
            signal.signal(signum, handler)
