"""Downloads through torchvision that leave either the whole file in its place or nothing, and one line on failure."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from trainkit.errors import DataError

_TIMEOUT = 30.0  # seconds without a byte, after which a server counts as gone
_ARCHIVES = (".gz", ".tgz", ".zip")  # unpacked by torchvision; only their contents are kept
_FAILURES = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    ImportError,
    zlib.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    http.client.HTTPException,
)


def download(dataset: str, fetch: Callable[[Path], object], data_dir: Path, by_hand: str) -> None:
    """Let `fetch(folder)` download and unpack into a fresh folder, then move the files to the same place in `data_dir`.

    by_hand: the URLs and the folder, as what to do without a network. Raises DataError with it when anything fails.
    Two processes may do this at once: each file is replaced whole, by the same content.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data_dir) as scratch:
            with _careful_network():
                fetch(Path(scratch))
            _move(Path(scratch), data_dir)
    except _FAILURES as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"dataset {dataset}: there is no intact copy in {data_dir}, and the download failed ({reason}); {by_hand}"
        ) from error


@contextlib.contextmanager
def _careful_network() -> Iterator[None]:
    # torchvision sets no timeout and prints progress; stdout is for the program's own output.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _move(source: Path, target: Path) -> None:
    for folder, _, files in os.walk(source):
        for name in files:
            if not name.endswith(_ARCHIVES):
                place = target / Path(folder).relative_to(source) / name
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(Path(folder) / name, place)
