"""Checkpoints that `eval` must refuse, a row each: exit code 4 (or 2 for what was asked of a good one), one line."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import CommandHere

BEST = "checkpoints/best.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a finished run of a small MLP on the digits."""
    from conftest import process_restored
    from trainkit.cli import main

    folder = tmp_path_factory.mktemp("trained")
    with contextlib.chdir(folder), process_restored():
        assert main(["train", "model.hidden=[8]", "epochs=1", "device=cpu", "device.threads=1"]) == 0
    (run,) = (folder / "outputs" / "train").iterdir()
    return run


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))


def parts(file: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON header and the tensors of a safetensors file."""
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def rewrite(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a checkpoint says about itself; its digest then no longer fits."""
    header, tensors = parts(file)
    meta = json.loads(header["__metadata__"]["trainkit"])
    change(meta)
    header["__metadata__"]["trainkit"] = json.dumps(meta)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + tensors)


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(content)


def foreign(file: Path) -> None:
    """A safetensors file that another program has written."""
    import torch
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, file.resolve(), metadata={"format": "pt"})  # which would replace a link


def pickled(file: Path) -> None:
    """torch.save writes a pickle in a zip, which must not even be looked into."""
    import torch

    torch.save({"weight": torch.zeros(2)}, file)


def newer(file: Path) -> None:
    rewrite(file, lambda meta: meta.update(format=99, trainkit="9.9"))


def with_target(file: Path) -> None:
    rewrite(file, lambda meta: meta["config"]["model"].update(_target_="os.system"))


def with_plugins(file: Path) -> None:
    rewrite(file, lambda meta: meta["config"].update(plugins=["evil"]))


def without_config(file: Path) -> None:
    rewrite(file, lambda meta: meta.pop("config"))


def huge_header(file: Path) -> None:
    file.write_bytes(b"\xff" * 7 + b"\x00" + b"{" * 100)


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda file: file.write_bytes(b""), "is not a whole trainkit checkpoint"),
    "text": (lambda file: file.write_text("hello " * 100), "is not a whole trainkit checkpoint"),
    "eight-bytes": (lambda file: file.write_bytes(b"\0" * 8), "is not a whole trainkit checkpoint"),
    "cut-in-header": (lambda file: file.write_bytes(file.read_bytes()[:500]), "is not a whole trainkit checkpoint"),
    "cut-by-one": (lambda file: file.write_bytes(file.read_bytes()[:-1]), "damaged: its tensors have "),
    "longer-by-one": (lambda file: file.write_bytes(file.read_bytes() + b"\0"), "damaged: its tensors have "),
    "flipped-in-a-tensor": (lambda file: flip(file, -5), "damaged: its digest does not match"),
    "flipped-in-the-size": (lambda file: flip(file, 3), "is not a whole trainkit checkpoint"),
    "huge-header": (huge_header, "is not a whole trainkit checkpoint"),
    "foreign": (foreign, "is not a whole trainkit checkpoint"),
    "pickle": (pickled, "is not a whole trainkit checkpoint"),
    "r16-newer-format": (newer, r"was written by trainkit 9.9 in format 99; this trainkit reads format 2"),
    "without-config": (without_config, "is not a whole trainkit checkpoint"),
    "changed-header": (
        lambda file: rewrite(file, lambda meta: meta["progress"].update(epoch=7)),
        "damaged: its digest does not match",
    ),
    "with-plugins": (with_plugins, "damaged: its digest does not match"),
}


def refused(outcome: Any, code: int, pattern: str) -> None:
    import re

    (line,) = outcome.err.splitlines()
    assert outcome.code == code, line
    assert line.startswith("trainkit: error: ")
    assert re.search(pattern, line), line
    assert outcome.out == ""


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name: str, run_folder: Path, trainkit_here: CommandHere) -> None:
    damage, pattern = DAMAGED[name]
    damage(run_folder / BEST)
    refused(trainkit_here("eval", "ckpt=run"), 4, f"run/{BEST}'? .*{pattern}")


