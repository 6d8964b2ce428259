"""Numbers that are not finite: named, never saved, and skipped as if the step had not been, in a real overflow."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digest import facts, of_tensor
from scenes import copy_as_it_is, only_run, states_kept

from trainkit import registry
from trainkit.checkpoints import checkpoint, record
from trainkit.cli import main
from trainkit.randomness import permutation
from trainkit.run_folders.rundir import read_status

pytestmark = pytest.mark.slow

ROWS, BATCH = 144, 16
STEPS = ROWS // BATCH
HUGE = 17  # the row that overflows
PLUGIN = '''
import torch
from torch import nn
from trainkit.registry import register


class Steep(nn.Module):
    """Batch normalization and a linear layer, times exp(20 x^2) of the first feature: infinite for one row."""

    def __init__(self, features: int, num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features)
        self.out = nn.Linear(features, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(x)) * torch.exp(20 * x[:, :1].square())


@register("model")
def steep(in_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Overflows for inputs far out."""
    return Steep(in_shape[0], num_outputs)
'''
WORDS = ["dataset=npz", "dataset.file=data.npz", "model=steep", "plugins=[proofs_steep]", f"batch_size={BATCH}"]
WORDS += ["optim=adam", "optim.lr=0.01", "epochs=3", "device=cpu", "device.threads=1", "log_every=1", "val_fraction=0"]
BAD = [  # the steps, from 1, whose batch holds the row
    epoch * STEPS + int((permutation(ROWS, 0, epoch) == HUGE).nonzero()) // BATCH + 1 for epoch in range(3)
]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "proofs_steep.py").write_text(PLUGIN)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "steep.yaml").write_text("name: steep\n")
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(ROWS + 20, 4)).astype(np.float32)
    inputs[HUGE, 0] = 1e30
    labels = (inputs[:, 1] > 0).astype(np.int64)
    np.savez(
        tmp_path / "data.npz", x_train=inputs[:ROWS], y_train=labels[:ROWS], x_test=inputs[ROWS:], y_test=labels[ROWS:]
    )
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    registry._components.pop(("model", "steep"), None)
    sys.modules.pop("proofs_steep", None)


def test_the_first_bad_step_is_named_and_nothing_of_it_saved(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with states_kept(scratch / "states"):
        assert main(["train", *WORDS, "checkpoint_every=1steps"]) == 5
    said = re.fullmatch(
        r"trainkit: error: the loss or a gradient is not finite in step (\d+) \(epoch 1, lr 0\.01; train samples "
        r"([\d, ]+) and 8 more\); lower optim\.lr, .* or on_nonfinite=skip\n",
        capfd.readouterr().err,
    )
    assert said is not None and int(said[1]) == BAD[0]
    batch = permutation(ROWS, 0, 0)[(BAD[0] - 1) * BATCH : BAD[0] * BATCH].tolist()
    assert HUGE in batch and said[2] == ", ".join(map(str, batch[:8]))
    run = only_run(scratch)
    (line,) = [line for line in (run / "train.log").read_text().splitlines() if "trained on these" in line]
    assert line.endswith(", ".join(map(str, batch)))
    assert read_status(run)["exit_code"] == 5
    known = record.read(run / "checkpoints")
    assert known is not None and known.last.step == BAD[0] - 1
    for state in (scratch / "states").iterdir():
        for file in (state / "checkpoints").glob("epoch*"):
            assert all(torch.isfinite(tensor).all() for tensor in checkpoint.load(file)[0].values())


def test_a_skipped_step_leaves_no_trace(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["train", *WORDS, "on_nonfinite=skip", "checkpoint_every=1steps", "keep_last=2"]
    with states_kept(scratch / "states"):
        assert main(words) == 0
    assert f"note: 3 of {3 * STEPS} steps skipped" in capfd.readouterr().out
    run = only_run(scratch)
    assert read_status(run)["result"]["skipped"] == 3
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["event"] == "step" and line["loss"] is None] == BAD
    assert all(np.isfinite(line["train/loss"]) for line in lines if line["event"] == "epoch")
    for step in BAD:
        before, after = (state_after(scratch / "states", each) for each in (step - 1, step))
        assert before and before == after
    for state in (scratch / "states").iterdir():  # and it goes on across a skip as it would have
        copy = copy_as_it_is(state, scratch / "copies" / state.name)
        assert main(["resume", str(copy), "plugins=[proofs_steep]"]) == 0
        assert facts(copy) == facts(run)


def state_after(states: Path, step: int) -> dict[str, str]:
    """The weights, buffers and optimizer state after a step."""
    for state in states.iterdir():
        known = record.read(state / "checkpoints")
        if known is not None and known.last.step == step:
            tensors, _ = checkpoint.load(state / "checkpoints" / known.last.file)
            return {name: of_tensor(value) for name, value in tensors.items() if not name.startswith("meter/")}
    raise AssertionError(step)


def test_more_than_may_be_skipped_stops_the_run(scratch: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *WORDS, "on_nonfinite=skip", "max_skipped=1"]) == 5
    error = capfd.readouterr().err
    assert f"in step {BAD[0]} (epoch 1" in error and ", the first of 2 such steps" in error
    known = record.read(only_run(scratch) / "checkpoints")
    assert known is not None and known.last.epoch == 1
    assert main(["resume", str(only_run(scratch)), "max_skipped=5", "plugins=[proofs_steep]"]) == 0


@pytest.mark.parametrize("words", [["optim=lbfgs"], ["max_skipped=0"], ["on_nonfinite=ignore"]])
def test_what_cannot_be_skipped(words: list[str], scratch: Path, capfd: Any) -> None:
    assert main(["train", *WORDS[:5], "device=cpu", "on_nonfinite=skip", *words]) == 2
    assert "Traceback" not in capfd.readouterr().err
