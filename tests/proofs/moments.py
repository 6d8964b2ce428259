"""Hooks for the nursery that send the process a signal at a moment of its own choosing. See test_kills.py."""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from trainkit import loop, storage
from trainkit.checkpoints import record


def send(name: str, moment: str) -> None:
    """Send the signal in the 11th training step, in the second evaluation, or within the second save."""
    module, function, call = {
        "train": (loop, "forward_backward", 11),
        "eval": (loop, "evaluate", 2),
        "save": (record, "write", 2),
    }[moment]
    at_call(module, function, call, lambda: os.kill(os.getpid(), signal.Signals[name]))


def send_twice(name: str) -> None:
    """Send it in the 11th training step, and once more while the run is saved because of it."""
    signum = signal.Signals[name]

    def arm() -> None:
        at_call(storage, "replace", 1, lambda: os.kill(os.getpid(), signum))
        os.kill(os.getpid(), signum)

    at_call(loop, "forward_backward", 11, arm)


def ignore(name: str) -> None:
    """Begin as a process begins whose parent ignores the signal, which is sent all the same."""
    signal.signal(signal.Signals[name], signal.SIG_IGN)
    send(name, "train")


def at_call(module: Any, name: str, number: int, act: Callable[[], object]) -> None:
    """Act when the function is called for the n-th time, before what it does."""
    function = getattr(module, name)
    calls = 0

    @functools.wraps(function)
    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return function(*arguments, **options)

    setattr(module, name, counted)