def test_a_target_in_a_checkpoint_is_refused(run_folder: Path, trainkit_here: CommandHere) -> None:
    with_target(run_folder / BEST)
    refused(trainkit_here("eval", "ckpt=run"), 2, "`_target_` is refused")


def test_every_flipped_bit_of_a_header_is_seen(run_folder: Path, trainkit_here: CommandHere) -> None:
    """Wherever it is: the file is refused, in one line, never evaluated."""
    whole = (run_folder / BEST).read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    for at in range(0, header, header // 12):
        flip(run_folder / BEST, at)
        outcome = trainkit_here("eval", "ckpt=run")
        (line,) = outcome.err.splitlines()
        assert outcome.code in (2, 4) and line.startswith("trainkit: error: ") and outcome.out == ""
        (run_folder / BEST).write_bytes(whole)


ASKED = [
    ("missing", "ckpt=gone", 4, r"checkpoint '.*/gone' does not exist; name a run folder or a .safetensors file"),
    ("empty-folder", "ckpt=empty", 4, r"/empty holds no checkpoints/best.safetensors or"),
    ("through-a-file", "ckpt=run/config.yaml/x", 4, r"run/config.yaml/x' (does not exist|cannot be read)"),
    ("config-file", "ckpt=run/config.yaml", 4, r"is not a whole trainkit checkpoint"),
    ("one-of-two-missing", "-m ckpt=run,gone", 4, r"'.*/gone' does not exist"),
    ("other-width", "ckpt=run model.hidden=[9]", 4, r"does not fit this model: .*\(8, 64\).* there and \(9, 64\)"),
    ("other-model", "ckpt=run model=linear", 4, r"does not fit this model: .*is not in the model|and \d more"),
    ("other-data", "ckpt=run dataset=wine", 4, r"dataset wine has inputs x 13, but '.*' was trained on x 1x8x8"),
    (
        "other-task",
        "ckpt=run dataset=diabetes",
        4,
        r"dataset diabetes has inputs x 10, but '.*' was trained on x 1x8x8",
    ),
    ("no-such-split", "ckpt=run split=tset", 2, r"split: .*'?tset"),
    ("split-not-there", "ckpt=run split=val val_fraction=0", 2, r"split=val: dataset digits has only .*: train, test$"),
    ("wrong-loss", "ckpt=run loss=mse", 2, r"loss 'mse' cannot train dataset"),
    ("wrong-key", "ckpt=run spilt=val", 2, r"key 'spilt' is not known \(did you mean split\?\)"),
    ("training-key", "ckpt=run epochs=3", 2, r"key 'epochs' is not known"),
    ("wrong-argument", "ckpt=run model.hiden=[8]", 2, r"key 'model.hiden' is not known \(did you mean model.hidden"),
    ("ckpt-group-option", "ckpt=none", 4, r"checkpoint '.*/none' does not exist"),
    ("empty-ckpt", "ckpt=", 2, r"ckpt=: name a run folder or a checkpoint file"),
]


@pytest.mark.parametrize(("words", "code", "pattern"), [pytest.param(*row[1:], id=row[0]) for row in ASKED])
def test_asked_too_much(
    words: str, code: int, pattern: str, run_folder: Path, tmp_path: Path, trainkit_here: CommandHere
) -> None:
    (tmp_path / "empty").mkdir()
    refused(trainkit_here("eval", *words.split()), code, pattern)


def test_only_last_is_left(run_folder: Path, trainkit_here: CommandHere) -> None:
    (run_folder / "checkpoints" / "record.json").unlink()
    (run_folder / BEST).unlink()
    assert trainkit_here("eval", "ckpt=run").code == 0
    (run_folder / BEST.replace("best", "last")).unlink()
    refused(trainkit_here("eval", "ckpt=run"), 4, "run holds no checkpoints/best.safetensors")
