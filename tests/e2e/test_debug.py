"""`debug=`: real runs that are asked a question first."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trainkit.checkpoints import checkpoint

if TYPE_CHECKING:
    from conftest import Command, CommandHere

QUICK = ("device=cpu", "device.threads=1", "hydra.run.dir=run")


def status(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "status.json").read_text()))


def test_fast_sees_one_batch_of_each_split(trainkit_here: CommandHere, tmp_path: Path) -> None:
    done = trainkit_here("train", "debug=fast", "batch_size=50", *QUICK)
    assert (done.code, done.err) == (0, "")
    assert "train 50, val 50, test 50 samples" in done.out
    result = status(tmp_path / "run")["result"]
    assert (result["epochs"], result["steps"]) == (1, 1)
    with np.load(tmp_path / "run" / "predictions.npz") as kept:
        assert len(kept["targets"]) == 50


def test_the_samples_that_are_kept_are_those_of_the_whole_run(trainkit_here: CommandHere) -> None:
    """As many batches as there are change nothing."""
    whole = trainkit_here("train", "epochs=1", *QUICK)
    limited = trainkit_here("train", "epochs=1", "limit_batches=11", "device=cpu", "device.threads=1")
    assert whole.code == limited.code == 0
    first = [out.splitlines()[2].rpartition("|")[0] for out in (whole.out, limited.out)]
    assert first[0] == first[1]


def test_overfit_says_that_it_can(trainkit_here: CommandHere, tmp_path: Path) -> None:
    done = trainkit_here("train", "debug=overfit", *QUICK)
    assert done.code == 0
    (line,) = re.findall(r"overfit: yes: the loss of 128 samples went from (\S+) to (\S+) in (\d+) steps\n", done.out)
    assert float(line[0]) > 2 and float(line[1]) <= 0.01
    result = status(tmp_path / "run")["result"]
    assert (result["objective"], result["steps"]) == (pytest.approx(float(line[1]), abs=1e-4), int(line[2]))


def test_overfit_says_that_it_cannot(trainkit_here: CommandHere, tmp_path: Path) -> None:
    done = trainkit_here("train", "debug=overfit", "optim.lr=1e-6", "epochs=20", *QUICK)
    assert done.code == 1
    assert done.err.startswith("trainkit: error: overfit: no: the loss of 128 samples went from ")
    assert "in 20 steps" in done.err
    assert status(tmp_path / "run")["state"] == "failed"


@pytest.mark.slow
def test_profile_shows_a_table_and_writes_a_trace(trainkit: Command, tmp_path: Path) -> None:
    done = trainkit("train", "debug=profile", "profile=7", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 steps of 128 on cpu after 5 to warm up: " in done.stdout
    rows = re.findall(r"^ *(\d+\.\d+) +(\d+\.\d)% +([\d,]+)  (.+)$", done.stdout, re.M)
    assert len(rows) == 15 and all(len(line) <= 80 for line in done.stdout.splitlines())
    spent = [float(row[0]) for row in rows]
    assert spent == sorted(spent, reverse=True)
    calls = {row[3]: int(row[2].replace(",", "")) for row in rows}
    assert calls["aten::addmm"] == 7 * 3  # an MLP of three layers
    trace = json.loads(gzip.decompress((tmp_path / "run" / "trace.json.gz").read_bytes()))
    assert sum(event.get("name") == "aten::addmm" for event in trace["traceEvents"]) == 7 * 3


BAD = '''
import torch
from torch import nn

from trainkit.registry import register


class Bad(nn.Module):
    def __init__(self, num_outputs, how):
        super().__init__()
        self.how = how
        self.first = nn.Linear(64, num_outputs)

    def forward(self, x):
        y = self.first(x.flatten(1))
        if self.how == "log":
            return torch.log(y)
        if self.how == "exp":
            large = torch.exp(1000 * y)
            return large / large
        return torch.sqrt(0 * y)


@register("model")
def bad(in_shape, num_outputs, *, how: str = "log"):
    """A model that makes a nan."""
    return Bad(num_outputs, how)
'''


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("log", r"in step 1 the first nan came from aten::log in Bad \(.*my_bad.py:17: return torch.log\(y\)\)"),
        ("exp", r"aten::div.Tensor in Bad .*; the first infinity came from aten::exp in Bad \(.*: large = torch.exp"),
        ("sqrt", r"in step 1 the backward pass of \w+ gave nan; its forward call is return torch.sqrt\(0 \* y\) \("),
    ],
)
def test_anomaly_names_what_made_the_nan(how: str, said: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "my_bad.py").write_text(BAD)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "bad.yaml").write_text("name: bad\n")
    done = trainkit_here("train", "debug=anomaly", "plugins=[my_bad]", "model=bad", f"model.how={how}", *QUICK)
    assert done.code == 5
    (line,) = done.err.splitlines()
    assert re.search(said, line), line


def test_anomaly_changes_no_number(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("dataset=wine", "epochs=2", "optim=adam", "device=cpu", "device.threads=1")
    assert trainkit_here("train", "debug=anomaly", "hydra.run.dir=looked", *words).code == 0
    assert trainkit_here("train", "hydra.run.dir=plain", *words).code == 0
    looked, plain = (checkpoint.load(tmp_path / run / "checkpoints/last.safetensors")[0] for run in ("looked", "plain"))
    assert looked.keys() == plain.keys()
    assert all(torch.equal(looked[name], plain[name]) for name in looked)


def test_what_does_not_go_together(trainkit_here: CommandHere) -> None:
    done = trainkit_here("train", "debug=anomaly", "compile=default")
    assert done.code == 2 and "anomaly=true looks at every operation: set compile=null" in done.err
    done = trainkit_here("train", "debug=overfit", "profile=3")
    assert done.code == 2 and "ask one at a time" in done.err
    done = trainkit_here("train", "debug=overfitt")
    assert done.code == 2 and "overfit" in done.err
