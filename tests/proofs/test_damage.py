"""Damaged checkpoints and records: never other numbers; what is whole is used, and the run ends in the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from digest import facts
from scenes import BUSY, copy_as_it_is, only_run, states_kept

import writers
from trainkit import checkpoint, record
from trainkit.cli import main
from trainkit.errors import CheckpointError

WORDS = [*BUSY, "batch_size=256", "epochs=6", "checkpoint_every=2steps", "keep_last=3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run, and its states after each save in `states`."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, states_kept(folder / "states"):
        patch.chdir(folder)
        assert main(["train", *WORDS]) == 0
    return folder


@pytest.fixture
def stopped(whole: Path, tmp_path: Path) -> Path:
    """The run as it was after 16 of 24 steps, in the third epoch; the second was the best."""
    for state in (whole / "states").iterdir():
        known = record.read(state / "checkpoints")
        if known is not None and known.last.step == 16:
            return copy_as_it_is(state, tmp_path / "run")
    raise AssertionError


def files(run: Path) -> record.Record:
    known = record.read(run / "checkpoints")
    assert known is not None
    return known


def damage(run: Path, entry: record.Entry | None) -> None:
    """Flip a bit in the middle of a checkpoint; the file that it is linked to stays as it is."""
    assert entry is not None
    path = run / "checkpoints" / entry.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x04
    path.unlink()
    path.write_bytes(content)


def test_every_flipped_bit_and_every_cut_of_a_real_checkpoint(stopped: Path, tmp_path: Path) -> None:
    payload = (stopped / "checkpoints" / files(stopped).last.file).read_bytes()
    path = tmp_path / "damaged"
    for content in writers.damaged(payload):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "last": lambda run: damage(run, files(run).last),
    "last-two": lambda run: [damage(run, entry) for entry in files(run).kept[:2]],
    "last-gone": lambda run: (run / "checkpoints" / files(run).last.file).unlink(),
    "last-empty": lambda run: write_anew(run / "checkpoints" / files(run).last.file, b""),
    "record": lambda run: (run / "checkpoints" / record.NAME).write_text('{"format": 1, "last": {'),
    "record-gone": lambda run: (run / "checkpoints" / record.NAME).unlink(),
    "record-other": lambda run: (run / "checkpoints" / record.NAME).write_text("[" * 100_000),
    "record-and-last": lambda run: (damage(run, files(run).last), (run / "checkpoints" / record.NAME).unlink()),
    "config-gone": lambda run: (run / "config.yaml").unlink(),
    "config-cut": lambda run: write_anew(run / "config.yaml", (run / "config.yaml").read_bytes()[:100] + b"\0"),
    "links-gone": lambda run: [path.unlink() for path in (run / "checkpoints").iterdir() if path.is_symlink()],
}


def write_anew(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("name", DAMAGES)
def test_the_run_ends_in_the_same_bits(
    name: str, stopped: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    DAMAGES[name](stopped)
    assert main(["resume", str(stopped)]) == 0
    out = capfd.readouterr().out
    assert ("; the checkpoint before it is used" in out) == ("last" in name), out
    assert ("note: config.yaml is lost or damaged; the config is that of epoch" in out) == ("config" in name), out
    assert "bit-exact" in out and "not bit-exact" not in out
    assert facts(stopped) == facts(only_run(whole))
    known = files(stopped)
    names = {path.name for path in (stopped / "checkpoints").glob("epoch*")}
    assert known.best is not None and names == {known.best.file, *(entry.file for entry in known.kept)}


def test_nothing_whole_is_an_error(stopped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for entry in {entry.file: entry for entry in (*files(stopped).kept, files(stopped).best) if entry}.values():
        damage(stopped, entry)
    before = {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()}
    assert main(["resume", str(stopped)]) == 4
    assert "is damaged: its digest does not match its content" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in (stopped / "checkpoints").iterdir()} == before


@pytest.mark.parametrize("with_record", [True, False])
def test_a_lost_best_epoch_is_an_error_and_not_another_epoch(
    with_record: bool, stopped: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damage(stopped, files(stopped).best)
    if not with_record:
        (stopped / "checkpoints" / record.NAME).unlink()
    assert main(["resume", str(stopped)]) == 4
    assert ("is damaged" if with_record else "the checkpoint of the best epoch, 2, is lost") in capfd.readouterr().err


def test_a_refused_resume_changes_nothing(stopped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert main(["resume", str(stopped), "optim.lr=0.5"]) == 4
    assert "allow=[optim.lr]" in capfd.readouterr().err
    after = {path.name: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed <= {"status.json", "train.log", "env.json"}
