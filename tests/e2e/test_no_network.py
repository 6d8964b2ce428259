"""Training and evaluating open no socket of the internet, in no process: watched by an audit hook in each of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import clean_environment
from writers import class_folders, lay_out

if TYPE_CHECKING:
    from conftest import Command

pytestmark = pytest.mark.slow

# Python runs this file at the start of every process that finds it on its path: the decoding workers too.
WATCH = """
import os, socket, sys

def watch(event, args):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        if args[0].family == socket.AF_UNIX:
            return
    elif event not in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return
    with open(os.environ["WATCHED"], "a") as file:
        file.write(f"{event} {args[1:]}\\n")

sys.addaudithook(watch)
with open(os.environ["WATCHED"], "a") as file:
    file.write(f"started {os.path.basename(sys.argv[0]) if hasattr(sys, 'argv') else ''}\\n")
"""


class Watch:
    """Runs commands with the hook in place; `events` has what it saw."""

    def __init__(self, folder: Path, trainkit: Command) -> None:
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(WATCH)
        self.log = folder / "watched"
        path = os.pathsep.join(filter(None, [str(folder / "hook"), os.environ.get("PYTHONPATH")]))
        self.env = {"PYTHONPATH": path, "WATCHED": str(self.log), "XDG_CACHE_HOME": str(folder / "cache")}
        self.trainkit = trainkit

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.trainkit(*words, env=self.env)

    def lines(self, start: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.startswith(start)]


@pytest.fixture
def watch(tmp_path: Path, trainkit: Command) -> Watch:
    return Watch(tmp_path, trainkit)


FAST = ["device=cpu", "device.threads=1", "epochs=1", "model=linear"]
FOLDER = ["dataset=folder", "dataset.root=images", "dataset.image_size=8"]


@pytest.mark.parametrize(
    ("words", "processes"),
    [
        ([], 1),
        ([*FOLDER, "workers=0"], 1),
        ([*FOLDER, "workers=2", "loader=streaming"], 3),
    ],
)
def test_train_and_eval_open_no_socket(words: list[str], processes: int, watch: Watch, tmp_path: Path) -> None:
    lay_out(tmp_path, class_folders())
    trained = watch.run("train", *FAST, *words)
    assert trained.returncode == 0, trained.stderr
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    measured = watch.run("eval", f"ckpt={run}")
    assert measured.returncode == 0, measured.stderr
    assert watch.lines("socket") == []
    assert len(watch.lines("started")) >= 2 * processes  # the hook was there, in the workers too


def test_a_download_that_is_asked_for_is_seen(watch: Watch, tmp_path: Path) -> None:
    """The hook can see: this is the one thing that opens a connection, and it goes to the data set's server."""
    watch.env |= {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    assert watch.run("train", *FAST, "dataset=cifar10", f"data_dir={tmp_path}").returncode == 3
    assert watch.lines("socket.connect")


def test_the_hook_sees_every_way_out(tmp_path: Path, watch: Watch) -> None:
    lines = [
        "import socket",
        "socket.socket().bind(('127.0.0.1', 0))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
        "socket.getaddrinfo('localhost', 80)",
    ]
    env = clean_environment() | watch.env
    subprocess.run([sys.executable, "-c", "\n".join(lines)], env=env, check=True)
    assert {line.split()[0] for line in watch.lines("socket")} == {
        "socket.bind",
        "socket.sendto",
        "socket.getaddrinfo",
    }
