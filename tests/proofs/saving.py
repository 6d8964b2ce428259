"""Saves of a made-up run: what the loop writes between two saves, and the commit, without any training."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from power import Watch
from striking import CALLS, DEATHS, Fault, intercepted

from trainkit import storage
from trainkit.checkpoints import checkpoint, record, tensorfile
from trainkit.checkpoints.state import LOGS, flush_logs
from trainkit.errors import ResourceError

if TYPE_CHECKING:
    from nursery import Nursery

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
    tensors = {f"model/{name}": torch.full((50,), float(number)) for name in ("weight", "other")}
    content = checkpoint.pack(tensors, {"config": {}})
    folder = run / "checkpoints"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorfile, "GATHERED", 100)  # a write for the header and for each tensor, as if they were large
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


def goes_on(run: Path, case: Case) -> None:
    """The next start leaves no temporary file, and after its saves there is no file that the record does not name."""
    folder = run / "checkpoints"
    storage.remove_temporaries(run)
    storage.remove_temporaries(folder)
    assert not [path for path in (*run.iterdir(), *folder.iterdir()) if path.name.endswith(".tmp")]
    known = record.read(folder)
    for name in LOGS:
        storage.truncate(run / name, known.last.logs[name] if known else 0)
    for number in range(number_of(run) + 1, case.before + 3):
        save(run, number, is_best=number == 1 or (case.is_best and number == case.before + 1))
    assert number_of(run) == case.before + 2
    known = record.read(folder)
    assert known is not None and known.best is not None and len(known.kept) <= KEEP
    assert known.best.epoch == (case.before + 1 if case.is_best else 1)
    files = {path.name for path in folder.iterdir() if not path.is_symlink()}
    assert files == {record.NAME, known.best.file, *(entry.file for entry in known.kept)}
    assert os.readlink(folder / "last.safetensors") == known.last.file
    assert os.readlink(folder / "best.safetensors") == known.best.file


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


def kill_at_every_call(case: Case, scratch: Path, nursery: Nursery) -> int:
    """Kill the save at each of its calls; what is left must be old or new, and go on. Returns the number of kills."""
    base = begun(scratch / "base", case)
    hooked = [str(base), case.before, case.is_best]
    code, output = nursery.run("--version", cwd=scratch, hook="saving:die_at_every_call", arguments=hooked)
    assert code == 0, output
    died = [path for path in scratch.iterdir() if path.name != "base"]
    calls = calls_of(base, case)
    assert {"open", "write", "fsync", "close", "replace", "symlink"} <= set(calls) <= set(CALLS)
    assert len(died) == 2 * len(calls) + calls.count("write")
    assert {number_of(run) for run in died} == {case.before, case.before + 1}
    for run in died:
        goes_on(run, case)
    return len(died)


def fail_at_every_call(case: Case, error: str, scratch: Path) -> tuple[int, int]:
    """Fail each call of the save; the same must hold. Returns how many were failed, and how many of them failed it."""
    base = begun(scratch / "base", case)
    tried = failures = 0
    for number, name in enumerate(calls_of(base, case)):
        if error == "short" and name != "write":
            continue
        run = Path(shutil.copytree(base, scratch / f"{number}", symlinks=True))
        said = None
        try:
            with intercepted(Fault(run, number, error)):
                case.save(run)
        except ResourceError as raised:
            said = str(raised)
            failures += 1
        assert said is None or said.startswith("cannot write"), name
        assert number_of(run) == case.before + 1 or (said is not None and number_of(run) == case.before), name
        goes_on(run, case)
        tried += 1
    return tried, failures


def lose_power_at_every_call(scratch: Path) -> int:
    """Four saves; after each of their calls all that the disk may then hold. Returns the number of states."""
    root = scratch / "root"
    root.mkdir()
    watch = Watch(root)
    with intercepted(watch):
        (root / "run" / "checkpoints").mkdir(parents=True)
        storage.flush(root)
        for number in range(1, 5):
            save(root / "run", number, is_best=number in (1, 4))
            watch.saves = number
    watch.check(scratch / "found", lambda found: number_of(found / "run"))
    return len(watch.found)
