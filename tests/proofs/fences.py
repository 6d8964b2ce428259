"""Limits for a command that may hang or take all memory."""

from __future__ import annotations

import re
import resource
import signal
from pathlib import Path


def fence(seconds: int, megabytes: int) -> None:
    """A hook for the nursery: SIGALRM ends the command after so long; it gets so much more memory, and no more."""
    signal.alarm(seconds)
    (pages,) = re.findall(r"^VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.M)
    most = int(pages) * 1024 + megabytes * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
