"""The live view as it stands on the screen of a real terminal: narrow and wide, plain where it must be, and gone."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from terminal import HangUp, Recording, record, row, size, terminal

from conftest import clean_environment, process_restored

pytestmark = pytest.mark.slow

SMALL = ("model.hidden=[8]", "device=cpu", "device.threads=1", "hydra.run.dir=run")
PLAIN_NAMES = ("NO_COLOR", "CI")
EPOCH = r"epoch +\d+/\d+ loss \d\.\d{4} acc \d\.\d{4}"
VAL = r"val loss \d\.\d{4} acc \d\.\d{4}"
LINE = rf"{EPOCH} \| {VAL} \| \d+\.\d\d s( \*)?"
BAR = r"epoch +\d+/\d+ [━─]+ loss"

OnTerminal = Callable[..., tuple[int, Recording]]


def let_pass(sent: bytes) -> None:
    """Watch a terminal and do nothing."""


def interrupt_at(pattern: str) -> Callable[[bytes], None]:
    """Watch a terminal and press Ctrl-C, once, when something stands on it."""
    pressed: list[bool] = []

    def watch(sent: bytes) -> None:
        text = re.sub(r"\x1b\[[\d;]*m", "", sent[-2000:].decode(errors="ignore"))
        if not pressed and re.search(pattern, text):
            pressed.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    return watch


@pytest.fixture
def on_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnTerminal]:
    """`on_terminal("train", …, columns=80)` in `tmp_path`, in this process and on a real terminal."""
    from trainkit.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in (*PLAIN_NAMES, *set(os.environ) - set(clean_environment())):
        monkeypatch.delenv(name, raising=False)

    def run(
        *words: str,
        columns: int = 80,
        watch: Callable[[bytes], None] = let_pass,
        encoding: str = "utf-8",
        streams: Sequence[str] = ("stdout", "stderr"),
    ) -> tuple[int, Recording]:
        with terminal(columns, watch, encoding) as (recording, stream), pytest.MonkeyPatch.context() as patch:
            for name in streams:
                patch.setattr(sys, name, stream)
            code = main(words)
        return code, recording

    with process_restored():
        yield run


def state(folder: Path) -> str:
    return str(json.loads((folder / "status.json").read_text())["state"])


def bars(recording: Recording) -> list[str]:
    """The line of the cursor whenever the live view was on it."""
    lines = [row(screen) for screen in recording.screens()]
    return [line for line in lines if line.startswith(("epoch", "["))]


def head(lines: list[str]) -> list[str]:
    """The lines before the summary, which begins with an empty one."""
    return lines[: lines.index("")]


@pytest.mark.parametrize("columns", [24, 40, 60, 80, 120, 200])
def test_nothing_wraps_and_the_epochs_stay(columns: int, on_terminal: OnTerminal) -> None:
    code, recording = on_terminal("train", *SMALL, "epochs=12", columns=columns)
    assert code == 0
    seen = bars(recording)
    assert seen and all(len(bar) < columns for bar in seen)
    # the same bytes on a screen on which nothing can wrap
    for narrow, wide in zip(recording.screens(), recording.screens(1000), strict=True):
        assert row(narrow) == row(wide) or not row(wide).startswith("epoch")
    assert all(re.match(BAR if columns >= 40 else "epoch", bar) for bar in seen)
    assert all(("ETA" in bar) == (columns >= 40) for bar in seen)
    if columns != 60:  # where it depends on how long the other parts are
        assert all((" lr 0.1" in bar) == (columns >= 80) for bar in seen)

    lines = recording.lines()
    if columns >= 80:
        assert [bool(re.fullmatch(LINE, line)) for line in head(lines)] == [False] * 2 + [True] * 12
    elif columns >= 40:
        assert [bool(re.fullmatch(EPOCH, line)) for line in head(lines)[-24::2]] == [True] * 12
        assert [bool(re.match(f"  {VAL}", line)) for line in head(lines)[-23::2]] == [True] * 12
    assert any(line.endswith(" *") for line in head(lines))
    assert not any("ETA" in line or "─ " in line for line in head(lines))  # no bar is left
    assert not recording.last().cursor.hidden
    framed = [line for line in lines if line[:1] in tuple("╭│╰")]
    assert bool(framed) == (columns >= 80) and len(set(map(len, framed))) <= 1
    assert any(line.startswith("test, best ") for line in lines) != bool(framed)
    assert lines[-1] == "  trainkit report run"


def test_the_frame_holds_the_metrics_and_the_files(on_terminal: OnTerminal, tmp_path: Path) -> None:
    code, recording = on_terminal("train", *SMALL, "epochs=3", "monitor=loss:max")  # of which the first is the best
    assert code == 0
    framed = [line.strip("│ ") for line in recording.lines() if line.startswith("│")]
    assert any(line.startswith("╭─ best epoch 1 of 3 by val/loss ─") for line in recording.lines())
    assert framed[0].split() == ["val", "test", "val", "of", "epoch", "3"]
    with (tmp_path / "run" / "metrics.jsonl").open() as file:
        events = [json.loads(line) for line in file]
    best, last = events[-1]["metrics"], events[-2]
    for line, name in zip(framed[1:3], ("loss", "accuracy"), strict=True):
        values = [best["val"][name], best["test"][name], last[f"val/{name}"]]
        assert line.split() == [name, *(f"{value:.4f}" for value in values)]
    files = [line.split()[0] for line in framed[framed.index("") + 1 :]]
    assert len(files) >= 6 and all((tmp_path / "run" / name).exists() for name in files)
    code, recording = on_terminal("eval", "ckpt=run", "hydra.run.dir=again")
    assert code == 0
    framed = [line.strip("│ ") for line in recording.lines() if line.startswith("│")]
    assert framed[2].split() == ["accuracy", f"{best['test']['accuracy']:.4f}"]
    files = [line.split()[0] for line in framed[framed.index("") + 1 :]]
    assert "metrics.json" in files and all((tmp_path / "again" / name).exists() for name in files)


def test_being_watched_changes_no_bit(on_terminal: OnTerminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainkit.console import live

    monkeypatch.setattr(live, "PAUSE", 0.0)
    monkeypatch.setattr(live, "COST", math.inf)  # drawn, and the sums read, after every step
    words = ("model=cnn", "model.channels=[4]", "model.dropout=0.2", "batch_size=8", "epochs=2", "device.threads=1")
    code, recording = on_terminal("train", *words, "device=cpu", "hydra.run.dir=run")
    assert code == 0 and len(bars(recording)) >= 2 * 162
    watched = (tmp_path / "run" / "checkpoints" / "last.safetensors").read_bytes()
    monkeypatch.setenv("NO_COLOR", "1")
    code, recording = on_terminal("train", *words, "device=cpu", "hydra.run.dir=plain")
    assert code == 0 and b"\x1b" not in recording.sent
    assert (tmp_path / "plain" / "checkpoints" / "last.safetensors").read_bytes() == watched


def test_without_a_val_split(on_terminal: OnTerminal) -> None:
    code, recording = on_terminal("train", *SMALL, "epochs=2", "val_fraction=0")
    assert code == 0
    lines = recording.lines()
    assert any(line.startswith("╭─ best epoch 2 of 2 by train/") for line in lines)
    assert lines[lines.index("next:") + 1 :] == [
        "  trainkit eval ckpt=run",
        "  trainkit predict ckpt=run input=FILE",
        "  trainkit report run",
    ]


@pytest.mark.parametrize("variable", ["NO_COLOR=1", "CI=true", "TERM=dumb"])
def test_plain_lines_where_they_are_asked_for(
    variable: str, on_terminal: OnTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable.split("="))
    code, recording = on_terminal("train", *SMALL, "epochs=2", columns=40)
    assert code == 0
    text = recording.sent.replace(b"\r\n", b"\n").decode()
    assert "\x1b" not in text and "\r" not in text
    lines = text.splitlines()
    assert [bool(re.fullmatch(LINE, line)) for line in head(lines)] == [False, False, True, True]
    assert lines[-1] == "  trainkit report run" and "  loss             " in text


def test_without_a_terminal_rich_is_not_even_imported(tmp_path: Path) -> None:
    program = (
        "import sys; from trainkit.cli import main; code = main(sys.argv[1:]); sys.exit(code or 'rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "train", *SMALL, "epochs=1"],
        cwd=tmp_path,
        env=clean_environment() | {"TERM": "xterm"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(LINE, done.stdout.splitlines()[2])
    assert "\x1b" not in done.stdout and "\r" not in done.stdout


@pytest.mark.parametrize("columns", [80, 200])
def test_the_sparkline(columns: int, on_terminal: OnTerminal) -> None:
    watch = interrupt_at("acc [^\n]* [▁▂▃▄▅▆▇█]{4,} ")
    code, recording = on_terminal("train", *SMALL, "epochs=1000", columns=columns, watch=watch)
    assert code == 130
    assert max(map(len, bars(recording))) < columns
    assert re.search("[▁▂▃▄▅▆▇█]{4,} ", bars(recording)[-1])
    assert ("val acc " in bars(recording)[-1]) == (columns == 200)


def test_a_stream_that_knows_only_ascii(on_terminal: OnTerminal) -> None:
    watch = interrupt_at(r"acc [^\n]* [_.:=+*#-]{4,} ")
    code, recording = on_terminal("train", *SMALL, "epochs=1000", watch=watch, encoding="ascii")
    assert code == 130
    assert recording.sent.isascii()
    assert re.match(r"epoch +\d+/1000 [#.]+ loss .* [_.:=+*#-]{2,10} .*ETA", bars(recording)[-1])
    code, recording = on_terminal("eval", "ckpt=run", "hydra.run.dir=again", encoding="ascii")
    assert code == 0 and recording.sent.isascii()
    assert any(re.fullmatch(r"\| accuracy +0\.\d{4} +\|", line) for line in recording.lines())


def test_json_on_stdout_and_the_view_on_stderr(on_terminal: OnTerminal, capfd: pytest.CaptureFixture[str]) -> None:
    code, recording = on_terminal("train", *SMALL, "epochs=2", "--json", streams=("stderr",))
    assert code == 0
    assert set(json.loads(capfd.readouterr().out)["metrics"]) == {"val", "test"}
    assert bars(recording) and "{" not in recording.sent.decode()


NOISY = """
import sys
from torch import nn
from trainkit import register

