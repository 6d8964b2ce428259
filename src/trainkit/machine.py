"""What of the machine this process may use: processors and memory, within limits of containers; data and cache."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from trainkit.errors import ResourceError


def user_cache() -> Path:
    """The user's folder for what can be made again: `$XDG_CACHE_HOME/trainkit`, else `~/.cache/trainkit`.

    A user without a home folder has one in $TMPDIR. Others can write there, so ResourceError unless it is theirs alone.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if not cache.startswith("~"):
        return Path(cache, "trainkit").absolute()
    folder = Path(tempfile.gettempdir(), f"trainkit-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise ResourceError(f"no home folder, and {folder} cannot be made ({error.strerror}); set HOME") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ResourceError(f"no home folder, and {folder} is not this user's alone; set HOME")
    return folder


def num_cpus() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_host_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take: what the system has available, within the limits of its containers."""
    free = [_available(proc)]
    with contextlib.suppress(OSError):
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
        for line in lines:
            _, controllers, path = line.split(":", 2)
            version2 = controllers == ""
            if not version2 and "memory" not in controllers.split(","):
                continue
            top = groups if version2 else groups / "memory"
            place = top / path.lstrip("/")
            for folder in (place, *place.parents):
                free += _left(folder, version2)
                if folder == top:
                    break
    return max(min(free), 0)


def _available(proc: Path) -> int:
    with contextlib.suppress(OSError):
        for line in (proc / "meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no Linux: what there is


def _left(group: Path, version2: bool) -> list[int]:
    """What a control group still allows, with its page cache counted as free; nothing where it sets no limit."""
    names = ("memory.max", "memory.current") if version2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        limit, used = ((group / name).read_text(encoding="utf-8").strip() for name in names)
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines())
    except OSError:
        return []
    if limit == "max":
        return []
    return [int(limit) - int(used) + int(stat.get("inactive_file", 0)) + int(stat.get("active_file", 0))]


def default_data_dir() -> Path:
    """Where downloads are kept when `data_dir` is null: `$TRAINKIT_DATA`, or a folder of the user's cache."""
    if folder := os.environ.get("TRAINKIT_DATA"):
        return Path(folder).absolute()
    return user_cache() / "data"
