"""Tab completion: what is offered, and that real shells, typed into through a terminal, insert it."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import clean_environment

if TYPE_CHECKING:
    from conftest import CommandHere

START = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(trainkit completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "bindkey -e; source <(trainkit completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "trainkit completion fish | source"),
}
# fish wants a terminal that controls it
CONTROLLED = "import fcntl, os, sys, termios as t; fcntl.ioctl(0, t.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
OFFERED = [
    ("trainkit comp", ["compare", "completion"]),
    ("trainkit --v", ["--version"]),
    ("trainkit train mod", ["model="]),
    ("trainkit train model", ["model=", "model."]),
    ("trainkit train model=c", ["model=cnn"]),
    ("trainkit train -m seed=0,1 model=linear,m", ["model=linear,mlp"]),
    ("trainkit train model=linear model.", []),
    ("trainkit train model=cnn model.po", ["model.pooling="]),
    ("trainkit train optim.mom", ["optim.momentum="]),
    ("trainkit train optim=adam optim.amsgrad=", ["optim.amsgrad=true", "optim.amsgrad=false"]),
    ("trainkit train precision=b", ["precision=bf16"]),
    ("trainkit train patience=", ["patience=null"]),
    ("trainkit train +experiment=mnist_m", ["experiment=mnist_mlp"]),
    ("trainkit train experiment=mnist_m", ["experiment=mnist_mlp"]),
    ("trainkit train --cfg ", ["job", "hydra", "all"]),
    ("trainkit train --mul", ["--multirun"]),
    ("trainkit eval ckpt=outputs/t", ["ckpt=outputs/train/one", "ckpt=outputs/train/two"]),
    ("trainkit eval ckpt=", ["ckpt=outputs/train/one", "ckpt=outputs/train/two", "ckpt=outputs/sweeps/s/0"]),
    ("trainkit eval ckpt=my", ["ckpt=my folder/"]),
    ("trainkit eval spl", ["split_seed=", "split="]),
    ("trainkit eval split=t", ["split=train", "split=test"]),
    ("trainkit train dataset=folder dataset.root=ou", ["dataset.root=outputs/"]),
    ("trainkit train data_dir=ou", ["data_dir=outputs/"]),
    ("trainkit train --config-dir my", ["my folder/"]),
    ("trainkit ls mo", ["model", "model.arch"]),
    ("trainkit runs --s", ["--sort"]),
    ("trainkit runs ou", ["outputs/"]),
    ("trainkit compare outputs/s", ["outputs/sweeps/s/0", "outputs/sweeps/s"]),
    ("trainkit completion z", ["zsh"]),
    ("trainkit resume outputs/train/o", ["outputs/train/one"]),
    ("trainkit predict ckpt=outputs/train/t", ["ckpt=outputs/train/two"]),
    ("trainkit export format=o", ["format=onnx"]),
    ("trainkit plan model=l", ["model=linear"]),
    ("trainkit plan --lr", ["--lr-range"]),
    ("trainkit explain optim.mo", ["optim.momentum", "optim.momentum="]),
    ("trainkit doctor ", []),
    ("trainkit report outputs/sweeps/", ["outputs/sweeps/s/0", "outputs/sweeps/s"]),
    ("/some/place/trainkit tr", ["train"]),
    ("trainkit nothing ", []),
    ("trainkit train 'model", []),
    ("trainkit", []),
    ("", []),
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the folders of runs, and one with a space in its name."""
    for name in ("train/one", "train/two", "sweeps/s/0"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    (tmp_path / "my folder").mkdir()
    return tmp_path


@pytest.mark.parametrize(("line", "expected"), OFFERED, ids=[line for line, _ in OFFERED])
@pytest.mark.usefixtures("place")
def test_what_is_offered(trainkit_here: CommandHere, line: str, expected: list[str]) -> None:
    outcome = trainkit_here("completion", "--answer", line)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [f"+{word}" if " +" in line else word for word in expected]


def test_own_config_files_are_offered(trainkit_here: CommandHere, place: Path) -> None:
    (place / "conf" / "model").mkdir(parents=True)
    (place / "conf" / "model" / "mine.yaml").write_text("name: mlp\nhidden: [3]\n")
    (place / "conf" / "model" / "broken.yaml").write_text("name: [")
    assert trainkit_here("completion", "--answer", "trainkit train model=mi").out == "model=mine\n"
    assert "model.hidden=\n" in trainkit_here("completion", "--answer", "trainkit train model=mine model.").out
    broken = trainkit_here("completion", "--answer", "trainkit train model=broken model.")
    assert (broken.code, broken.out, broken.err) == (0, "", "")


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"], ["--frobnicate"]])
def test_wrong_words_are_one_line(trainkit_here: CommandHere, words: list[str]) -> None:
    outcome = trainkit_here("completion", *words)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert outcome.err.startswith("trainkit: error: ")


def test_hydras_flag_leads_here(trainkit_here: CommandHere) -> None:
    for words in (["-sc"], ["--shell-completion", "install=bash"], ["-sc", "query=bash"]):
        outcome = trainkit_here("train", *words)
        assert (outcome.code, outcome.err.count("\n")) == (2, 1) and "trainkit completion SHELL" in outcome.err


class Terminal:
    """A shell at the other end of a pseudo terminal."""

    def __init__(self, shell: str, place: Path) -> None:
        command, setup = START[shell]
        bin_folder = place / "bin"
        bin_folder.mkdir()
        (bin_folder / "trainkit").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trainkit "$@"\n')
        (bin_folder / "trainkit").chmod(0o755)
        env = clean_environment() | {"TERM": "dumb", "HOME": str(place), "PS1": "$ ", "COLUMNS": "200"}
        env["PATH"] = f"{bin_folder}{os.pathsep}{env['PATH']}"
        self.end, other = pty.openpty()
        command = [sys.executable, "-c", CONTROLLED, *command]
        self.process = subprocess.Popen(
            command, cwd=place, env=env, stdin=other, stdout=other, stderr=other, start_new_session=True
        )
        os.close(other)
        self.seen = ""
        self.type(f"{setup}; echo RE''ADY\n")
        self.wait_for(r"READY\r?\n")

    def type(self, text: str) -> None:
        os.write(self.end, text.encode())

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + 60
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.end], [], [], 0.1)[0]:
                self.seen += os.read(self.end, 65536).decode(errors="replace")
        return match

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)


TYPED = [
    ("trainkit tr", "trainkit train"),
    ("trainkit train mod", "trainkit train model="),
    ("trainkit train model=c", "trainkit train model=cnn"),
    ("trainkit train -m model=mlp,c", "trainkit train -m model=mlp,cnn"),
    ("trainkit train optim.mom", "trainkit train optim.momentum="),
    ("trainkit eval ckpt=outputs/train/o", "trainkit eval ckpt=outputs/train/one"),
    ("trainkit eval ckpt=my\\ f", "trainkit eval ckpt=my folder/"),
    ("trainkit eval ckpt=m", "trainkit eval ckpt=my folder/"),
    ("trainkit train model=nothing", "trainkit train model=nothing"),
]


@pytest.mark.slow
@pytest.mark.parametrize("shell", list(START))
def test_real_shells(shell: str, place: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    terminal = Terminal(shell, place)
    try:
        for line, expected in TYPED:
            terminal.seen = ""
            # what the tab key has made of the line becomes the arguments of `echo`
            terminal.type(f"{line}\t\x01echo 'GOT:' \x05 ':END'\n")
            assert " ".join(terminal.wait_for(r"GOT: (.*?):END\r?\n")[1].split()) == expected
    finally:
        terminal.close()