class Noisy(nn.Linear):
    def forward(self, x):
        print("hello from a batch of", len(x))
        print("and hello on stderr", file=sys.stderr)
        return super().forward(x.flatten(1))

@register("model")
def noisy(in_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Noisy(64, num_outputs)
"""


def test_what_others_print_goes_above(on_terminal: OnTerminal, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "noisy.yaml").write_text("name: noisy\n")
    before = sys.stdout, sys.stderr
    code, recording = on_terminal("train", "model=noisy", "plugins=[noisy]", *SMALL[1:], "epochs=2", "log_every=1")
    assert code == 0 and bars(recording), recording.lines()
    assert (sys.stdout, sys.stderr) == before
    spoken = [line for line in recording.lines() if "hello" in line]
    # two looks at two samples; 11 training steps, the last of 14 samples, and 2 batches of val, in two epochs; then val
    # and test, and a look at one sample for a map of where the model looked
    assert set(spoken) <= {f"hello from a batch of {n}" for n in (1, 2, 128, 14, 16, 103)} | {"and hello on stderr"}
    assert len(spoken) == 2 * (2 + 2 * (11 + 2) + 2 + 3 + 1)


def test_jobs_one_after_the_other(on_terminal: OnTerminal, tmp_path: Path) -> None:
    words = ("train", "-m", "seed=0,1", *SMALL[:-1], "hydra.sweep.dir=sweep", "epochs=3")
    code, recording = on_terminal(*words, columns=80)
    assert code == 0
    seen = bars(recording)
    assert all(re.match(r"\[[01]\] epoch +\d/3 ━*─* loss", bar) and len(bar) < 80 for bar in seen)
    assert {bar[:3] for bar in seen} == {"[0]", "[1]"}
    lines = recording.lines()
    for job in (0, 1):
        assert [line[:11] for line in lines if re.match(rf"\[{job}\] epoch", line)] == [
            f"[{job}] epoch {epoch}" for epoch in (1, 2, 3)
        ]
    assert not any("ETA" in line for line in lines)
    assert [state(tmp_path / "sweep" / str(job)) for job in (0, 1)] == ["completed"] * 2


@pytest.mark.skipif(
    importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is None, reason="joblib is not installed"
)
def test_jobs_side_by_side_print_plain_lines(tmp_path: Path) -> None:
    words = ["train", "-m", "seed=0,1", *SMALL[:-1], "hydra.sweep.dir=sweep", "epochs=2"]
    launcher = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    env = {name: value for name, value in clean_environment().items() if name not in PLAIN_NAMES} | {"TERM": "xterm"}
    code, recording = record([sys.executable, "-m", "trainkit", *words, *launcher], 80, 50, tmp_path, env)
    assert code == 0
    before, _, _ = recording.sent.partition(b"2 jobs, 0 failed")
    assert b"\x1b" not in before and before.count(b"\r") == before.count(b"\r\n")
    for job in (0, 1):
        assert len(re.findall(rf"\[{job}\] epoch [12]/2 loss.* s(?: \*)?\r\n".encode(), before)) == 2


def test_an_error_stands_where_the_bar_was(on_terminal: OnTerminal) -> None:
    code, recording = on_terminal("train", *SMALL, "optim.lr=1e+38", columns=200)
    assert code == 5
    assert bars(recording)
    error = recording.lines()[2]
    assert error.startswith("trainkit: error: the loss or a gradient is not finite")
    assert not recording.last().cursor.hidden


def test_an_interrupt_leaves_no_bar(on_terminal: OnTerminal, tmp_path: Path) -> None:
    words = ("train", *SMALL, "epochs=1000")
    code, recording = on_terminal(*words, columns=200, watch=interrupt_at("epoch +2/"))
    assert code == 130
    assert bars(recording)
    *epochs, end = recording.lines()
    assert end.startswith("trainkit: stopped by SIGINT after step ") and end.endswith("trainkit resume run")
    assert not any("ETA" in line for line in epochs)
    assert not recording.last().cursor.hidden
    assert state(tmp_path / "run") == "interrupted"


def test_a_terminal_that_goes_away_does_not_end_the_run(on_terminal: OnTerminal, tmp_path: Path) -> None:
    def hang_up(so_far: bytes) -> None:
        if b"steps of 128" in so_far:  # the last line before training
            raise HangUp

    code, recording = on_terminal("train", *SMALL, "epochs=30", watch=hang_up)
    assert code == 0
    assert b"epoch 30/30 loss" not in recording.sent
    assert state(tmp_path / "run") == "completed"


def test_a_closed_terminal_window_saves_the_run(tmp_path: Path) -> None:
    """The session's terminal goes: SIGHUP, and neither stdout nor stderr can be written any more."""
    master, slave = pty.openpty()
    size(slave, 80, 50)
    env = {name: value for name, value in clean_environment().items() if name not in PLAIN_NAMES} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "trainkit", "train", *SMALL, "epochs=100000"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=env,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    sent = b""
    while not re.search(rb"epoch +2/", sent):
        sent += os.read(master, 1 << 16)
    os.close(master)
    assert process.wait(60) == 129
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("interrupted", 129)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").exists()
