"""Names that a terminal or a spreadsheet would obey, and secrets that must not be kept."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainkit.sweep.summary import write_csv
from trainkit.text import cell, is_secret, to_json, visible, without_secrets, word_without_secrets

if TYPE_CHECKING:
    from conftest import Command, CommandHere

HOSTILE = "\x1b]0;owned\x07\x1b[2Jcat\u202egpj.exe\x9b31m"  # title, clear the screen, right to left, C1
FAST = ["device=cpu", "device.threads=1", "epochs=1", "model=linear"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Ünïcödé 日本 👩‍🔬", "plain, Ünïcödé 日本 👩‍🔬"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\tand\ra tab", r"two\nlines\tand\ra tab"),
        ("\x9b31m", r"\x9b31m"),
        ("abc\u202efdp", r"abc\u202efdp"),
        ("a\u2028b", r"a\u2028b"),
        ("no utf-8 \udcff", r"no utf-8 \udcff"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    "name", ["token", "api_key", "apikey", "hf_token", "AWS_SECRET_ACCESS_KEY", "password", "DB_PASSWD"]
)
def test_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["monitor", "topk", "keys", "tokens", "num_tokens", "key_dim", "monkey", "HOME", "lr"])
def test_no_secret(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("model.api_key=abc", "model.api_key=???"),
        ("+dataset.token=abc", "+dataset.token=???"),
        ("hydra.sweeper.storage=mysql://me:pw@host/db", "hydra.sweeper.storage=mysql://me:???@host/db"),
        ("model.hidden=[1]", "model.hidden=[1]"),
        ("train", "train"),
    ],
)
def test_word_without_secrets(word: str, kept: str) -> None:
    assert word_without_secrets(word) == kept


def test_config_without_secrets() -> None:
    config = {"model": {"api_key": "abc", "key": None, "n_key": 3, "list": [{"token": "x"}, "http://a:b@c"]}}
    kept = {"model": {"api_key": "???", "key": None, "n_key": 3, "list": [{"token": "???"}, "http://a:???@c"]}}
    assert without_secrets(config) == kept


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1+1", "'+1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-x", "'-x"),
        ("-0.5", "-0.5"),
        (-0.5, -0.5),
        ("+1e-3", "+1e-3"),
        ("mlp", "mlp"),
        (None, None),
        ("", ""),
    ],
)
def test_cell(value: object, written: object) -> None:
    assert cell(value) == written


PLUGIN = """
from trainkit.models.linear import linear
from trainkit.registry import register

@register("model")
def gated(in_shape, num_outputs, *, api_key: str):
    return linear(in_shape, num_outputs)
"""


def test_a_secret_is_in_no_file_of_a_run_and_is_asked_for_again(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "gated_model.py").write_text(PLUGIN)
    conf = tmp_path / "conf" / "model"
    conf.mkdir(parents=True)
    (conf / "gated.yaml").write_text("name: gated\n")
    words = ["plugins=[gated_model]", "device=cpu", "device.threads=1", "epochs=1"]
    assert trainkit_here("train", *words, "model=gated", "model.api_key=hunter2").code == 0
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    for file in (file for file in run.rglob("*") if file.is_file()):
        assert b"hunter2" not in file.read_bytes(), file
    assert "model.api_key=???" in (run / "command.txt").read_text()
    again = trainkit_here("eval", f"ckpt={run}", *words[:3])
    assert (again.code, "model.api_key is required (text): add model.api_key=…" in again.err) == (2, True)
    assert trainkit_here("eval", f"ckpt={run}", *words[:3], "model.api_key=hunter2").code == 0


def hostile_folder(root: Path) -> None:
    from PIL import Image

    for name in (HOSTILE, "=dog", "third"):
        for split, count in (("train", 4), ("test", 0 if name == HOSTILE else 2)):
            for index in range(count):
                file = root / split / name / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (index * 40, 0, 0)).save(file)
    (root / "train" / "third" / f"{HOSTILE}.png").write_bytes(b"no image")


@pytest.mark.slow
def test_hostile_class_and_file_names_are_only_shown(trainkit: Command, tmp_path: Path) -> None:
    hostile_folder(tmp_path / "images")
    words = ["dataset=folder", "dataset.root=images", "dataset.image_size=8", "val_fraction=0", *FAST]
    refused = trainkit("train", *words)
    assert refused.returncode == 3 and r"\x1b]0;owned\x07" in refused.stderr
    trained = trainkit("train", *words, "dataset.on_bad=skip")
    assert trained.returncode == 0, trained.stderr
    assert r"test has no sample of 1 of 3 classes: \x1b]0;owned" in trained.stdout
    run = next((tmp_path / "outputs" / "train").glob("*/checkpoints")).parent
    log = (run / "train.log").read_text()
    for text in (refused.stdout, refused.stderr, trained.stdout, trained.stderr, log):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert json.loads((run / "status.json").read_text())["state"] == "completed"


def test_hostile_names_of_options_are_only_shown(trainkit_here: CommandHere, tmp_path: Path) -> None:
    folder = tmp_path / "conf" / "model"
    folder.mkdir(parents=True)
    (folder / f"{HOSTILE.replace('/', '')}.yaml").write_text("# \x85\u202esummary\nname: mlp\n")
    for words in (["ls"], ["ls", "model"], ["train", "--help"], ["train", "model=nope"], ["train", f"model={HOSTILE}"]):
        outcome = trainkit_here(*words)
        assert r"\u202e" in outcome.out + outcome.err
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(outcome.out + outcome.err)


@pytest.mark.parametrize("indent", [None, 2])
def test_json_holds_nothing_that_a_terminal_obeys(indent: int | None) -> None:
    value = {"name": f"{HOSTILE}\x7f\u2028\udcff", "é": ["日本", 1.5, None, True]}
    text = to_json(value, indent)
    assert all(visible(line) == line for line in text.split("\n")) and "日本" in text
    assert json.loads(text) == value


def test_a_formula_in_a_sweep_is_text(tmp_path: Path) -> None:
    row = {"job": 0, "model.text": "=1+1", "seed": "-1", "val/loss": -0.5, "seconds": 1.0, "exit_code": 3}
    write_csv(tmp_path / "sweep.csv", [row | {"error": "@SUM(A1): no such class", "run": "/run"}])
    with (tmp_path / "sweep.csv").open(newline="") as stream:
        (read,) = csv.DictReader(stream)
    assert (read["model.text"], read["error"]) == ("'=1+1", "'@SUM(A1): no such class")
    assert (read["seed"], read["val/loss"]) == ("-1", "-0.5")


def test_the_cache_of_decoded_images_is_for_its_user_alone(
    trainkit_here: CommandHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hostile_folder(tmp_path / "images")
    words = ["dataset=folder", "dataset.root=images", "dataset.image_size=8", "dataset.on_bad=skip", "val_fraction=0"]
    assert trainkit_here("train", *words, *FAST).code == 0
    folder = tmp_path / "cache" / "trainkit" / "decoded"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


HOMELESS = """
from trainkit.machine import user_cache
folder = user_cache()
print(folder)
folder.chmod(0o777)
user_cache()
"""


def test_a_user_without_a_home_gets_a_private_folder(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path), "HOME": "~"}  # which leaves `~` as it is, as where the user list does not help
    command = [sys.executable, "-c", HOMELESS]
    done = subprocess.run(command, env=os.environ | env | {"XDG_CACHE_HOME": ""}, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == tmp_path / f"trainkit-{os.getuid()}"
    assert "is not this user's alone; set HOME" in done.stderr
