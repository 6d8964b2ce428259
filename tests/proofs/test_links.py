"""A folder from a stranger: a link or a pipe where a run would write is refused, and what it leads to stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainkit import storage
from trainkit.errors import ResourceError
from trainkit.run_folders import rundir

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow

SECONDS = (60, 4000)


def stranger(run: Path, folder: Path) -> Path:
    """A copy of a run that says it was interrupted after its last epoch but one."""
    copy = Path(shutil.copytree(run, folder, symlinks=True))
    status = json.loads((copy / "status.json").read_text())
    del status["result"]
    (copy / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    return copy


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ended(nursery: Nursery, here: Path, *words: str) -> tuple[int, str]:
    code, output = nursery.run(*words, cwd=here, hook="fences:fence", arguments=SECONDS)
    assert "Traceback" not in output and "internal" not in output, output
    return code, output


@pytest.fixture
def victim(digits_run: Path, tmp_path: Path) -> Path:
    """Files of somebody else: a text, and a folder with a checkpoint whose name a run would delete."""
    folder = tmp_path / "victim"
    (folder / "folder").mkdir(parents=True)
    (folder / "file").write_text("mine\n" * 1000)
    (folder / "folder" / "epoch0001-step00000001.safetensors").write_bytes(b"mine")
    for path in (digits_run / "checkpoints").iterdir():
        shutil.copy(path, folder / "folder" / path.name)
    return folder


@pytest.mark.parametrize("name", ["results.csv", "metrics.jsonl", "train.log", ".lock", "env.json", "checkpoints"])
def test_resume_writes_through_no_link(
    name: str, digits_run: Path, victim: Path, tmp_path: Path, nursery: Nursery
) -> None:
    run = stranger(digits_run, tmp_path / "run")
    if (run / name).is_dir():
        shutil.rmtree(run / name)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim / ("folder" if name == "checkpoints" else "file"))
    before = content(victim)
    code, output = ended(nursery, tmp_path, "resume", "run")
    assert code == 6 and f"run/{name} is a link" in output and output.count("\n") == 1
    assert content(victim) == before


@pytest.mark.parametrize("name", ["results.csv", "metrics.jsonl", "train.log", ".lock"])
def test_resume_waits_for_no_pipe(name: str, digits_run: Path, tmp_path: Path, nursery: Nursery) -> None:
    run = stranger(digits_run, tmp_path / "run")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    code, output = ended(nursery, tmp_path, "resume", "run")
    assert code == 6 and f"run/{name} is neither file nor folder" in output


@pytest.mark.parametrize(
    "logs", [{"../victim/file": 0}, {"metrics.jsonl": -1}, ["metrics.jsonl"], {"metrics.jsonl": "0"}]
)
def test_a_record_names_no_file_elsewhere(
    logs: Any, digits_run: Path, victim: Path, tmp_path: Path, nursery: Nursery
) -> None:
    run = stranger(digits_run, tmp_path / "run")
    place = run / "checkpoints" / "record.json"
    known = json.loads(place.read_text())
    known["last"]["logs"] = logs
    place.write_text(json.dumps(known))
    before = content(victim)
    assert ended(nursery, tmp_path, "resume", "run")[0] == 0  # by the files alone, without the record
    assert ended(nursery, tmp_path, "resume", "run", "epochs=+1", "extend=hold")[0] == 0
    assert content(victim) == before


def test_a_report_draws_through_no_link(digits_run: Path, victim: Path, tmp_path: Path, nursery: Nursery) -> None:
    run = stranger(digits_run, tmp_path / "run")
    before = content(victim)
    (run / "report.html").symlink_to(victim / "new.html")
    (run / "plots").symlink_to(victim / "folder")
    code, output = ended(nursery, tmp_path, "report", "run")
    assert code == 6 and "run/plots is a link" in output
    assert content(victim) == before
    assert (run / "report.html").is_file() and not (run / "report.html").is_symlink()


@pytest.mark.parametrize("name", ["0", "multirun.yaml"])
def test_a_sweep_goes_on_through_no_link(name: str, victim: Path, tmp_path: Path, nursery: Nursery) -> None:
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    words = "train -m seed=1,2 model=linear epochs=1 device=cpu device.threads=1"
    (sweep / "command.txt").write_text(f"trainkit {words}\n")
    (sweep / name).symlink_to(victim / ("folder" if name == "0" else "file"))
    before = content(victim)
    code, output = ended(nursery, tmp_path, "resume", "sweep")
    assert code == 6 and f"sweep/{name} is a link" in output
    assert content(victim) == before


@pytest.mark.parametrize("text", ["", "'", "trainkit rm -rf", "\x00"])
def test_a_sweep_with_another_command_is_refused(text: str, tmp_path: Path, nursery: Nursery) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "command.txt").write_text(text)
    code, output = ended(nursery, tmp_path, "resume", "sweep")
    assert code == 2 and "does not hold the command of a sweep" in output


def test_each_write_refuses_a_link_by_itself(tmp_path: Path) -> None:
    """Also where it was made after the run had begun."""
    (tmp_path / "target").write_text("mine")
    (tmp_path / "log").symlink_to("target")
    (tmp_path / "folder").symlink_to(tmp_path)
    for write in (
        lambda: storage.append(tmp_path / "log", "line"),
        lambda: storage.truncate(tmp_path / "log", 1),
        lambda: storage.make_folder(tmp_path / "folder"),
    ):
        with pytest.raises(ResourceError, match="is a link"):
            write()
    with pytest.raises(OSError, match="symbolic links"):
        rundir._lock(tmp_path / "log")
    assert (tmp_path / "target").read_text() == "mine"
    storage.replace(tmp_path / "log", b"new")
    storage.point(tmp_path / "folder", "log")
    assert (tmp_path / "target").read_text() == "mine" and (tmp_path / "log").read_text() == "new"
