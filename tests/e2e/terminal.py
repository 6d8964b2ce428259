"""A real terminal for a command: a pty of some width, and what a person would see on it, by the emulator pyte."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import pyte

ERASE = b"\r\x1b[K"  # what the live view begins with whenever it changes something


def size(descriptor: int, columns: int, rows: int) -> None:
    """Set the size of a terminal."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def row(screen: pyte.Screen) -> str:
    """The line that the cursor is in."""
    return "".join(screen.buffer[screen.cursor.y][x].data for x in range(screen.columns)).rstrip()


class HangUp(OSError):
    """Raised by who watches a terminal, to close it."""


class Recording:
    """The bytes that a terminal of a width was sent."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.sent = b""

    def screens(self, columns: int | None = None, rows: int = 120) -> Iterator[pyte.Screen]:
        """The screen (always the same object) after each change of the live view; at least once, at the end."""
        screen = pyte.Screen(columns or self.columns, rows)
        stream = pyte.ByteStream(screen)
        for number, piece in enumerate(self.sent.split(ERASE)):
            stream.feed((ERASE if number else b"") + piece)
            yield screen

    def last(self) -> pyte.Screen:
        """The screen at the end."""
        *_, screen = self.screens()
        return screen

    def lines(self) -> list[str]:
        """The text on the screen at the end."""
        return [line.rstrip() for line in self.last().display[: self.last().cursor.y]]


@contextlib.contextmanager
def terminal(columns: int, watch: Callable[[bytes], None], encoding: str) -> Iterator[tuple[Recording, TextIO]]:
    """A terminal that this process writes to; all of it is read when the context ends.

    watch: is called, in the thread that reads, with what was sent so far.
    """
    master, slave = pty.openpty()
    size(slave, columns, 50)
    recording = Recording(columns)

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: nobody can write any more
            while piece := os.read(master, 1 << 16):
                recording.sent += piece
                watch(recording.sent)
        os.close(master)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(slave, "w", encoding=encoding, buffering=1) as stream:
            yield recording, stream
    finally:
        reader.join()


def record(command: Sequence[str], columns: int, rows: int, cwd: Path, env: dict[str, str]) -> tuple[int, Recording]:
    """Run a command in a process whose stdout and stderr are a terminal; returns its exit code and what it sent."""
    master, slave = pty.openpty()
    size(slave, columns, rows)
    recording = Recording(columns)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, cwd=cwd, env=env) as process:
        os.close(slave)
        with contextlib.suppress(OSError):  # EIO: the process has ended
            while piece := os.read(master, 1 << 16):
                recording.sent += piece
    os.close(master)
    return process.returncode, recording
