"""The only module that writes durably: whole files that replace old ones at once, and logs that only grow.

All of it goes through `os.open`, `os.write`, `os.ftruncate`, `os.fsync`, `os.replace`, `os.rename`, `os.unlink` and
`os.symlink`, so that a test can kill or fail each call in turn.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainkit.errors import ConfigError, ResourceError

_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]{6}\.tmp")


def replace(path: Path, content: bytes) -> None:
    """Make `path` hold `content`, as `replacing` does. Raises ResourceError (the old content stays)."""
    with replacing(path, len(content)) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[io.RawIOBase]:
    """A file to write, which becomes `path`: after a crash at any instant that holds the old content or the new.

    It is a temporary file beside `path`; at the end it is flushed to the disk, renamed over `path`, and the folder is
    flushed. When the block is left by an exception it is removed. size: the bytes to come, where known, for the
    message. Raises ResourceError when any of it fails; the old content then stays, unless all that failed was the
    last flush.
    """
    temporary = _beside(path)
    try:
        with _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            yield _Draft(descriptor)
            os.fsync(descriptor)
        os.replace(temporary, path)
        _sync(path.parent)  # without this a power cut can undo the rename, though never tear the file
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise cannot_write(path, error, size) from error
        raise


def replace_json(path: Path, value: Any) -> None:
    """`replace` with indented JSON. Values that JSON cannot hold (not-a-number) raise ValueError."""
    replace(path, (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def append(path: Path, line: str) -> None:
    """Add one line to a text file. Raises ResourceError, and takes back what was written of the line, when it fails."""
    content = (line + "\n").encode()
    try:
        with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as descriptor:
            before = os.fstat(descriptor).st_size
            try:
                _write(descriptor, content)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
    except OSError as error:
        raise cannot_write(path, error, len(content)) from error


def size(path: Path) -> int:
    """Bytes of a log; 0 when it is not there yet."""
    return path.stat().st_size if path.exists() else 0


def flush(path: Path) -> None:
    """Have the disk hold all lines of a log, or all names in a folder. Raises ResourceError when it fails."""
    try:
        if path.exists():
            _sync(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def truncate(path: Path, length: int) -> int:
    """Cut a log back to its first `length` bytes, or to the whole lines among them when some are lost.

    Returns how many bytes it then has. Raises ResourceError when it fails.
    """
    try:
        kept = whole_lines(path, length)
        if size(path) > kept:
            with _opened(path, os.O_WRONLY) as descriptor:
                os.ftruncate(descriptor, kept)
                os.fsync(descriptor)
    except OSError as error:
        raise cannot_write(path, error) from error
    return kept


def whole_lines(path: Path, length: int) -> int:
    """Where the last line ends that is whole within the first `length` bytes of a log; 0 when it is not there."""
    if not length or not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(length - 1)
        if file.read(1) == b"\n":
            return length
        file.seek(0)
        return file.read(length).rfind(b"\n") + 1


def point(link: Path, target: str) -> None:
    """Make `link` a symbolic link to the file `target` beside it; where links are not to be had, do nothing."""
    temporary = _beside(link)
    try:
        os.symlink(target, temporary)
        os.replace(temporary, link)
    except OSError:
        remove(temporary)


def remove(path: Path) -> None:
    """Delete a file that is not needed; one that cannot be deleted stays."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def remove_temporaries(folder: Path) -> None:
    """Delete what `replace` left in a folder when the process was killed. Only the folder's owner may call this."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _TEMPORARY.fullmatch(path.name):
            remove(path)


def publish(draft: Path, final: Path) -> None:
    """Give a folder of finished files its final name: after a crash `final` is missing or whole.

    Raises OSError, and leaves the draft, when the disk fails or `final` is there already.
    """
    for path in (*draft.iterdir(), draft):
        _sync(path)
    os.rename(draft, final)
    _sync(final.parent)


def check_output(path: Path, overwrite: bool) -> None:
    """Raise ConfigError unless a command may write its output there, before it has done any work."""
    if not path.parent.is_dir():
        raise ConfigError(f"output={path}: there is no folder {path.parent}; make it first")
    if path.exists() and not path.is_file():
        raise ConfigError(f"output={path}: it is not a regular file; name another one")
    if path.exists() and not overwrite:
        raise ConfigError(f"output={path}: it exists; name another file, or add overwrite=true")


def format_of(path: Path, chosen: str | None, suffixes: dict[str, str]) -> str:
    """The format chosen, else that of the file's suffix. Raises ConfigError where there is none."""
    kind = chosen or suffixes.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(suffixes)
        raise ConfigError(f"output={path.name}: no format has this suffix ({known}); rename it or add format=…")
    return kind


def cannot_write(path: Path, error: OSError, size: int = 0) -> ResourceError:
    """The one line for a failed write, with the bytes needed (if known) and free where a full disk is the reason."""
    room = ""
    with contextlib.suppress(OSError):
        stats = os.statvfs(path.parent)
        needed = f"{size:,} bytes to write, " if size else ""
        room = f"; {needed}{stats.f_bavail * stats.f_frsize:,} free"
    return ResourceError(f"cannot write {path} ({error.strerror or error}{room})")


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise
    os.close(descriptor)  # some file systems report a full disk only here


def _write(descriptor: int, content: bytes) -> None:
    """All of it: `os.write` may write less than it was given, on a nearly full disk for one."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class _Draft(io.RawIOBase):
    """An open file as what `replacing` gives out: it can be written to, and says how far."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        _write(self.descriptor, content)
        return len(content)

    def tell(self) -> int:
        return os.lseek(self.descriptor, 0, os.SEEK_CUR)


def _sync(path: Path) -> None:
    """Have the disk hold what was written into a file, or the names in a folder."""
    with _opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)
