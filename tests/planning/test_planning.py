"""The measurements behind `trainkit plan`, against numbers worked out by hand and real runs of the process."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import clean_environment
from trainkit import registry
from trainkit.console.chart import curve
from trainkit.data.batch import Batch
from trainkit.losses.base import as_loss
from trainkit.planning.layers import measure_work
from trainkit.planning.lr_range import judge
from trainkit.planning.max_batch import search
from trainkit.planning.memory import TensorPeak

pytestmark = pytest.mark.slow

LOSS = as_loss(nn.CrossEntropyLoss())


def test_flops_of_linear_layers_are_those_of_their_products() -> None:
    model = nn.Sequential(nn.Linear(20, 30, bias=False), nn.ReLU(), nn.Linear(30, 5, bias=False))
    work = measure_work(model, LOSS, Batch(torch.randn(4, 20), torch.tensor([0, 1, 2, 3]), torch.arange(4)))
    assert work.forward_flops == 2 * (20 * 30 + 30 * 5)
    assert work.backward_flops == 2 * (20 * 30 + 2 * 30 * 5)  # the data needs no gradient, the hidden layer does
    assert [(layer.name, layer.parameters, layer.output) for layer in work.layers] == [
        ("0", 600, (30,)),
        ("1", 0, (30,)),
        ("2", 150, (5,)),
    ]
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", registry.names("model"))
def test_the_layers_of_every_model_sum_up_to_the_model(name: str) -> None:
    model = registry.get("model", name).build((3, 32, 32), 10)
    work = measure_work(model, LOSS, Batch(torch.randn(2, 3, 32, 32), torch.tensor([1, 2]), torch.arange(2)))
    assert sum(layer.parameters for layer in work.layers) == sum(p.numel() for p in model.parameters())
    assert sum(layer.flops for layer in work.layers) == work.forward_flops
    assert work.forward_flops <= work.backward_flops <= 2 * work.forward_flops


def test_the_peak_counts_what_lives_at_one_time() -> None:
    with TensorPeak() as peak:
        for _ in range(3):
            first = torch.zeros(1000)  # 4,000 bytes
            second = first + 1
            view = second[:10]
            del first, second, view
    assert (peak.peak, peak.now) == (8000, 0)


@pytest.mark.parametrize("top", [1, 7, 1000])
@pytest.mark.parametrize("limit", [0, 1, 2, 3, 5, 100, 999, 5000])
def test_the_search_for_the_largest_batch_ends_at_the_limit_or_the_top(top: int, limit: int) -> None:
    tried: list[int] = []

    def fits(batch_size: int) -> bool:
        tried.append(batch_size)
        return batch_size <= limit

    largest, right = search(fits, top), min(limit, top)
    assert right - right // 16 <= largest <= right and len(tried) <= 20
    assert len(tried) == len(set(tried)) and max(tried) <= top


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_largest_batch_is_a_step_that_was_tried(tmp_path: Path) -> None:
    words = ["dataset=synthetic", "dataset.task=classification", "dataset.samples=60000", "dataset.features=64"]
    words += ["model=mlp", "model.hidden=[512,512]", "device=cuda", "--max-batch", "--memory", "300MB", "--json"]
    command = [sys.executable, "-m", "trainkit", "plan", *words]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)["max_batch"]
    assert found["bound"] == "memory" and found["limit"] == 300_000_000
    largest = next(trial for trial in found["trials"] if trial["batch_size"] == found["largest"])
    assert largest["fits"] and largest["peak"] <= found["limit"]
    assert all(trial["batch_size"] > found["largest"] for trial in found["trials"] if not trial["fits"])


def test_the_lr_range_finds_the_fall_of_a_curve_that_is_known() -> None:
    lrs = [10 ** (-6 + 6 * i / 299) for i in range(300)]
    losses = [2.0 - 1.8 / (1 + (1e-3 / lr) ** 2) + (lr / 0.1) ** 2 for lr in lrs]  # falls about 1e-3, rises from 0.1
    found = judge(lrs, losses)
    assert found.falls is not None and found.fastest is not None and found.lowest is not None
    assert found.suggestion is not None
    assert found.fastest == pytest.approx(1e-3, rel=0.4)
    assert found.falls < found.fastest < found.suggestion < found.lowest < 0.1
    flat = judge(lrs, [2.0 + 0.01 * (i % 3) for i in range(300)])
    assert flat.suggestion is None and flat.fastest is None
    assert judge(lrs[:5], losses[:5]).suggestion is None


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("braille", [True, False])
def test_a_curve_fits_and_shows_its_ends(width: int, braille: bool) -> None:
    lines = curve([i / 999 for i in range(1000)], width=width, height=6, left="step 1", right="1,000", braille=braille)
    assert len(lines) == 7 and all(len(line) <= width for line in lines)
    assert lines[0].startswith("1 ") and lines[5].startswith("0 ") and lines[6].split() == ["step", "1", "1,000"]
    assert braille or all(line.isascii() for line in lines)
    body = [re.sub(r"^\S* *[|│]", "", line) for line in lines[:6]]
    first = [next(i for i, cell in enumerate(row) if cell != " ") for row in body]
    assert first == sorted(first, reverse=True)  # a rising line: the top row's dots lie farthest to the right


def test_a_curve_leaves_out_what_is_not_finite() -> None:
    lines = curve([1.0, float("nan"), float("inf"), 3.0], width=40, height=4)
    assert lines[0].startswith("3 ") and lines[3].startswith("1 ")
    assert len(curve([2.0, 2.0], width=40, height=4)) == 5
    with pytest.raises(ValueError, match="finite"):
        curve([float("nan")], width=40)
