"""The first losses of trainkit equal those of a loop written by hand in plain PyTorch, bit for bit, on the CPU.

This file keeps that loop. It imports nothing of trainkit's but the data set: keys, order, normalization, initial
weights, model, loss and update are written out again, so a change of any of them shows here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trainkit.cli import main
from trainkit.data.checks import finish
from trainkit.data.dataset import hold_out
from trainkit.data.datasets.tables import digits

STEPS = 20


def key(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 2 * 2, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), fused=True)


def train_by_hand(
    make_model: Callable[[], nn.Module], make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], seed: int
) -> list[float]:
    data = digits(Path("unused"), 0)
    hold_out(data, "val", 0.1, 0)
    finish(data)
    images = torch.from_numpy(data.splits["train"].inputs)
    labels = torch.from_numpy(data.splits["train"].targets)
    pixels = images.double() / 255
    mean, std = pixels.mean().float(), pixels.std(correction=0).float()
    scale, shift = 1 / (std * 255), -mean / std

    torch.manual_seed(key(seed, "init"))
    model = make_model()
    optimizer = make_optimizer(model)
    loss_fn = nn.CrossEntropyLoss()
    losses: list[float] = []
    epoch = 0
    while len(losses) < STEPS:
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(key(seed, "order", epoch)))
        for index in order.split(128):
            optimizer.zero_grad()
            loss = loss_fn(model(images[index] * scale + shift), labels[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        epoch += 1
    return losses[:STEPS]


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("optim", [sgd, adam])
@pytest.mark.parametrize("model", [mlp, cnn])
def test_first_losses(
    model: Callable[[], nn.Module],
    optim: Callable[[nn.Module], torch.optim.Optimizer],
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [f"model={model.__name__}", f"optim={optim.__name__}", f"seed={seed}", "epochs=2", "log_every=1"]
    assert main(["train", "device=cpu", *words]) == 0
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["event"] == "step"]
    assert len(losses) >= STEPS
    assert np.array_equal(losses[:STEPS], train_by_hand(model, optim, seed))
