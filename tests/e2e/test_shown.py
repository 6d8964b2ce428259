"""What files say, on a real terminal: shown, and not obeyed. Into a pipe the predictions go as they are."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from terminal import record

from conftest import clean_environment, trained
from writers import npz

if TYPE_CHECKING:
    from conftest import Command

pytestmark = pytest.mark.slow

HOSTILE = "\x1b]0;owned\x07\x1b[2Jcat\u202egpj.exe\x9b31m"  # title, clear the screen, right to left, C1


def hostile_run(folder: Path) -> Path:
    """A run whose classes and columns are called like escape sequences."""
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    y = np.array([HOSTILE, "b"])[np.arange(40) % 2]
    (folder / "data.npz").write_bytes(npz(x=x, y=y, features=[HOSTILE, "b"]))
    return trained(folder, "dataset=npz", "dataset.file=data.npz", "model=linear", "epochs=1")


OBEYED = {"\x1b", "\x07", "\x9b", "\u202e"}


def test_a_terminal_shows_the_names_in_predictions_and_a_pipe_gets_them(trainkit: Command, tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    (tmp_path / "new.csv").write_text(f"b,{HOSTILE}\n1,2\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text(f"b,c{HOSTILE}\n1,2\n", encoding="utf-8")
    words = ["predict", f"ckpt={run}", "topk=2", "input=new.csv"]
    piped = trainkit(*words)
    assert piped.returncode == 0 and HOSTILE in piped.stdout
    piped = trainkit(*words, "--json")
    row = json.loads(piped.stdout)
    assert HOSTILE in (row["class"], row["class_2"]) and not OBEYED & set(piped.stdout)
    env = clean_environment() | {"TERM": "dumb"}
    for more in ([], ["--json"], ["input=bad.csv"]):
        code, seen = record([sys.executable, "-m", "trainkit", *words, *more], 200, 50, tmp_path, env)
        shown = seen.sent.decode()
        assert code == (3 if more == ["input=bad.csv"] else 0)
        assert not OBEYED & set(shown), shown
        assert "owned" in shown


@pytest.mark.parametrize(
    "words",
    [
        "train dataset=npz dataset.file=data.npz model=linear epochs=1",
        "train dataset=npz dataset.file=data.npz model=linear epochs=1 -m seed=0,1",
        "eval ckpt=RUN",
        "check dataset=npz dataset.file=data.npz",
        "plan dataset=npz dataset.file=data.npz model=linear",
        "report RUN",
        "runs",
        "runs --json",
        "compare RUN RUN2",
        "ls model",
        "ls --json",
        "explain model model=odd",
        "explain model model=odd --json",
        "train model=odd --cfg job",
        "train --help",
        "train model=odd model.hidden=x",
        "completion --answer trainkit\\ train\\ model=od",
    ],
)
def test_a_terminal_only_shows_what_files_say(words: str, hostile_place: Path) -> None:
    command = [sys.executable, "-m", "trainkit", *shlex.split(words)]
    for number, run in enumerate(sorted((hostile_place / "outputs" / "train").iterdir())[:2]):
        command = [str(run) if word == ("RUN", "RUN2")[number] else word for word in command]
        command = [word.replace("=RUN", f"={run}") if number == 0 else word for word in command]
    _, seen = record(command, 200, 50, hostile_place, clean_environment() | {"TERM": "dumb"})
    assert seen.sent and not OBEYED & set(seen.sent.decode()), seen.sent


@pytest.fixture(scope="module")
def hostile_place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on hostile data, and options with hostile summaries, values and names."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile_run(folder)
    hostile_run(folder)
    (folder / "conf" / "model").mkdir(parents=True)
    odd = json.dumps(HOSTILE)
    text = f"# \x85\u202esummary\nname: mlp\nactivation: {odd}  # \u202edoc\n"
    for name in ("odd", f"odd{HOSTILE.replace('/', '')}"):
        (folder / "conf" / "model" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_nor_while_a_live_view_is_up(hostile_place: Path) -> None:
    words = "train dataset=npz dataset.file=more.npz model=linear epochs=1"
    with np.load(hostile_place / "data.npz") as arrays:
        (hostile_place / "more.npz").write_bytes(npz(**{**arrays, f"unused{HOSTILE.replace('/', '')}": [1]}))
    env = {name: value for name, value in clean_environment().items() if name not in ("NO_COLOR", "CI")}
    command = [sys.executable, "-m", "trainkit", *words.split()]
    code, seen = record(command, 200, 50, hostile_place, env | {"TERM": "xterm"})
    assert code == 0 and b"\x1b" in seen.sent
    assert seen.last().title == "" and any(r"unused\x1b]0;owned\x07" in line for line in seen.lines())
