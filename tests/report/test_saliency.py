"""Where a model looked: at what decides, and nothing of the model is changed by asking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from trainkit.data.loaders import Normalize
from trainkit.data.spec import DataSpec, InputSpec, TargetSpec
from trainkit.report import pictures
from trainkit.training.saliency import Saliency, grad_cam, last_map

if TYPE_CHECKING:
    from conftest import CommandHere

CPU = torch.device("cpu")
FAST = ["device=cpu", "device.threads=1", "plots=false"]
SIZE, SQUARE = 24, 6


def squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise, uint8 (count, 1, 24, 24), with a square of stripes, along or across, somewhere: the class. And where."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 160, (count, 1, SIZE, SIZE), dtype=np.uint8)
    labels, places = np.arange(count) % 2, random.integers(0, SIZE - SQUARE, (count, 2))
    stripes = np.where(np.arange(SQUARE) % 2, 255, 0).astype(np.uint8)
    for image, label, (row, column) in zip(images, labels, places, strict=True):
        patch = np.tile(stripes, (SQUARE, 1))
        image[0, row : row + SQUARE, column : column + SQUARE] = patch if label else patch.T
    return images, labels, places


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A small network that tells the stripes apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    images, labels, _ = squares(512, 1)
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        for part in torch.randperm(512).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    return model.eval()


def at_the_square(heat: torch.Tensor, places: np.ndarray) -> float:
    """The share of maps whose largest value lies on the square, or next to it."""
    best = heat.flatten(1).argmax(dim=1)
    rows, columns = best // SIZE, best % SIZE
    found = [
        row - 1 <= int(r) <= row + SQUARE and column - 1 <= int(c) <= column + SQUARE
        for r, c, (row, column) in zip(rows, columns, places, strict=True)
    ]
    return float(np.mean(found))


def mapped(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The heat maps of what a model answers."""
    last = last_map(model, x)
    assert last is not None
    return grad_cam(model, last, x, model(x).argmax(dim=1))


def test_it_looks_at_what_decides(trained: nn.Module) -> None:
    images, labels, places = squares(64, 2)
    x = torch.from_numpy(images).float() / 255
    assert (trained(x).argmax(dim=1).numpy() == labels).mean() > 0.9
    heat = mapped(trained, x)
    assert heat.shape == (64, SIZE, SIZE) and heat.min() >= 0 and heat.max() <= 1
    assert at_the_square(heat, places) > 0.8
    torch.manual_seed(1)
    untrained = nn.Sequential(nn.Conv2d(1, 16, 5), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, 2)).eval()
    assert at_the_square(mapped(untrained, x), places) < at_the_square(heat, places)


def test_nothing_is_changed_and_frozen_weights_do_not_matter(trained: nn.Module) -> None:
    spec = DataSpec({"x": InputSpec("image", (1, SIZE, SIZE), "uint8", True, [0.3], [0.2])}, {"y": TargetSpec("t")})
    images, labels, _ = squares(20, 3)
    saliency = Saliency(trained, Normalize(spec, CPU), CPU)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    kept = [parameter.grad for parameter in trained.parameters()]
    trained.train()
    first = saliency(images, labels)
    assert trained.training and all(module.training for module in trained.modules())
    trained.requires_grad_(False)
    again = saliency(images, labels)
    trained.requires_grad_(True).eval()
    assert first is not None and first.dtype == np.uint8 and np.array_equal(first, again)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in trained.state_dict().items())
    gradients = [parameter.grad for parameter in trained.parameters()]
    assert all(ours is theirs for ours, theirs in zip(gradients, kept, strict=True))
    assert not trained._forward_hooks and not any(module._forward_hooks for module in trained.modules())


def test_a_model_without_maps_has_none() -> None:
    assert last_map(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.zeros(3, 1, 8, 8)) is None


@pytest.mark.slow
def test_a_report_shows_it_beside_errors_and_the_best(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ["train", "model=cnn", "epochs=2", "hydra.run.dir=run", *FAST]
    assert trainkit_here(*words).code == 0
    kept = pictures.read(tmp_path / "run")
    assert kept is not None
    for kind in ("error", "best"):
        assert kept[f"{kind}_heat"].shape == (len(kept[f"{kind}_index"]), 8, 8)
    assert len(kept["best_index"]) == 12
    assert trainkit_here("report", "run").code == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Known best" in page and page.count("where the model looked, ") >= 12
    damaged = dict(kept, best_heat=kept["best_heat"][:1])
    np.savez(tmp_path / "run" / pictures.FILE, **damaged)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="its best_heat does not fit its images"):
        pictures.read(tmp_path / "run")
    assert trainkit_here("train", "model=mlp", "epochs=1", "hydra.run.dir=plain", *FAST).code == 0
    plain = pictures.read(tmp_path / "plain")
    assert plain is not None and "best_images" in plain and "best_heat" not in plain
