"""Saves of a made-up run: what the loop writes between two saves, and the commit, without any training."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from faults import DEATHS, Fault, intercepted
from trainkit import checkpoint, record, storage
from trainkit.state import LOGS, flush_logs

KEEP = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """A save after `before` others, the first of which is the best; after three, an older one is deleted."""

    before: int
    is_best: bool

    def __str__(self) -> str:
        return f"after-{self.before}{'-best' if self.is_best else ''}"

    def save(self, run: Path) -> None:
        save(run, self.before + 1, self.is_best)


CASES = [Case(0, True), Case(1, False), Case(3, False), Case(3, True)]


def save(run: Path, number: int, is_best: bool) -> None:
    """Append to the logs, flush them, commit a checkpoint."""
    for name in LOGS:
        storage.append(run / name, f"{name} {number}")
    logs = flush_logs(run)
    tensors = {"model/weight": torch.full((50,), float(number))}
    content = checkpoint.pack(tensors, {"config": {}})
    folder = run / "checkpoints"
    record.commit(folder, content, epoch=number, step=10 * number, logs=logs, is_best=is_best, keep=KEEP)


def begun(run: Path, case: Case) -> Path:
    """A run folder with the saves before the one of the case."""
    (run / "checkpoints").mkdir(parents=True)
    for number in range(1, case.before + 1):
        save(run, number, is_best=number == 1)
    return run


def number_of(run: Path) -> int:
    """Which save a folder is at, 0 for none. Everything that its record names must be whole, and the logs be there."""
    folder = run / "checkpoints"
    known = record.read(folder)
    if known is None:
        assert not (folder / record.NAME).exists()
        return 0
    for entry in (*known.kept, known.best):
        assert entry is not None
        content = (folder / entry.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.size, entry.sha256)
        for name, length in entry.logs.items():
            expected = "".join(f"{name} {number}\n" for number in range(1, entry.epoch + 1)).encode()
            assert len(expected) == length
            assert (run / name).read_bytes()[:length] == expected
    return known.last.epoch


def calls_of(base: Path, case: Case) -> list[str]:
    """The calls of the save, in order, when nothing happens to it."""
    run = Path(shutil.copytree(base, base.with_name("counted"), symlinks=True))
    counting = Fault(run, -1, "short")
    with intercepted(counting):
        case.save(run)
    shutil.rmtree(run)
    return counting.calls


def die_at_every_call(base: str, before: int, is_best: bool) -> None:
    """A hook for the nursery: for each call and kind of death, a process saves in a copy of `base`, and dies there.

    The copies are called `<call>-<kind>`, beside `base`.
    """
    case = Case(before, is_best)
    for number, name in enumerate(calls_of(Path(base), case)):
        for kind in DEATHS:
            if kind == "within" and name != "write":
                continue
            run = Path(shutil.copytree(base, Path(base).with_name(f"{number}-{kind}"), symlinks=True))
            pid = os.fork()
            if pid == 0:
                with intercepted(Fault(run, number, kind)):
                    case.save(run)
                os._exit(1)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != -signal.SIGKILL:
                sys.exit(f"call {number} ({name}) did not kill")
