"""Decoded images, kept between runs in the user's cache folder and mapped into memory.

    $TRAINKIT_CACHE, else $XDG_CACHE_HOME/trainkit, else ~/.cache/trainkit
        decoded/<key>.images/  images.u8   uint8 (N, C, H, W)
                               moments.i64 int64 (N, C, 2): per image and channel, sum of pixels and of their squares
                               index.json  format, key, sizes, digests, files that could not be decoded
        decoded/<key>.facts/   the same without images.u8, for data that is streamed
        decoded/.draft-*/      an entry being built, locked by its builder

An entry is a draft that was renamed when whole, so builders cannot meet, and the draft of a dead one is known by its
free lock. Nothing is believed: every byte that is used is compared with its digest first, on every run (0.1 s for
184 MB on two cores), and what does not fit is built again. A cache that cannot be written is done without. It holds
at most $TRAINKIT_CACHE_GB (20) and never takes more than half of the free disk; the longest unused entries go first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit import storage
from trainkit.data.images.decode import Bad, mapped
from trainkit.data.images.decoders import Rows, in_memory
from trainkit.errors import ConfigError, TrainkitError
from trainkit.machine import num_cpus, user_cache

_FORMAT = 1
_BLOCK = 8 << 20  # bytes that are digested at a time
_CAP_GB = 20.0

Fill = Callable[["Rows | None", Rows], list[Bad]]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked of the cache: decoded images (or, with `images` False, only facts) of `count` files."""

    key: str
    count: int
    shape: tuple[int, int, int]
    images: bool

    @property
    def files(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of each array, by file."""
        arrays: dict[str, tuple[tuple[int, ...], str]] = {"moments.i64": ((self.count, self.shape[0], 2), "int64")}
        if self.images:
            arrays["images.u8"] = ((self.count, *self.shape), "uint8")
        return arrays

    @property
    def nbytes(self) -> int:
        return sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in self.files.values())

    @property
    def names(self) -> list[str]:
        """The entries that can serve, the one to be built first."""
        return [f"{self.key}.images"] if self.images else [f"{self.key}.facts", f"{self.key}.images"]


@dataclasses.dataclass(frozen=True)
class Entry:
    """images: uint8 (N, C, H, W) or None; moments: int64 (N, C, 2); bad: the rows that hold nothing. Private copies."""

    images: NDArray[np.uint8] | None
    moments: NDArray[np.int64]
    bad: list[Bad]


def cache_folder() -> Path:
    """Where trainkit keeps what it can make again."""
    if folder := os.environ.get("TRAINKIT_CACHE"):
        return Path(folder).absolute()
    return user_cache()


def fetch(wanted: Wanted, fill: Fill, notes: list[str]) -> Entry:
    """The entry of the cache, or a new one made by `fill(images, moments)`, which returns the files it could not read.

    Raises what `fill` raises, and ResourceError when the images fit neither the disk nor the memory. What the user
    should know of the cache (damaged, not written, entries evicted) is added to `notes`.
    """
    root = cache_folder() / "decoded"
    for name in wanted.names:
        if (root / name).exists():
            try:
                return _read(root / name, wanted)
            except (OSError, ValueError, KeyError, TypeError) as error:
                notes.append(f"the cached images {root / name} were damaged ({_reason(error)}) and are made again")
                _discard(root / name)
    draft = _begin(root, wanted, notes)
    try:
        rows = draft.rows if draft else _allocate(wanted)
        images, moments = rows.get("images.u8"), rows["moments.i64"]
        bad = fill(images, moments)
        entry = Entry(images.private() if images else None, moments.private(), bad)
        if draft and all(failure.lasting for failure in bad):
            _finish(draft, root, wanted, bad, notes)
    finally:
        if draft:
            draft.discard()
    return entry


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _allocate(wanted: Wanted, folder: Path | None = None) -> dict[str, Rows]:
    """Room for the arrays: files in `folder`, else memory. Raises OSError when there is not enough on the disk."""
    if folder is None:
        advice = "choose a smaller dataset.image_size, or loader=streaming"
        return {name: in_memory(*facts, advice) for name, facts in wanted.files.items()}
    return {name: Rows(*facts, folder / name) for name, facts in wanted.files.items()}


def _read(path: Path, wanted: Wanted) -> Entry:
    """Map an entry. Raises OSError, ValueError, KeyError or TypeError when it is not exactly what was written once."""
    index = json.loads((path / "index.json").read_text(encoding="utf-8"))
    content = index["content"]
    if index["digest"] != _digest_of(content):
        raise ValueError("index.json does not fit its digest")
    if (content["format"], content["key"]) != (_FORMAT, wanted.key):
        raise ValueError("it is of other data")
    arrays = {}
    for name, (shape, kind) in wanted.files.items():
        size = math.prod(shape) * np.dtype(kind).itemsize
        with open(path / name, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise ValueError(f"{name} has {os.fstat(file.fileno()).st_size:,} bytes instead of {size:,}")
            arrays[name] = mapped(file.fileno(), shape, kind, private=True)
        if _digests(arrays[name]) != content["files"][name]:
            raise ValueError(f"{name} does not fit its digest")
    with contextlib.suppress(OSError):  # a cache that may only be read serves too
        os.utime(path / "index.json")
    return Entry(arrays.get("images.u8"), arrays["moments.i64"], [Bad(*bad) for bad in content["bad"]])


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digests(array: NDArray[Any]) -> list[str]:
    """SHA-256 of each block of an array, by all processors."""
    data = array.reshape(-1).view(np.uint8)
    with ThreadPoolExecutor(num_cpus()) as pool:
        blocks = (data[start : start + _BLOCK] for start in range(0, len(data), _BLOCK))
        return list(pool.map(lambda block: hashlib.sha256(block).hexdigest(), blocks))


class _Draft:
    """An entry being built: its folder, its lock (freed by the kernel when the builder dies), its arrays."""

    def __init__(self, root: Path) -> None:
        self.path = root / f".draft-{os.getpid()}-{secrets.token_hex(4)}"
        self.path.mkdir()
        self.lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.rows: dict[str, Rows] = {}

    def discard(self) -> None:
        """Remove what has not been published; the arrays already mapped stay."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def _begin(root: Path, wanted: Wanted, notes: list[str]) -> _Draft | None:
    """A draft with room for the arrays; None, and a note, where the cache cannot take them."""
    draft = None
    try:
        cap = cap_bytes()
        if wanted.nbytes > cap:
            raise OSError(f"{wanted.nbytes:,} bytes are more than $TRAINKIT_CACHE_GB allows, {cap:,}")
        # a folder that the user has named may be meant for others too; then the umask decides
        root.mkdir(0o777 if os.environ.get("TRAINKIT_CACHE") else 0o700, parents=True, exist_ok=True)
        with _locked(root):  # so that nobody takes the new draft for a dead one before it is locked
            _sweep(root)
            draft = _Draft(root)
        disk = os.statvfs(root)
        if wanted.nbytes > disk.f_bavail * disk.f_frsize // 2:
            raise OSError(f"{wanted.nbytes:,} bytes are more than half of the free disk")
        draft.rows = _allocate(wanted, draft.path)
    except OSError as error:
        if draft is not None:
            draft.discard()
        notes.append(f"decoded images are not cached in {root}: {_reason(error)}")
        return None
    return draft


def cap_bytes() -> int:
    """How much the cache may hold. Raises ConfigError when $TRAINKIT_CACHE_GB is not a number."""
    text = os.environ.get("TRAINKIT_CACHE_GB", "")
    try:
        gigabytes = float(text) if text else _CAP_GB
        return int(max(gigabytes, 0) * 1e9)
    except (ValueError, OverflowError):
        raise ConfigError(f"TRAINKIT_CACHE_GB={text}: expected a number of gigabytes") from None


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    descriptor = os.open(root / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(root: Path) -> None:
    """Remove the drafts of builders that have died."""
    for path in root.glob(".draft-*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)


def _finish(draft: _Draft, root: Path, wanted: Wanted, bad: list[Bad], notes: list[str]) -> None:
    """Make an entry of the draft. A cache that cannot take it, or has one by now, is no failure."""
    digests = {name: _digests(rows.array) for name, rows in draft.rows.items()}
    content = {"format": _FORMAT, "key": wanted.key, "bad": bad, "files": digests}
    try:
        storage.replace_json(draft.path / "index.json", {"digest": _digest_of(content), "content": content})
        with _locked(root):
            if not (root / wanted.names[0]).exists():
                (draft.path / "lock").unlink()
                storage.publish(draft.path, root / wanted.names[0])
            evicted = _evict(root, wanted.names[0])
    except (OSError, TrainkitError) as error:
        notes.append(f"decoded images are not cached in {root}: {_reason(error)}")
        return
    if evicted:
        cap = f"{cap_bytes() / 1e9:g} GB, $TRAINKIT_CACHE_GB"
        notes.append(f"the cache of decoded images {root} is full ({cap}): {evicted} older entries removed")


def _evict(root: Path, keep: str) -> int:
    """Remove the longest unused entries until the rest is small enough; returns how many went."""
    entries = [path for path in root.iterdir() if path.suffix in (".images", ".facts")]
    sizes = {path: sum(file.stat().st_size for file in path.iterdir()) for path in entries}
    used = {path: (path / "index.json").stat().st_mtime_ns if (path / "index.json").exists() else 0 for path in entries}
    evicted = 0
    for path in sorted(entries, key=lambda path: used[path]):
        if sum(sizes.values()) > cap_bytes() and path.name != keep:
            _discard(path)
            del sizes[path]
            evicted += 1
    return evicted


def _discard(path: Path) -> None:
    """Remove an entry at once for everybody; whoever has it mapped keeps it."""
    grave = path.with_name(f".draft-{os.getpid()}-{secrets.token_hex(4)}")
    with contextlib.suppress(OSError):
        path.rename(grave)
        if grave.is_dir():
            shutil.rmtree(grave, ignore_errors=True)
        else:
            grave.unlink()
