"""A disk without room: the command ends at once, with one line for each run and exit code 6."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_processes import FAST, finished

pytestmark = pytest.mark.slow

SIZE = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of SIZE bytes, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path, leave: int) -> None:
    (place / "fill").write_bytes(bytes(SIZE - leave))


def test_a_run_folder_that_takes_not_a_byte(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    code, _, err = finished(tmp_path, "train", *FAST, preexec_fn=limited)
    (line,) = err.splitlines()
    assert code == 6 and line.startswith("trainkit: error: cannot write ") and "File too large" in line
    assert not list(tmp_path.glob("outputs/train/*"))
    assert finished(tmp_path, "train", *FAST)[0] == 0
    (run,) = tmp_path.glob("outputs/train/*")
    for words in (("resume", run, "epochs=+1"), ("reproduce", run), ("eval", f"ckpt={run}")):
        code, _, err = finished(tmp_path, *map(str, words), preexec_fn=limited)
        assert code == 6 and "File too large" in err
        assert [path for path in tmp_path.glob("outputs/*/*") if path != run] == []


def test_a_full_disk(small_disk: Path) -> None:
    fill(small_disk, 0)
    code, _, err = finished(small_disk, "train", *FAST)
    (line,) = err.splitlines()
    assert code == 6 and "No space left on device" in line and "0 free" in line


@pytest.mark.parametrize("leave", [80_000, 250_000])
def test_a_disk_that_runs_full_in_a_sweep(leave: int, small_disk: Path) -> None:
    """Each job that fails says so in one line and is told in the table, whatever it could write of itself."""
    fill(small_disk, leave)
    words = ["device=cpu", "device.threads=1", "model.hidden=[64]", "epochs=2"]
    code, out, err = finished(small_disk, "train", "-m", "seed=1,2,3,4,5,6", *words)
    assert code == 1
    jobs = [line for line in err.splitlines() if line.startswith("trainkit: error: job ")]
    rest = [line for line in err.splitlines() if line not in jobs]
    assert len(jobs) >= 3 and all("No space left on device" in line for line in jobs)
    assert not rest or (len(rest) == 1 and "sweep.csv" in rest[0])
    assert f"6 jobs, {len(jobs)} failed" in out
