"""The only module that writes durably: whole files that replace old ones at once, and logs that only grow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from trainkit.errors import ResourceError


def replace(path: Path, content: bytes) -> None:
    """Make `path` hold `content`: after a crash at any instant it holds the old content or the new, never a part.

    Writes a temporary file beside it, flushes it to the disk, renames it over `path`, and flushes the folder.
    Raises ResourceError (the old content stays) when any of it fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync(path.parent)  # without this a power cut can undo the rename, though never tear the file
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, error, len(content)) from error


def replace_json(path: Path, value: Any) -> None:
    """`replace` with indented JSON. Values that JSON cannot hold (not-a-number) raise ValueError."""
    replace(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def append(path: Path, line: str) -> None:
    """Add one line to a text file in one write."""
    try:
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(line + "\n")
    except OSError as error:
        raise cannot_write(path, error, len(line)) from error


def publish(draft: Path, final: Path) -> None:
    """Give a folder of finished files its final name: after a crash `final` is missing or whole.

    Raises OSError, and leaves the draft, when the disk fails or `final` is there already.
    """
    for path in (*draft.iterdir(), draft):
        _sync(path)
    os.rename(draft, final)
    _sync(final.parent)


def cannot_write(path: Path, error: OSError, size: int = 0) -> ResourceError:
    """The one line for a failed write, with the bytes needed and free where a full disk is the reason."""
    room = ""
    with contextlib.suppress(OSError):
        stats = os.statvfs(path.parent)
        room = f"; {size:,} bytes to write, {stats.f_bavail * stats.f_frsize:,} free"
    return ResourceError(f"cannot write {path} ({error.strerror or error}{room})")


def _sync(path: Path) -> None:
    """Have the disk hold what was written into a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
