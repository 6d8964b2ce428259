"""A save that dies, fails or loses power at any of its calls leaves the old state or the new one, never a part."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import power
import pytest
from digest import facts
from saving import CASES, KEEP, Case, begun, calls_of, number_of, save
from scenes import BUSY, only_run

from faults import CALLS, ERRORS, Fault, intercepted
from trainkit import checkpoint, record, storage
from trainkit.cli import main
from trainkit.errors import ResourceError
from trainkit.state import LOGS, log_lengths

if TYPE_CHECKING:
    from nursery import Nursery


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


@pytest.mark.parametrize("case", CASES, ids=str)
def test_killed_at_every_call(case: Case, tmp_path: Path, nursery: Nursery) -> None:
    base = begun(tmp_path / "base", case)
    hooked = [str(base), case.before, case.is_best]
    code, output = nursery.run("--version", cwd=tmp_path, hook="saving:die_at_every_call", arguments=hooked)
    assert code == 0, output
    died = [path for path in tmp_path.iterdir() if path.name != "base"]
    calls = calls_of(base, case)
    assert {"open", "write", "fsync", "close", "replace", "symlink"} <= set(calls) <= set(CALLS)
    assert len(died) == 2 * len(calls) + calls.count("write") > 60
    assert {number_of(run) for run in died} == {case.before, case.before + 1}
    for run in died:
        goes_on(run, case)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=str)
def test_failed_at_every_call(case: Case, error: str, tmp_path: Path) -> None:
    base = begun(tmp_path / "base", case)
    failures = 0
    for number, name in enumerate(calls_of(base, case)):
        if error == "short" and name != "write":
            continue
        run = Path(shutil.copytree(base, tmp_path / f"{number}", symlinks=True))
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
    assert (failures == 0) == (error == "short")


Found = dict[frozenset[tuple[str, bytes | str]], tuple[power.State, set[int]]]


class Watch:
    """Collects what the disk may hold if the power fails, each with the numbers of saves that were done by then."""

    def __init__(self, root: Path) -> None:
        self.found: Found = {}
        self.saves = 0
        self._disk = power.Disk(root)

    def __call__(self, name: str, call: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        result = self._disk(name, call, arguments, options)
        for state in self._disk.after_power_loss():
            self.found.setdefault(frozenset(state.items()), (state, set()))[1].add(self.saves)
        return result

    def check(self, scratch: Path, number: Callable[[Path], int]) -> None:
        """Each state is at the save that was the last when the power failed, or at the next."""
        for state, saves in self.found.values():
            power.lay_out(state, scratch)
            at = number(scratch)
            assert all(at in (done, done + 1) for done in saves), (at, saves, list(state))
            shutil.rmtree(scratch, ignore_errors=True)


def test_power_lost_at_every_call(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    watch = Watch(root)
    with intercepted(watch):
        (root / "run" / "checkpoints").mkdir(parents=True)
        storage.flush(root)
        for number in range(1, 5):
            save(root / "run", number, is_best=number in (1, 4))
            watch.saves = number
    watch.check(tmp_path / "found", lambda found: number_of(found / "run"))
    assert len(watch.found) > 500


def test_power_lost_in_a_training_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "outputs" / "train"
    root.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    watch = Watch(root)
    saves = [(0, 0)]
    commit = record.commit

    def commit_and_count(*arguments: Any, **options: Any) -> record.Record:
        saves.append((options["epoch"], options["step"]))
        done = commit(*arguments, **options)
        watch.saves += 1
        return done

    monkeypatch.setattr(record, "commit", commit_and_count)
    words = [*BUSY, "log_every=100", "batch_size=700", "epochs=2", "checkpoint_every=2steps"]
    with intercepted(watch):
        assert main(["train", *words]) == 0

    def number(found: Path) -> int:
        """How many saves a run folder holds, by the newest checkpoint that loads."""
        for path in found.glob("*/checkpoints"):
            for file in record.candidates(path):
                _, header = checkpoint.load(file)
                progress = header["progress"]
                lengths = log_lengths(path.parent, file, progress["epoch"], progress["step"])
                assert all(storage.size(path.parent / name) >= length for name, length in lengths.items())
                return saves.index((header["progress"]["epoch"], header["progress"]["step"]))
        return 0

    watch.check(tmp_path / "found", number)
    expected = facts(only_run(tmp_path))
    states = [state for state, _ in watch.found.values()]
    for index, state in enumerate(random.Random(0).sample(states, 10)):
        power.lay_out(state, tmp_path / str(index))
        for run in (tmp_path / str(index)).glob("*"):
            if (run / "config.yaml").exists():
                assert main(["resume", str(run)]) == 0
                assert facts(run) == expected
