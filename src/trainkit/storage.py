"""The only module that writes durably: whole files that replace old ones at once, and logs that only grow.

All of it goes through `os.open`, `os.write`, `os.ftruncate`, `os.fsync`, `os.replace`, `os.rename`, `os.unlink` and
`os.symlink`, so that a test can kill or fail each call in turn. Nothing is written through a symbolic link.

What may be a stranger's is read here too: regular files only, and no more of them than the caller takes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainkit.errors import ConfigError, ResourceError

MAX_SMALL = 1_000_000  # bytes of a status, a config and the like: what is larger was not written by a run
MAX_LINE = 100_000_000  # bytes of a line of a log; of trainkit's own logs a line has thousands
_NO_OTHER = os.O_NOFOLLOW | os.O_NONBLOCK  # no link, no pipe that would wait for its reader
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
        with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_OTHER) as descriptor:
            before = os.fstat(descriptor).st_size
            try:
                _write(descriptor, content)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
    except OSError as error:
        raise cannot_write(path, error, len(content)) from error


def make_folder(path: Path) -> None:
    """Make a folder inside of a run folder, if it is not there yet. Raises ResourceError, for a link to one too."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    if path.is_symlink():
        raise ResourceError(f"{path} is a link; a run writes into its own folder only: remove it")


def refuse_strange(folder: Path) -> None:
    """Raise ResourceError when a run folder holds a link, a pipe or a device: to write there would lead out of it.

    What the folders in it hold is not looked at: nothing there is written to, it is replaced.
    """
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                    what = "a link" if entry.is_symlink() else "neither file nor folder"
                    raise ResourceError(f"{entry.path} is {what}; a run writes into its own folder only: remove it")
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResourceError(f"{folder} cannot be read ({error.strerror})") from error


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to be read. Raises OSError, for a device too, and a pipe, which would keep the reader waiting."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path.open("rb")


def read_regular(path: Path, limit: int = MAX_SMALL) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises OSError for any other."""
    with open_regular(path) as file:
        content = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)  # room is made for all that is asked for
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
    return content


def copy(source: Path, path: Path, length: int) -> None:
    """Make `path` hold the first `length` bytes of a regular file.

    Raises OSError for a source that cannot be read or is shorter, ResourceError as `replacing` does.
    """
    with open_regular(source) as file:
        if os.fstat(file.fileno()).st_size < length:
            raise OSError(errno.EINVAL, f"shorter than the {length:,} bytes that were written", str(source))
        with replacing(path, length) as copied:
            while length > 0:
                length -= copied.write(file.read(min(length, 1 << 20)))


def read_text(path: Path, limit: int = MAX_SMALL) -> str:
    """`read_regular` as text. Raises OSError, and ValueError for what is not UTF-8."""
    return read_regular(path, limit).decode("utf-8")


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a log, each with its end. Raises OSError for no regular file, and for a line without an end."""
    with open_regular(path) as file:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise OSError(errno.EFBIG, f"a line of more than {MAX_LINE:,} bytes", str(path))
            yield line


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
            with _opened(path, os.O_WRONLY | _NO_OTHER) as descriptor:
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
    reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or error
    return ResourceError(f"cannot write {path} ({reason}{room})")


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
