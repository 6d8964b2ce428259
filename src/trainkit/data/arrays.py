"""The arrays of an .npz file, whoever wrote it: no pickle, and no more of them than the file holds."""

from __future__ import annotations

import collections
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import storage
from trainkit.errors import ResourceError

# What zipfile and NumPy, which parses a header as Python's literals, raise for a file that is not whole.
DAMAGE = (
    *(ValueError, EOFError, LookupError, RuntimeError, OverflowError, MemoryError, SyntaxError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_LONGEST = 120  # characters of a reason: NumPy repeats the whole header


def read_arrays(path: Path, limit: int) -> dict[str, NDArray[Any]]:
    """All arrays of a file by name, at most `limit` bytes of them.

    Raises OSError for what is no regular file, ValueError with the reason in one line for what is no whole .npz file,
    and ResourceError before it unpacks more than the limit.
    """
    with storage.open_regular(path) as file:
        try:
            if file.read(6) == b"\x93NUMPY":
                raise ValueError("a single array, not an .npz; save it with np.savez(file, x=…, y=…)")
            with zipfile.ZipFile(file) as archive:
                needed = sum(member.file_size for member in archive.infolist())
                if needed > limit:  # gigabytes of zeros can be packed into megabytes
                    raise ResourceError(f"{path}: unpacks to {needed:,} bytes, and {limit:,} of memory may be taken")
                return {name: read_array(archive, name) for name in names(archive)}
        except DAMAGE as error:
            raise ValueError(reason(error)) from error


def names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays. Raises ValueError when a member is no array, or a name stands twice."""
    members = archive.namelist()
    strange = [name for name in members if not name.endswith(".npy")]
    twice = [name for name, count in collections.Counter(members).items() if count > 1]
    if strange or twice:
        raise ValueError(f"'{strange[0]}' in it is no array" if strange else f"it holds '{twice[0]}' twice")
    return [name.removesuffix(".npy") for name in members]


def read_header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of the array in a member of `size` bytes, which it reads up to there.

    Raises ValueError, also for Python objects, and for more elements than there are bytes.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"records in {file.name}; save numbers")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError(f"Python objects in {file.name}; save numbers or text, not objects")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{file.name} says that it is {shape}, which is more than it holds")
    return shape, fortran, dtype


def read_array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One of the arrays. Raises ValueError as `read_header` does."""
    member = f"{name}.npy"
    size = archive.getinfo(member).file_size
    with archive.open(member) as file:
        read_header(file, size)
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def reason(error: BaseException) -> str:
    """Why a file cannot be read, in one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
