"""A model that draws random numbers whenever it is called: what it draws depends on seed and batch, not on history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from conftest import trained
from trainkit.data.dataset import hold_out
from trainkit.data.datasets import tables
from writers import lay_out

if TYPE_CHECKING:
    from conftest import CommandHere

MODEL = """
from math import prod
from torch import nn
from trainkit.registry import register

class Drawing(nn.Module):
    def __init__(self, features, num_outputs):
        super().__init__()
        self.out = nn.Linear(features, num_outputs)

    def forward(self, x):
        return self.out(nn.functional.dropout(x.flatten(1), 0.5, training=True))

@register("model")
def drawing(in_shape, num_outputs):
    return Drawing(prod(in_shape), num_outputs)
"""
PLUGIN = "plugins=[drawing_models]"


@pytest.fixture(autouse=True)
def _model(tmp_path: Path) -> None:
    lay_out(tmp_path, {"drawing_models.py": MODEL, "conf/model/drawing.yaml": "name: drawing\n"})


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "status.json").read_text())["result"]["metrics"]
    return found


def test_eval_and_predict_give_what_the_end_of_training_gave(trainkit_here: CommandHere, tmp_path: Path) -> None:
    run = trained(tmp_path, "model=drawing", "epochs=2", "batch_size=64", "seed=3", PLUGIN)
    for split in ("val", "test", "test"):
        done = trainkit_here("eval", f"ckpt={run}", f"split={split}", f"output_dir=of-{split}", PLUGIN)
        assert done.code == 0, done.err
        folder = max((tmp_path / f"of-{split}" / "eval").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        assert metrics(folder)[split] == metrics(run)[split]
    data = tables.digits(Path(), 0)
    hold_out(data, "val", 0.1, 0)
    np.savez(tmp_path / "x.npz", x=data.splits["test"].inputs)
    done = trainkit_here("predict", f"ckpt={run}", "input=x.npz", "--json", PLUGIN)
    classes = [int(json.loads(line)["class"]) for line in done.out.splitlines()]
    assert classes == np.load(run / "predictions.npz")["predicted"].tolist()
    other = trainkit_here("predict", f"ckpt={run}", "input=x.npz", "--json", "seed=4", PLUGIN)
    assert other.code == 0 and other.out != done.out


def test_batches_draw_other_numbers(trainkit_here: CommandHere, tmp_path: Path) -> None:
    """One sample twice, in two batches."""
    run = trained(tmp_path, "model=drawing", "epochs=1", PLUGIN)
    np.savez(tmp_path / "x.npz", x=np.repeat(tables.digits(Path(), 0).splits["test"].inputs[:1], 2, axis=0))
    done = trainkit_here("predict", f"ckpt={run}", "input=x.npz", "--json", "batch_size=1", PLUGIN)
    one, two = (json.loads(line)["probability"] for line in done.out.splitlines())
    assert one != two
