"""Whatever a stranger's file holds: one line, the exit code of its kind, no hang, little memory, nothing elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import hostile
import pytest
from hostile import CHECKPOINTS, NPZ

from trainkit.checkpoints import record
from writers import image

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow

FENCE = (60, 2000)  # seconds, megabytes beside what torch has
RUN = "outputs/train/run"
CPU = ("device=cpu", "device.threads=1")


def ended(nursery: Nursery, here: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of a command, which was not ended by the fence, and showed no bug."""
    code, output = nursery.run(*words, cwd=here, hook="fences:fence", arguments=FENCE)
    assert code in (0, 2, 3, 4, 6), f"{words}: {code}\n{output}"
    assert "internal error" not in output and "Traceback" not in output, output
    assert max(map(len, output.splitlines()), default=0) < 1000
    return code, output


def as_newest(run: Path, copy: Path) -> Path:
    """A copy of a run that was interrupted, with a place for the one checkpoint that it has. Returns that place."""
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    place = copy / "checkpoints" / record.file_name(1, 11)
    place.parent.mkdir(parents=True)
    (place.parent / "best.safetensors").symlink_to(place.name)
    status = json.loads((copy / "status.json").read_text())
    del status["result"]
    (copy / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    return place


@pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.name)
def test_a_checkpoint(row: hostile.Checkpoint, digits_run: Path, tmp_path: Path, nursery: Nursery) -> None:
    place = as_newest(digits_run, tmp_path / RUN)
    row.make(place, (digits_run / "checkpoints" / "best.safetensors").read_bytes())
    (tmp_path / "a.png").write_bytes(image(mode="L"))
    codes = []
    for words in (
        ("eval", f"ckpt={RUN}", *CPU),
        ("predict", f"ckpt={place}", "input=a.png", "workers=0", *CPU),
        ("resume", RUN),
    ):
        code, output = ended(nursery, tmp_path, *words)
        codes.append(code)
        errors = [line for line in output.splitlines() if "error: " in line]
        assert len(errors) == (code != 0), output
    assert tuple(codes) == row.codes
    assert ended(nursery, tmp_path, "runs")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "outputs"}


@pytest.mark.parametrize("name", ["model-text", "classes-hostile", "pipe", "sparse"])
def test_a_report_and_an_export(name: str, digits_run: Path, tmp_path: Path, nursery: Nursery) -> None:
    (row,) = [row for row in CHECKPOINTS if row.name == name]
    place = as_newest(digits_run, tmp_path / RUN)
    row.make(place, (digits_run / "checkpoints" / "best.safetensors").read_bytes())
    assert ended(nursery, tmp_path, "report", RUN)[0] == 0
    assert ended(nursery, tmp_path, "export", f"ckpt={RUN}", "output=model.safetensors")[0] == 4


@pytest.mark.parametrize("name", NPZ)
def test_arrays(name: str, diabetes_run: Path, tmp_path: Path, nursery: Nursery) -> None:
    hostile.write_npz(tmp_path / "data.npz", NPZ[name])
    words = ("dataset=npz", "dataset.file=data.npz", "model=linear", "epochs=1", *CPU)
    code, output = ended(nursery, tmp_path, "train", *words)
    (line,) = output.splitlines()
    assert code == 3 and "data.npz: cannot be read (" in line
    code, output = ended(nursery, tmp_path, "predict", f"ckpt={diabetes_run}", "input=data.npz", *CPU)
    assert code == 3 and "data.npz: it is no whole .npz file (" in output


FILES = [
    "status.json",
    "config.yaml",
    "metrics.jsonl",
    "env.json",
    "command.txt",
    "predictions.npz",
    "checkpoints/record.json",
]


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_run_folder(name: str, kind: str, digits_run: Path, tmp_path: Path, nursery: Nursery) -> None:
    """Reading verbs pass over what no run has written; resume refuses it, or goes on without it."""
    run = tmp_path / RUN
    shutil.copytree(digits_run, run, symlinks=True)
    (run / name).unlink()
    if kind == "pipe":
        os.mkfifo(run / name)
    elif kind == "device":
        (run / name).symlink_to("/dev/zero")
    else:
        (run / name).touch()
        os.truncate(run / name, 40 * 2**30)
    for words in (
        ("runs",),
        ("compare", "outputs/train/run", "outputs/train/run"),
        ("resume", str(run)),
        ("eval", f"ckpt={run}", *CPU),
    ):
        ended(nursery, tmp_path, *words)
