"""A run that stops anywhere and goes on ends in the same bits, wherever and however it goes on. Real runs, all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from digest import facts
from scenes import BUSY, add_later_lines, copy_as_it_is, only_run, states_kept, write_images

from trainkit.checkpoints import record
from trainkit.cli import main
from trainkit.run_folders.rundir import read_status

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow

WORDS = [*BUSY, "batch_size=256", "epochs=6", "checkpoint_every=1steps", "keep_last=3"]
STEPS = 24  # of 36: it stops early, after four epochs, because of the learning rate


@dataclasses.dataclass(frozen=True)
class Whole:
    """A run that was not stopped, and its folder as it was after each save."""

    run: Path
    states: list[Path]

    def stopped(self, step: int, to: Path) -> Path:
        """A folder to go on in, as it was after the save of a step."""
        for state in self.states:
            known = record.read(state / "checkpoints")
            if known is not None and known.last.step == step:
                return copy_as_it_is(state, to)
        raise AssertionError(step)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    with contextlib.chdir(folder), states_kept(folder / "states"):
        assert main(["train", *WORDS]) == 0
    return Whole(only_run(folder), sorted((folder / "states").iterdir()))


def test_from_every_state(whole: Whole, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    expected = facts(whole.run)
    assert read_status(whole.run)["result"]["best_epoch"] == 2
    assert len(whole.states) == STEPS + 3  # after each step, and after each epoch that is the best or the last
    for state in whole.states:
        run = copy_as_it_is(state, tmp_path / state.name)
        add_later_lines(run, whole.run)
        assert main(["resume", str(run)]) == 0, state.name
        assert ": bit-exact" in capfd.readouterr().out
        assert facts(run) == expected, state.name


def test_a_resumed_run_can_be_stopped_again(whole: Whole, tmp_path: Path) -> None:
    run = whole.stopped(2, tmp_path / "run")
    for number, step in enumerate((7, 15)):
        with states_kept(tmp_path / f"states{number}"):
            assert main(["resume", str(run)]) == 0
        again = Whole(run, sorted((tmp_path / f"states{number}").iterdir()))
        run = again.stopped(step, tmp_path / f"run{number}")
    assert main(["resume", str(run)]) == 0
    assert facts(run) == facts(whole.run)


def test_what_photos_are_augmented_with(tmp_path: Path) -> None:
    plain = [word for word in WORDS if not word.startswith(("augment", "epochs"))]
    words = [*plain, "epochs=2", "augment=rand", "augment.erasing=0.5", "augment.rotate=10"]
    with contextlib.chdir(tmp_path), states_kept(tmp_path / "states"):
        assert main(["train", *words]) == 0
    run = Whole(only_run(tmp_path), sorted((tmp_path / "states").iterdir()))
    for step in (3, 8):
        again = run.stopped(step, tmp_path / f"run{step}")
        assert main(["resume", str(again)]) == 0
        assert facts(again) == facts(run.run)


@pytest.mark.parametrize("where", ["renamed", "with spaces, ümläut", "copied"])
def test_from_another_place(where: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = whole.stopped(9, tmp_path / "first")
    if where == "copied":
        run = Path(shutil.copytree(run, tmp_path / "deep" / "copy", symlinks=True))
    else:
        run = run.rename(tmp_path / where)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["resume", os.path.relpath(run)]) == 0
    assert facts(run) == facts(whole.run)
    assert list(elsewhere.iterdir()) == []


def test_in_another_locale_with_other_hashes_and_a_closed_output(whole: Whole, tmp_path: Path) -> None:
    run = whole.stopped(10, tmp_path / "run")
    env = {"PYTHONHASHSEED": "12345", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-m", "trainkit", "resume", str(run)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, env=os.environ | env, cwd=tmp_path, stdout=full, stderr=full, check=False)
    assert done.returncode == 0
    assert facts(run) == facts(whole.run)


SAME = {
    "no steps logged": ["log_every=1000"],
    "every step logged": ["log_every=1"],
    "a checkpoint an epoch": ["checkpoint_every=1epoch"],
    "a checkpoint in 5 steps": ["checkpoint_every=5steps", "keep_last=1"],
    "a checkpoint in an hour": ["checkpoint_every=60min"],
    "not kept on the device": ["loader=streaming"],
}


@pytest.mark.parametrize("name", SAME)
def test_what_must_not_matter(name: str, whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *WORDS, *SAME[name]]) == 0
    assert facts(only_run(tmp_path), steps=False) == facts(whole.run, steps=False)


LOADING = [("resident", 0), ("resident", 2), ("streaming", 0), ("streaming", 1), ("streaming", 2)]


def test_workers_do_not_matter(tmp_path: Path, nursery: Nursery) -> None:
    write_images(tmp_path / "images", each=20)
    found = {}
    for loader, workers in LOADING:
        scratch = tmp_path / f"{loader}{workers}"
        scratch.mkdir()
        words = [*BUSY, "dataset=folder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=8"]
        code, output = nursery.run(
            *("train", *words, "batch_size=32", "epochs=2", f"loader={loader}", f"workers={workers}"), cwd=scratch
        )
        assert code == 0, output
        found[loader, workers] = facts(only_run(scratch))
    first, *others = found.values()
    assert all(other == first for other in others)


MUTANTS = [
    *("optimizer", "buffers", "average", "sums", "monitor", "best", "order", "augmentation", "global_randomness"),
    *("log_offset", "threads"),
]
AT = {"monitor": 15}  # the step in which the run stops; the forgotten thing must matter after it


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_digests_see(mutant: str, whole: Whole, tmp_path: Path, nursery: Nursery) -> None:
    """The negative control: a resume that forgets one thing, or a step that draws otherwise, is found out."""
    run = whole.stopped(AT.get(mutant, 20), tmp_path / "run")
    add_later_lines(run, whole.run)
    code, output = nursery.run("resume", str(run), cwd=tmp_path, hook=f"mutants:{mutant}")
    assert code == 0, output
    assert facts(run) != facts(whole.run)
