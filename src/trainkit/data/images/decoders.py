"""Worker processes that decode image files into shared memory.

Processes, because Pillow reads headers in Python code, and threads would take turns. Fresh interpreters, neither
forked (torch's threads and CUDA do not survive a fork) nor of `multiprocessing` (which imports the main script again,
pickles, and needs room in /dev/shm): each takes 0.1 s to start, two open files and no torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.images.decode import Bad, decode_rows, mapped
from trainkit.data.images.fit import Rule
from trainkit.errors import ResourceError
from trainkit.machine import free_host_memory

_PATIENCE = 60.0  # seconds that a worker may take for a job, and
_PATIENCE_A_FILE = 0.5  # so many more for each file of it: a slow network drive is not a hang


class Rows:
    """An array in a file, which other processes can map too: a file of the disk, or one that is only in memory.

    Raises OSError at once when the disk has no room; writing into a mapping would find out too late, by a signal.
    fd: None where not even a file in memory is allowed (ulimit -f): then this process has the array for itself.
    """

    fd: int | None

    def __init__(self, shape: tuple[int, ...], dtype: Any, path: Path | None = None) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.nbytes = math.prod(shape) * self.dtype.itemsize
        self.fd = _open(path)
        weakref.finalize(self, os.close, self.fd)
        try:
            # On a disk the room is taken now; of memory the kernel would hand out all it has, and then kill.
            if path is not None and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.fd, 0, self.nbytes)
            else:
                os.truncate(self.fd, self.nbytes)
        except OSError as error:
            if path is not None or error.errno != errno.EFBIG:
                raise
            self.fd = None
        self.array: NDArray[Any] = mapped(-1 if self.fd is None else self.fd, shape, dtype)

    def private(self) -> NDArray[Any]:
        """The array without a way back into the file."""
        if self.fd is None:
            return self.array
        return mapped(self.fd, self.shape, self.dtype, private=True)


def _open(path: Path | None) -> int:
    if path is not None:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    if hasattr(os, "memfd_create"):
        return os.memfd_create("trainkit")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def in_memory(shape: tuple[int, ...], dtype: Any, advice: str) -> Rows:
    """Rows that no disk holds. Raises ResourceError, ending in `advice`, when the memory is too small."""
    needed, free = math.prod(shape) * np.dtype(dtype).itemsize, free_host_memory()
    what = f"{' x '.join(map(str, shape))} numbers"
    if needed > free:
        raise ResourceError(f"no memory for {what} ({needed:,} bytes, {free:,} free); {advice}")
    try:
        return Rows(shape, dtype)
    except OSError as error:
        raise ResourceError(f"no memory for {what} ({error.strerror}); {advice}") from error


class Decoders:
    """A pool of workers; with `workers` 0 the calling process decodes. Results come in the order of the jobs."""

    def __init__(
        self, workers: int, images: Rows, moments: Rows | None, rule: Rule, patience: float = _PATIENCE
    ) -> None:
        self.images, self.moments, self.rule, self.patience = images, moments, rule, patience
        self._jobs: deque[tuple[int, int, list[str]]] = deque()
        self._sent = self._received = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._wires: list[socket.socket] = []
        self.close = weakref.finalize(self, _stop, self.processes, self._wires)
        if images.fd is not None and (moments is None or moments.fd is not None):
            for _ in range(workers):
                self._start(workers)
        self._lines = [wire.makefile("rb") for wire in self._wires]

    def _start(self, workers: int) -> None:
        setup: dict[str, Any] = {"rule": self.rule, "images": self.images.fd, "image_shape": self.images.shape}
        setup["moments"] = self.moments.fd if self.moments else None
        setup["moments_shape"] = self.moments.shape if self.moments else None
        try:
            ours, theirs = socket.socketpair()
            self._wires.append(ours)
            with theirs:
                setup["socket"] = theirs.fileno()
                passed = [setup[name] for name in ("socket", "images", "moments") if setup[name] is not None]
                environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
                environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
                command = [sys.executable, "-P", "-m", "trainkit.data.images.decode", json.dumps(setup)]
                # A group of its own: Ctrl-C is for the run, which ends its workers by closing their sockets.
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=passed, env=environment, process_group=0
                )
                self.processes.append(process)
        except OSError as error:
            self.close()
            advice = "lower workers, or raise the limit of open files (ulimit -n) or of processes (ulimit -u)"
            raise ResourceError(f"cannot start {workers} decoding workers ({error.strerror}); {advice}") from error

    @property
    def pending(self) -> int:
        """Jobs whose result was not taken yet."""
        return len(self._jobs)

    def submit(self, row: int, at: int, paths: list[str]) -> None:
        """Have files decoded into the images from `row` on, and their sums put into the moments from `at` on."""
        self._jobs.append((row, at, paths))
        if self._wires:
            worker = self._sent % len(self._wires)
            try:
                self._wires[worker].sendall(json.dumps((row, at, paths)).encode() + b"\n")
            except OSError:
                raise self._lost(worker) from None
        self._sent += 1

    def result(self) -> list[Bad]:
        """Wait for the oldest job; returns the files that it could not decode, by their place in the job.

        Raises ResourceError when the worker has died, does not answer, or lacks memory or open files.
        """
        row, at, paths = self._jobs.popleft()
        if self._wires:
            worker = self._received % len(self._wires)
            self._received += 1
            failures, fault = self._answer(worker, len(paths))
            if fault is None:
                return [Bad(*failure) for failure in failures]
        else:
            try:
                sums = None if self.moments is None else self.moments.array[at : at + len(paths)]
                return decode_rows(paths, self.images.array[row : row + len(paths)], sums, self.rule)
            except (MemoryError, OSError) as error:
                fault = getattr(error, "strerror", None) or "out of memory"
        raise ResourceError(f"decoding images: {fault}; lower workers, or raise the limit (ulimit -n for open files)")

    def _answer(self, worker: int, files: int) -> tuple[list[Any], str | None]:
        seconds = self.patience + _PATIENCE_A_FILE * files
        self._wires[worker].settimeout(seconds)
        try:
            line = self._lines[worker].readline()
        except TimeoutError:
            self.close()
            where = "see whether the disk with the images answers, or set workers=0"
            raise ResourceError(f"a decoding worker gave no answer for {seconds:.0f} s; {where}") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise self._lost(worker)
        failures, fault = json.loads(line)
        return failures, fault

    def _lost(self, worker: int) -> ResourceError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.processes[worker].wait(5)
        code = self.processes[worker].returncode
        self.close()
        how = "takes no more work" if code is None else f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        advice = "if memory ran out, lower workers or batch_size"
        return ResourceError(f"a decoding worker {how}; {advice}; the checkpoints hold the last whole epoch")


def _stop(processes: list[subprocess.Popen[bytes]], wires: list[socket.socket]) -> None:
    for wire in wires:
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)  # the files made of a socket keep it open, but not this
        wire.close()
    for process in processes:
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:  # it is stuck in the kernel, or was stopped
            process.kill()
            process.wait()
