"""The device a run computes on, with every flag that belongs to it set explicitly.

Each builder sets all flags both ways, so that the jobs of a sweep in one process cannot inherit from each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError
from trainkit.registry import register
from trainkit.schema import Count, NonNegativeInt

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


@dataclasses.dataclass(frozen=True)
class Cudnn:
    """torch.backends.cudnn's flags, with torch's own defaults."""

    enabled: bool = True
    benchmark: bool = False
    deterministic: bool = False
    allow_tf32: bool = True


@register("device")
def auto(
    *, index: NonNegativeInt = 0, threads: Count | None = None, deterministic: bool = False, cudnn: Cudnn = Cudnn()
) -> torch.device:
    """CUDA when there is one, else the CPU."""
    import torch

    if torch.cuda.is_available():
        return cuda(index=index, threads=threads, deterministic=deterministic, cudnn=cudnn)
    return cpu(threads=threads, deterministic=deterministic, cudnn=cudnn)


@register("device")
def cpu(*, threads: Count | None = None, deterministic: bool = False, cudnn: Cudnn = Cudnn()) -> torch.device:
    """The CPU. The cuDNN flags are set too, and have no effect."""
    import torch

    set_flags(threads, deterministic, cudnn)
    keep_freed_memory()
    return torch.device("cpu")


@register("device")
def cuda(
    *, index: NonNegativeInt = 0, threads: Count | None = None, deterministic: bool = False, cudnn: Cudnn = Cudnn()
) -> torch.device:
    """A CUDA GPU. Raises ConfigError when there is none, or none of that index."""
    import torch

    if not torch.cuda.is_available():
        reason = "is built for the CPU only" if torch.version.cuda is None else "sees none"
        here = f"no CUDA device here (torch {torch.__version__} {reason})"
        raise ConfigError(f"device=cuda: there is {here}; use device=cpu or device=auto")
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device.index={index}: there are {torch.cuda.device_count()} CUDA devices, numbered from 0")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    set_flags(threads, deterministic, cudnn)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def set_flags(threads: int | None, deterministic: bool, cudnn: Cudnn) -> None:
    """Set the process-wide flags of torch to exactly these values."""
    import torch

    default = _default_threads()  # before the first job sets another number
    torch.set_num_threads(default if threads is None else threads)
    if torch.are_deterministic_algorithms_enabled() != deterministic:  # the call imports torch._inductor: 1.5 s
        torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.enabled = cudnn.enabled
    torch.backends.cudnn.benchmark = cudnn.benchmark
    torch.backends.cudnn.deterministic = cudnn.deterministic
    torch.backends.cudnn.allow_tf32 = cudnn.allow_tf32


@functools.cache
def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step instead of giving it back to the system in each.

    A step frees its activations and asks for the same sizes again. glibc returns them to the kernel, which must fill
    every page with zeros anew: 14 % of a step of a small CNN at batch size 128, half of it at 512. Blocks over 1 GiB
    still go back. No number changes. Other C libraries have no `mallopt`, and nothing is done.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@functools.cache
def _default_threads() -> int:
    """What torch chose at the start of this process: read once, and kept."""
    import torch

    return torch.get_num_threads()


@functools.cache
def _code_digest() -> str:
    """SHA-256 of trainkit's own modules, so that two runs of one version but other code can be told apart."""
    root = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return found.hexdigest()


@functools.cache
def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device) -> dict[str, Any]:
    """What can change the bits of a result, read back from torch rather than from the config."""
    import numpy
    import torch

    from trainkit.version import __version__

    on_cuda = device.type == "cuda"
    return {
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if on_cuda else _cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": {
            "version": torch.backends.cudnn.version() if on_cuda else None,  # type: ignore[no-untyped-call]
            "enabled": torch.backends.cudnn.enabled,
            "benchmark": torch.backends.cudnn.benchmark,
            "deterministic": torch.backends.cudnn.deterministic,
            "allow_tf32": torch.backends.cudnn.allow_tf32,
        },
        "code": _code_digest(),
        "versions": {
            "trainkit": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "cuda": torch.version.cuda if on_cuda else None,
        },
        "platform": platform.platform(),
        "executable": sys.executable,
    }
