"""Faults that need a process of their own: its streams, locale, limits, umask, signals and interpreter flags."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from conftest import clean_environment
from writers import class_folders, lay_out

if TYPE_CHECKING:
    from conftest import CommandHere

pytestmark = pytest.mark.slow

FAST = ["device=cpu", "device.threads=1", "model=linear", "epochs=1"]
ENDLESS = [*FAST[:3], "epochs=1000000"]


def start(
    folder: Path, *words: str, flags: tuple[str, ...] = (), env: dict[str, str] | None = None, **options: Any
) -> Any:
    """`trainkit WORDS` as a process in `folder`."""
    command = [sys.executable, *flags, "-m", "trainkit", *words]
    return subprocess.Popen(command, cwd=folder, env=clean_environment() | (env or {}), **options)


def finished(folder: Path, *words: str, **options: Any) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"} | options
    with start(folder, *words, **options) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out or "", err or ""


def completed(folder: Path) -> Path:
    """The one run folder below, in which everything is there."""
    (run,) = [path.parent for path in folder.rglob("status.json")]
    assert json.loads((run / "status.json").read_text())["state"] == "completed"
    assert (run / "checkpoints" / "best.safetensors").is_file()
    assert len((run / "results.csv").read_text().splitlines()) == 2
    return run


@pytest.mark.parametrize("words", [["train", *FAST], ["plan", *FAST], ["predict", "ckpt=RUN", "input=x.npz"]])
def test_too_little_memory_to_import_torch(words: list[str], digits_run: Path, tmp_path: Path) -> None:
    """A limit of address space that the interpreter fits in, and torch's libraries do not."""
    command = shlex.join(word.replace("RUN", str(digits_run)) for word in words)
    limited = f"ulimit -v 700000; exec '{sys.executable}' -m trainkit {command}"
    env = clean_environment() | {"OPENBLAS_NUM_THREADS": "1"}  # each of whose threads takes address space too
    done = subprocess.run(
        ["bash", "-c", limited], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 6, done.stderr
    reason = r"lib[\w-]+\.so[.\d]*: (failed to map segment from shared object|cannot allocate memory).*"
    assert re.fullmatch(rf"trainkit: error: out of memory \({reason}\); end other programs, or .*\n", done.stderr)
    for status in tmp_path.rglob("status.json"):
        assert json.loads(status.read_text())["exit_code"] == 6


def test_few_open_files(tmp_path: Path) -> None:
    lay_out(tmp_path, class_folders())
    words = ["dataset=folder", "dataset.root=images", "dataset.image_size=8", "workers=2", "loader=streaming", *FAST]

    def limited(files: int) -> tuple[int, str, str]:
        return finished(
            tmp_path, "train", *words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files,) * 2)
        )

    assert limited(32)[0] == 0
    code, _, err = limited(10)
    assert (code, len(err.splitlines())) == (6, 1)
    assert "Too many open files" in err and "ulimit -n" in err


