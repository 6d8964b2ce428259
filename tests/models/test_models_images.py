"""The image families: against torchvision and the papers' counts, whitening, refusals, tiny training runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models as torchvision_models

from trainkit.checkpoints import checkpoint
from trainkit.cli import main
from trainkit.errors import ConfigError
from trainkit.models._blocks import Whitening
from trainkit.models.airbench import airbench
from trainkit.models.resnet import resnet9, resnet18

FAMILIES = {
    "resnet9": lambda in_shape: resnet9(in_shape, 10, width=4),
    "resnet18": lambda in_shape: resnet18(in_shape, 10, width=4),
    "airbench": lambda in_shape: airbench(in_shape, 10, widths=[8, 16, 16]),
}


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_parameter_counts_are_those_of_the_papers() -> None:
    assert count(resnet9((3, 32, 32), 10)) == 6_573_120  # Page 2018
    assert count(resnet18((3, 32, 32), 10)) == 11_173_962
    convolutions = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    norms = 2 * 2 * (64 + 256 + 256)
    assert count(airbench((3, 32, 32), 10)) == 24 * 12 + 24 + convolutions + norms + 2560


@pytest.mark.parametrize("in_shape", [(3, 32, 32), (1, 28, 28), (3, 9, 17), (2, 64, 48)])
@pytest.mark.parametrize("name", FAMILIES)
def test_shapes_and_gradients(name: str, in_shape: tuple[int, ...]) -> None:
    model = FAMILIES[name](in_shape)
    out = model(torch.randn(4, *in_shape))
    assert out.shape == (4, 10)
    functional.cross_entropy(out, torch.arange(4)).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is not None and parameter.grad.isfinite().all()) == parameter.requires_grad, key


@pytest.mark.parametrize("name", FAMILIES)
def test_channels_last_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    model, images = FAMILIES[name]((3, 16, 16)).eval(), torch.randn(3, 3, 16, 16)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    assert torch.allclose(model(images.to(memory_format=torch.channels_last)), expected, atol=1e-5)


def test_resnet18_is_torchvisions_with_the_small_stem() -> None:
    torch.manual_seed(0)
    ours = resnet18((3, 32, 32), 10)
    theirs = torchvision_models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(4, 3, 32, 32)
    for mode in (True, False):
        assert torch.allclose(ours.train(mode)(images), theirs.train(mode)(images), atol=1e-4)
    spread = ours.state_dict()["layer3.0.conv2.weight"].std()
    assert float(spread) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_resnet9_ends_in_max_pooling_and_a_temperature() -> None:
    model = resnet9((3, 32, 32), 10, width=4, temperature=5).eval()
    x = model[:-3](torch.randn(2, 3, 32, 32))
    assert x.shape == (2, 32, 4, 4)
    expected = model[-2](functional.max_pool2d(x, 4).flatten(1)) / 5
    assert torch.allclose(model[-3:](x), expected, atol=1e-6)


def correlated(n: int = 300, size: int = 12) -> torch.Tensor:
    noise = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))
    smooth = functional.avg_pool2d(noise, 3, stride=1)  # neighbors alike
    return smooth + 0.5 * smooth.flip(1)  # channels alike


@pytest.mark.parametrize("channels", [1, 3])
def test_whitening_whitens_the_patches_of_the_images(channels: int) -> None:
    images = correlated()[:, :channels]
    layer = Whitening(channels)
    layer.whiten(images, eps=0)
    size = 4 * channels
    outputs = layer(images)
    assert outputs.shape == (300, 2 * size, 9, 9)
    assert torch.allclose(outputs[:, size:], -outputs[:, :size], atol=1e-5)
    rows = outputs[:, :size].transpose(0, 1).flatten(1).double()
    assert torch.allclose(rows @ rows.T / rows.shape[1], torch.eye(size).double(), atol=1e-3)
    patches = functional.unfold(images, 2).transpose(0, 1).flatten(1)
    assert (patches @ patches.T / patches.shape[1] - torch.eye(size)).abs().max() > 0.3  # they were not white before
    layer.whiten(images)
    assert layer(images).abs().max() < outputs.abs().max()  # eps holds the weakest components down


def test_airbench_starts_as_the_identity_behind_the_first_layer() -> None:
    model = airbench((3, 32, 32), 10)
    x = torch.randn(2, 24, 8, 8)
    assert torch.allclose(model[2](x)[:, :24], x, atol=1e-6)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == [
        "0.weight",
        *(f"{i}.weight" for i in (4, 7, 11, 14, 18, 21)),
    ]


@pytest.mark.parametrize(("model", "least"), [(resnet9, 8), (resnet18, 8), (airbench, 9)])
def test_refuses_tables_and_small_images(model, least: int) -> None:
    name = model.__name__
    with pytest.raises(ConfigError, match=f"model {name} needs images, but the data set is a table of 4 features"):
        model((4,), 2)
    with pytest.raises(ConfigError, match=f"model {name} needs images of at least {least}x{least}, got 32x{least - 1}"):
        model((3, 32, least - 1), 2)
    assert model((3, least, least), 2)(torch.zeros(2, 3, least, least)).shape == (2, 2)


def train(*words: str) -> tuple[Path, dict[str, object]]:
    before = set(Path("outputs/train").glob("*"))
    assert main(["train", "device=cpu", "device.threads=1", *words]) == 0
    (run,) = set(Path("outputs/train").glob("*")) - before
    return run, json.loads((run / "status.json").read_text())["result"]["metrics"]["test"]


@pytest.mark.parametrize(("optim", "lr"), [("sgd", 0.3), ("muon", 0.02), ("adamw", 0.01)])
def test_airbench_learns_digits_with_its_first_layer_whitened_and_frozen(
    optim: str, lr: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["model=airbench", "model.widths=[16,16]", f"optim={optim}", f"optim.lr={lr}"]
    first, _ = train(*words, "epochs=1")
    again, metrics = train(*words, "epochs=5")
    assert float(str(metrics["accuracy"])) > 0.7
    weights = [checkpoint.load(run / "checkpoints" / "last.safetensors")[0]["model/0.weight"] for run in (first, again)]
    assert torch.equal(*weights)
    assert torch.equal(weights[0][:4], -weights[0][4:])  # taken from the data, not left random
    assert main(["eval", f"ckpt={again}"]) == 0


def test_resnet9_learns_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, metrics = train("model=resnet9", "model.width=8", "epochs=6")
    assert float(str(metrics["accuracy"])) > 0.8
