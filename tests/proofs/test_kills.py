"""kill -9 at random moments, and signals: a run that goes on after it ends in the same bits."""

from __future__ import annotations

import os
import random
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import kills
import pytest
from digest import facts
from scenes import BUSY, logged_step, only_run, write_images

import shared_models
from trainkit.run_folders.rundir import read_status

if TYPE_CHECKING:
    from nursery import Nursery

pytestmark = pytest.mark.slow

EPOCHS = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "images"
    write_images(folder, each=30)
    return folder


@pytest.fixture(scope="module")
def expected(images: Path, nursery: Nursery) -> dict[str, str]:
    """What the run comes to that nobody kills."""
    whole = images.parent / "whole"
    whole.mkdir()
    code, output = nursery.run(*kills.words(images, "1epoch", EPOCHS), "workers=0", cwd=whole)
    assert code == 0 and "stopped early" in output, output
    return facts(only_run(whole))


def test_twenty_kills_at_fifteen_steps(
    images: Path, expected: dict[str, str], nursery: Nursery, tmp_path: Path
) -> None:
    draw = random.Random(0)
    found: list[kills.Kill] = []
    run = 0
    while len(found) < 20 or len({kill.step for kill in found}) < 15:
        words = kills.words(images, kills.EVERY[run % 2], EPOCHS)
        found += kills.survive(nursery.start, words, tmp_path / str(run), 12, draw)
        assert facts(only_run(tmp_path / str(run))) == expected
        run += 1
    assert {kill.workers for kill in found} == {0, 1, 2}


def test_the_command_itself(images: Path, expected: dict[str, str], tmp_path: Path) -> None:
    words = kills.words(images, "1steps", EPOCHS)
    found = kills.survive(kills.Command(tmp_path), words, tmp_path / "run", 1, random.Random(1))
    assert facts(only_run(tmp_path / "run")) == expected
    assert len(found) == 1


@pytest.mark.parametrize("model", shared_models.NAMES)
def test_a_model_whose_weights_share_memory(model: str, nursery: Nursery, tmp_path: Path) -> None:
    words = ["train", f"model={model}", "optim=adam", "ema=0.9", "batch_size=64", "epochs=4", "checkpoint_every=1steps"]
    words += ["device=cpu", "device.threads=1", "log_every=1"]
    for folder in ("whole", "killed"):
        shared_models.lay_out(tmp_path / folder)
    plugin = "plugins=[shared_plugin]"
    code, output = nursery.run(*words, plugin, cwd=tmp_path / "whole")
    assert code == 0, output
    found = kills.survive(nursery.start, words, tmp_path / "killed", 4, random.Random(2), [plugin])
    assert len(found) >= 2
    assert facts(only_run(tmp_path / "killed")) == facts(only_run(tmp_path / "whole"))


# Saves within an epoch as well as after it, and nothing decoded.
PLAIN = ["train", *BUSY, "batch_size=256", "epochs=4", "checkpoint_every=8steps"]
CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.fixture(scope="module")
def plain(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plain")
    code, output = nursery.run(*PLAIN, cwd=folder)
    assert code == 0, output
    return facts(only_run(folder))


@pytest.mark.parametrize("moment", ["train", "eval", "save"])
@pytest.mark.parametrize("name", CODES)
def test_a_signal_saves(name: str, moment: str, plain: dict[str, str], nursery: Nursery, tmp_path: Path) -> None:
    code, output = nursery.run(*PLAIN, cwd=tmp_path, hook="moments:send", arguments=[name, moment])
    run = only_run(tmp_path)
    assert code == CODES[name], output
    step = logged_step(run)
    said = rf"trainkit: stopped by {name} after step {step}; it is saved; go on with: (trainkit resume \S+)\n"
    (command,) = re.findall(said, output)
    status = read_status(run)
    assert (status["state"], status["exit_code"]) == ("interrupted", code)
    code, output = nursery.run(*command.split()[1:], cwd=tmp_path)
    assert code == 0 and f"step {step}: bit-exact" in output, output
    assert facts(run) == plain


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_at_any_moment(name: str, plain: dict[str, str], nursery: Nursery, tmp_path: Path) -> None:
    draw = random.Random(name)
    life = nursery.start(*PLAIN, cwd=tmp_path)
    assert kills.wait_for_steps(life, tmp_path, 0, 1)
    time.sleep(draw.uniform(0, 0.2))
    os.kill(life.pid, signal.Signals[name])
    assert life.wait() in (CODES[name], 0), life.output
    run = only_run(tmp_path)
    assert nursery.run("resume", str(run), cwd=tmp_path)[0] == 0
    assert facts(run) == plain


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_the_second_signal_ends_it_at_once(name: str, plain: dict[str, str], nursery: Nursery, tmp_path: Path) -> None:
    code, output = nursery.run(*PLAIN, cwd=tmp_path, hook="moments:send_twice", arguments=[name])
    assert code == {"SIGINT": 130, "SIGTERM": -signal.SIGTERM}[name], output
    run = only_run(tmp_path)
    assert "Traceback" not in output
    code, output = nursery.run("resume", str(run), cwd=tmp_path)
    assert code == 0 and "goes on after epoch 1, step 8: bit-exact" in output, output  # the 11th was not saved
    assert facts(run) == plain


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_a_signal_that_the_parent_ignores_stays_ignored(
    name: str, plain: dict[str, str], nursery: Nursery, tmp_path: Path
) -> None:
    code, output = nursery.run(*PLAIN, cwd=tmp_path, hook="moments:ignore", arguments=[name])
    assert code == 0, output
    assert facts(only_run(tmp_path)) == plain


def test_one_process_at_a_time(plain: dict[str, str], nursery: Nursery, tmp_path: Path) -> None:
    life = nursery.start(*PLAIN, cwd=tmp_path)
    assert kills.wait_for_steps(life, tmp_path, 0, 1)
    os.kill(life.pid, signal.SIGSTOP)  # it cannot end before the second has tried
    run = only_run(tmp_path)
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    code, output = nursery.run("resume", str(run), cwd=tmp_path)
    assert code == 2 and f"is in use by process {life.pid}" in output, output
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    os.kill(life.pid, signal.SIGCONT)
    assert life.wait() == 0, life.output
    assert facts(run) == plain
