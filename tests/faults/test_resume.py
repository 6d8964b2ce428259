"""Rows about going on with a run: what was changed in between, and what is still there when it goes wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainkit.checkpoints import checkpoint
from trainkit.errors import CheckpointError
from writers import npz, packed, table

if TYPE_CHECKING:
    from conftest import CommandHere, Outcome

pytestmark = pytest.mark.slow

PLUGIN = '''
import os
import shutil
import signal
from pathlib import Path

from torch import nn

from trainkit.registry import register


class Flatten(nn.Flatten):
    """Does in a training step what a file in the current folder says, once."""

    def forward(self, x):
        in_step = self.training and len(x) > 2  # the look before the first step has two samples
        if in_step and Path("stop").exists():
            Path("stop").unlink()
            os.kill(os.getpid(), signal.SIGTERM)
        if in_step and Path("remove").exists():
            Path("remove").unlink()
            shutil.rmtree("outputs")
        return super().forward(x)


@register("model")
def stoppable(in_shape, num_outputs, *, armed: bool = True):
    size = 1
    for side in in_shape:
        size *= side
    return nn.Sequential(Flatten() if armed else nn.Flatten(), nn.Linear(size, num_outputs))
'''
WORDS = ["plugins=[stops]", "model=stoppable", "model.armed=true", "device=cpu", "device.threads=1", "epochs=2"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stops.py").write_text(PLUGIN)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "stoppable.yaml").write_text("name: stoppable\narmed: true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def stopped(here: Path, trainkit_here: CommandHere, *words: str) -> Path:
    """A run that SIGTERM has stopped in its first step."""
    (here / "stop").touch()
    outcome = trainkit_here("train", *WORDS, *words)
    assert outcome.code == 143, outcome.err
    (run,) = (here / "outputs" / "train").iterdir()
    assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    return run


def resume(trainkit_here: CommandHere, run: Path, *words: str) -> Outcome:
    return trainkit_here("resume", str(run), "plugins=[stops]", *words)


def test_r33_data_that_changed_is_refused_unless_allowed(here: Path, trainkit_here: CommandHere) -> None:
    arrays = table()
    (here / "data.npz").write_bytes(npz(**arrays))
    run = stopped(here, trainkit_here, "dataset=npz", "dataset.file=data.npz", "batch_size=4")
    arrays["x"] = arrays["x"] + 1
    (here / "data.npz").write_bytes(npz(**arrays))
    outcome = resume(trainkit_here, run)
    assert outcome.code == 4
    assert re.search(r"the (train|val|train and val) samples are not those .*; allow=\[data\] goes on", outcome.err)
    outcome = resume(trainkit_here, run, "allow=[data]")
    assert outcome.code == 0, outcome.err
    assert re.search(r"not bit-exact: .*other (train|val) samples", outcome.out)


def test_r59_another_learning_rate_is_refused_unless_allowed(here: Path, trainkit_here: CommandHere) -> None:
    run = stopped(here, trainkit_here)
    before = (run / "config.yaml").read_bytes()
    outcome = resume(trainkit_here, run, "optim.lr=0.01")
    assert outcome.code == 4
    assert "optim.lr is 0.01 here and 0.1 in the checkpoint" in outcome.err
    assert "allow=[optim.lr]" in outcome.err
    assert (run / "config.yaml").read_bytes() == before
    outcome = resume(trainkit_here, run, "optim.lr=0.01", "allow=[optim.lr]")
    assert outcome.code == 0, outcome.err
    assert "not bit-exact: optim.lr 0.1 -> 0.01" in outcome.out
    rows = (run / "results.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows] == ["lr", "0.01", "0.01"]


def test_what_was_allowed_once_is_not_allowed_for_another_value(here: Path, trainkit_here: CommandHere) -> None:
    run = stopped(here, trainkit_here)
    (here / "stop").touch()
    assert resume(trainkit_here, run, "optim.lr=0.01", "allow=[optim.lr]").code == 143
    outcome = resume(trainkit_here, run, "optim.lr=0.5")
    assert (outcome.code, "optim.lr is 0.5 here" in outcome.err) == (4, True), outcome.err
    assert resume(trainkit_here, run).code == 0


def test_a_config_that_was_edited_is_refused_unless_allowed(here: Path, trainkit_here: CommandHere) -> None:
    run = stopped(here, trainkit_here)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("lr: 0.1", "lr: 0.01"))
    outcome = resume(trainkit_here, run)
    assert (outcome.code, "optim.lr is 0.01 here and 0.1 in the checkpoint" in outcome.err) == (4, True), outcome.err
    outcome = resume(trainkit_here, run, "allow=[optim.lr]")
    assert (outcome.code, "not bit-exact: optim.lr 0.1 -> 0.01" in outcome.out) == (0, True), outcome.err


@pytest.mark.parametrize("words", ["optim=adam", "optim.name=adam"])
def test_r58_another_optimizer_is_refused(words: str, here: Path, trainkit_here: CommandHere) -> None:
    run = stopped(here, trainkit_here)
    assert resume(trainkit_here, run, words).code == 2
    assert resume(trainkit_here, run).code == 0


def test_r83_another_environment_is_said(here: Path, trainkit_here: CommandHere) -> None:
    run = stopped(here, trainkit_here)
    outcome = resume(trainkit_here, run, "device.threads=2", "log_every=1")
    assert outcome.code == 0, outcome.err
    assert "step 1: not bit-exact: threads 1 -> 2\n" in outcome.out


def test_r63_a_run_folder_that_is_removed(here: Path, trainkit_here: CommandHere) -> None:
    (here / "remove").touch()
    outcome = trainkit_here("train", *WORDS)
    assert outcome.code == 6
    assert re.match(r"trainkit: error: cannot write .*metrics.jsonl \(No such file or directory", outcome.err)
    assert "Traceback" not in outcome.err


def test_r82_a_sweep_goes_on_and_passes_over_what_is_done(here: Path, trainkit_here: CommandHere) -> None:
    (here / "stop").touch()
    words = [word for word in WORDS if not word.startswith("model.armed")]
    outcome = trainkit_here("train", "-m", *words, "model.armed=false,true", "seed=0,1")
    assert outcome.code == 143, outcome.err
    (sweep,) = (here / "outputs" / "sweeps").iterdir()
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in sweep.glob("*/status.json")}
    assert states == {"0": "completed", "1": "completed", "2": "interrupted"}
    first = (sweep / "0" / "status.json").read_bytes()
    refused = trainkit_here("resume", str(sweep))
    assert refused.code == 2  # its plugins are code
    command = re.search(r"to let it, type: (.*)$", refused.err.strip())
    assert command is not None
    outcome = trainkit_here(*shlex.split(command[1])[1:])
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("was done before") == 2
    assert "goes on after epoch 0, step 1: bit-exact" in outcome.out
    states = {path.parent.name: json.loads(path.read_text())["state"] for path in sweep.glob("*/status.json")}
    assert states == dict.fromkeys("0123", "completed")
    assert (sweep / "0" / "status.json").read_bytes() == first


def test_r57_optimizer_state_goes_by_name() -> None:
    import torch
    from torch import nn

    def model(*names: str) -> nn.Module:
        torch.manual_seed(0)
        return nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in names})

    ours, other = model("a", "b"), model("b", "a")
    optimizer = torch.optim.Adam(ours.parameters())
    (ours["a"].weight.sum() + 5 * ours["b"].weight.sum()).backward()  # type: ignore[index,union-attr,operator]
    optimizer.step()
    tensors, state = checkpoint.optimizer_state(ours, optimizer)
    restored = torch.optim.Adam(other.parameters())
    checkpoint.load_optimizer(other, restored, tensors, state, Path("file"))
    for name in ("a", "b"):
        expected = optimizer.state[ours[name].weight]["exp_avg"]  # type: ignore[index]
        assert torch.equal(restored.state[other[name].weight]["exp_avg"], expected)  # type: ignore[index]
    with pytest.raises(CheckpointError, match="optimizer state of 'a.weight', which this model does not have"):
        checkpoint.load_optimizer(model("b", "c"), restored, tensors, state, Path("file"))


def test_r61_more_elements_than_bytes(tmp_path: Path) -> None:
    import torch

    header = {"config": {}, "progress": {"epoch": 1, "step": 1}, "spec": {}}
    payload = packed({"model/weight": torch.zeros(4)}, header)
    (size,) = struct.unpack("<Q", payload[:8])
    header = json.loads(payload[8 : 8 + size])
    header["model/weight"]["shape"] = [10**10]
    meta = json.loads(header["__metadata__"]["trainkit"])
    claimed = meta["sha256"]

    def forged(digest: str) -> bytes:
        text = json.dumps({**header, "__metadata__": {"trainkit": json.dumps({**meta, "sha256": digest})}}).encode()
        return struct.pack("<Q", len(text)) + text + payload[8 + size :]

    assert claimed != checkpoint.UNSIGNED
    digest = hashlib.sha256(forged(checkpoint.UNSIGNED)).hexdigest()
    (tmp_path / "file").write_bytes(forged(digest))
    with pytest.raises(CheckpointError, match="is damaged: "):
        checkpoint.load(tmp_path / "file")
