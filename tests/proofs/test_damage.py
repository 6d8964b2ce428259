"""Damaged checkpoints, records, logs: never other numbers; what is whole is used, and the run ends in the same bits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from digest import facts, measurements, table
from scenes import BUSY, copy_as_it_is, only_run, states_kept

import writers
from trainkit.checkpoints import checkpoint, record
from trainkit.checkpoints.state import LOGS
from trainkit.cli import main
from trainkit.errors import CheckpointError
from trainkit.run_folders.rundir import read_status

pytestmark = pytest.mark.slow

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


def cut(path: Path, part: float) -> None:
    """Keep this part of a file, most likely up to the middle of a line."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])


LOSSES: dict[str, Callable[[Path], object]] = {
    "metrics-gone": lambda run: (run / "metrics.jsonl").unlink(),
    "metrics-cut": lambda run: cut(run / "metrics.jsonl", 0.5),
    "metrics-empty": lambda run: cut(run / "metrics.jsonl", 0),
    "results-gone": lambda run: (run / "results.csv").unlink(),
    "results-cut": lambda run: cut(run / "results.csv", 0.8),
    "both-gone": lambda run: [(run / name).unlink() for name in LOGS],
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_lost_log_is_said_and_the_run_goes_on(
    name: str, stopped: Path, whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also when it then falls back to a checkpoint that was saved before the loss: no line is there twice."""
    LOSSES[name](stopped)
    with states_kept(stopped.parent / "states"):
        assert main(["resume", str(stopped)]) == 0
    out = capfd.readouterr().out
    assert "step 16: bit-exact" in out, out
    for log in LOGS:
        lost = f"note: {log} is lost: what it said up to step 16; the checkpoint is whole"
        less = re.search(
            rf"note: {log} has lost [\d,]+ of its [\d,]+ bytes up to step 16; the checkpoint is whole", out
        )
        mine = log.startswith(name.partition("-")[0]) or "both" in name
        assert (lost in out or less is not None) == mine, out
    later = next(state for state in (stopped.parent / "states").iterdir() if files(state).last.step == 20)
    damage(later, files(later).last)
    damage(later, files(later).previous[0])
    assert main(["resume", str(later)]) == 0
    assert "step 16: bit-exact" in capfd.readouterr().out
    for run in (stopped, later):
        found, expected = facts(run), facts(only_run(whole))
        for fact in [fact for fact in found if not fact.startswith(LOGS)]:
            assert found[fact] == expected[fact], fact
        ours, theirs = (
            [line for line in measurements(path / "metrics.jsonl") if line.get("step", 0) > 16]
            for path in (run, only_run(whole))
        )
        assert ours == theirs
        rows = [row["epoch"] for row in table(run / "results.csv")]
        assert rows[-2:] == ["3", "4"] and sorted(set(rows)) == rows


def test_readers_cope_with_lost_logs(whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = copy_as_it_is(only_run(whole), tmp_path / "outputs" / "train" / "run")
    assert main(["reproduce", str(run), f"output_dir={tmp_path}"]) == 0
    assert "\nbit-identical: 24 logged steps and 4 epochs, " in capfd.readouterr().out
    cut(run / "metrics.jsonl", 0.6)
    lost = "note: metrics.jsonl of the original is lost in part: what is left is compared, and the last checkpoint\n"
    assert main(["reproduce", str(run), f"output_dir={tmp_path}"]) == 0
    out = capfd.readouterr().out
    assert lost in out and re.search(r"\nbit-identical: \d+ logged steps and \d epochs?, \d\d tensors", out), out
    for name in LOGS:
        (run / name).unlink()
    assert main(["reproduce", str(run), f"output_dir={tmp_path}"]) == 0
    out = capfd.readouterr().out
    assert lost in out and re.search(r"\nbit-identical: 0 logged steps and 0 epochs, \d\d tensors", out), out
    assert main(["runs", str(run.parent), "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)["runs"]
    status = read_status(run)["result"]
    assert found["metrics"]["test/accuracy"] == status["metrics"]["test"]["accuracy"]
    assert main(["report", str(run)]) == 0
    assert "missing: run: metrics.jsonl is not there\n" in capfd.readouterr().out
    assert f"accuracy {status['metrics']['test']['accuracy']:.2%} on test" in (run / "report.html").read_text()
    assert main(["resume", str(run), "epochs=+1", "extend=hold", "patience=null", "allow=[patience]"]) == 0
    assert "metrics.jsonl is lost: what it said up to step 24" in capfd.readouterr().out


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