def test_stopped_and_continued(tmp_path: Path) -> None:
    with start(tmp_path, "train", *ENDLESS[:3], "epochs=200", stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch   2/"):
                break
        for number in (signal.SIGTSTP, signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT):
            process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "epoch 200/200" in out


def test_the_reader_has_gone(tmp_path: Path) -> None:
    with start(tmp_path, "train", *FAST, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")
    completed(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        code, _, err = finished(tmp_path, "train", *FAST, stdout=full)
        assert (code, err) == (0, "")
        completed(tmp_path)
        for words in (["ls"], ["train", "--help"], ["train", "--cfg", "job"], ["train", *FAST, "--json"]):
            code, _, err = finished(tmp_path, *words, stdout=full)
            last = err.splitlines()[-1]
            assert code == 6 and last.startswith("trainkit: error: ") and "No space left" in last
            assert "Traceback" not in err and "internal" not in err


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams(closed: tuple[int, ...], tmp_path: Path) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    code, _, _ = finished(tmp_path, "train", *FAST, preexec_fn=close)
    assert code == 0
    run = completed(tmp_path)
    for file in (path for path in run.rglob("*") if path.is_file()):
        assert b"run folder: " not in file.read_bytes(), file  # what is printed is not in a file opened in its place


@pytest.mark.parametrize(
    "env",
    [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"COLUMNS": "1"}, {"COLUMNS": "200", "FORCE_COLOR": ""}],
    ids=lambda env: "-".join(env),
)
def test_no_terminal(env: dict[str, str], tmp_path: Path) -> None:
    code, out, err = finished(tmp_path, "train", "-m", "seed=0,1", *FAST, env=env)
    assert (code, err) == (0, "")
    assert "\x1b" not in out and "\r" not in out


def test_plain_c_locale(tmp_path: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    code, out, err = finished(tmp_path, "train", *FAST, "output_dir=donn\u00e9es/\u65e5", env=env)
    assert (code, err) == (0, "")
    run = completed(tmp_path / "donn\u00e9es" / "\u65e5")
    assert "output_dir=donn\u00e9es/\u65e5" in (run / "command.txt").read_text("utf-8")
    assert out.isascii()
    code, out, err = finished(tmp_path, "eval", f"ckpt={run}", env=env)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("name", ["a b", "it's", "#x%20$HOME", "x" * 255, "-m", "a=b", "日本"])
def test_odd_paths(name: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    """They work, and the command that is printed to go on with works too."""
    quoted = name.replace("'", "\\'")
    outcome = trainkit_here("train", *FAST, f"output_dir='{quoted}'")
    assert (outcome.code, outcome.err) == (0, "")
    completed(tmp_path / name)
    (command,) = [line for line in outcome.out.splitlines() if line.endswith(" split=val")]
    assert trainkit_here(*shlex.split(command)[1:]).code == 0


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("a\nb", 2, "control character"),
        ("/".join(["y" * 200] * 25), 6, "File name too long"),
        ("x" * 256, 6, "too long"),
    ],
    ids=["newline", "long", "long-part"],
)
def test_paths_that_cannot_be(path: str, code: int, reason: str, trainkit_here: CommandHere) -> None:
    outcome = trainkit_here("train", *FAST, f"output_dir='{path}'")
    (line,) = outcome.err.splitlines()
    assert (outcome.code, reason in line) == (code, True)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs the command faketime to set a clock back")
def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    command = ["faketime", "1970-01-02 00:00:00", sys.executable, "-m", "trainkit", "train", *FAST]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert completed(tmp_path).name.startswith("1970-01-02")


def test_no_home_and_another_umask(tmp_path: Path) -> None:
    lay_out(tmp_path, class_folders())
    words = ["dataset=folder", "dataset.root=images", "dataset.image_size=8", *FAST]
    env = {"HOME": "~", "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path)}
    code, _, err = finished(tmp_path, "train", *words, env=env, umask=0o077)
    assert (code, err) == (0, "")
    run = completed(tmp_path / "outputs")
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert stat.S_IMODE((run / "config.yaml").stat().st_mode) == 0o600
    assert not (tmp_path / "~").exists()  # nothing beside the run folder and the cache
    assert (tmp_path / f"trainkit-{os.getuid()}" / "decoded").is_dir()


@pytest.mark.parametrize("flags", [("-O",), ("-W", "error")], ids=lambda flags: "".join(flags))
def test_optimised_and_warnings_as_errors(flags: tuple[str, ...], tmp_path: Path) -> None:
    code, _, err = finished(tmp_path, "train", *FAST, flags=flags)
    assert (code, err) == (0, "")
    completed(tmp_path)
    for words, wanted in ([["train", "optim.lr=-1", "modle=x"], 2], [["eval", "ckpt=gone"], 4]):
        code, _, err = finished(tmp_path, *words, flags=flags)
        assert code == wanted and "Traceback" not in err


@pytest.mark.parametrize("processes", [1, 2])
def test_torchrun_may_start_one_process_only(processes: int, tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "trainkit", "train", *FAST],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if processes == 1:
        assert done.returncode == 0, done.stderr
        completed(tmp_path)
        return
    assert done.returncode != 0 and "exitcode  : 2" in done.stderr and not list(tmp_path.iterdir())
    said = [line for line in done.stderr.splitlines() if line.startswith("trainkit: ")]
    assert 1 <= len(said) <= 2  # the launcher ends the other one when the first has ended
    for line in said:
        assert re.match(r"trainkit: error: this is process [01] of 2 \(RANK, WORLD_SIZE: torchrun\), and", line)
