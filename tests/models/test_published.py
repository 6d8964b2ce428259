"""The models of other libraries: found by name, fitted to the data, and in every bit the library's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import ROOT
from trainkit.errors import ConfigError
from trainkit.init import fit
from trainkit.init.weights import read_file
from trainkit.models._published import registered
from trainkit.models.timm_models import timm
from trainkit.models.torchvision_models import torchvision

if TYPE_CHECKING:
    from conftest import CommandHere

DATA = Path(os.environ.get("TRAINKIT_DATA", ROOT.parent / "shared" / "datasets"))
PHOTOS = DATA / "images" / "hymenoptera" / "val" / "bees"
MOBILENET = DATA / "weights" / "mobilenet_v2" / "mobilenet_v2_torchvision_nohead.safetensors"
LITE = DATA / "weights" / "efficientnet_lite0" / "tf_efficientnet_lite0_timm.fp16.safetensors"
needs_data = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photos and weights under {DATA}; set TRAINKIT_DATA")


def photos() -> torch.Tensor:
    """Four real photos, uint8 (4, 3, 224, 224)."""
    files = sorted(PHOTOS.iterdir())[:4]
    pixels = [np.asarray(Image.open(file).convert("RGB").resize((224, 224))) for file in files]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def test_names_are_read_from_the_sources() -> None:
    import timm as timm_itself
    from torchvision import models

    assert registered("torchvision") == sorted(models.list_models(module=models))
    assert registered("timm") == sorted(timm_itself.list_models())
    assert registered("no_such_library") == []


@pytest.mark.slow
@pytest.mark.parametrize("arch", [arch for arch in registered("torchvision") if arch != "regnet_y_128gf"])  # of 2.5 GB
def test_every_model_of_torchvision_gets_a_head(arch: str) -> None:
    size = {"inception_v3": 96}.get(arch, 224 if arch.startswith(("maxvit", "vit")) else 64)
    with torch.device("cpu" if arch.startswith("regnet") else "meta"):
        model = torchvision((3, size, size), 7, arch=arch)
    head = model.get_submodule(model.published.head)  # type: ignore[union-attr]
    assert isinstance(head, (nn.Linear, nn.Conv2d))
    assert head.weight.shape[0] == 7
    assert fit.head_of(model) == model.published.head  # type: ignore[union-attr]
    assert len(model.published.mean) == 3  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(("build", "arch"), [(torchvision, "shufflenet_v2_x0_5"), (timm, "tf_efficientnet_lite0")])
def test_other_channels_and_sizes_fit(build: type, arch: str) -> None:
    for shape in ((1, 32, 32), (4, 48, 40), (3, 64, 96)):
        model = build(shape, 5, arch=arch).eval()
        assert model(torch.zeros(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize(
    ("build", "arch", "shape", "fits"),
    [
        (torchvision, "vgg11", (3, 16, 16), 32),
        (torchvision, "vit_b_32", (3, 100, 100), 96),
        (torchvision, "vit_b_32", (3, 96, 64), 96),
        (torchvision, "maxvit_t", (3, 200, 200), 224),
    ],
)
def test_what_does_not_fit_says_what_does(build: type, arch: str, shape: tuple[int, ...], fits: int) -> None:
    with pytest.raises(ConfigError, match=f"{arch} cannot take images of .*; dataset.image_size={fits} fits"):
        build(shape, 2, arch=arch)
    assert build((3, fits, fits), 2, arch=arch) is not None


def test_tables_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs images, but the data set is a table of 8 features"):
        torchvision((8,), 2)


@needs_data
def test_logits_are_those_of_torchvision() -> None:
    from torchvision.models import mobilenet_v2
    from torchvision.transforms.v2 import functional

    ours = torchvision((3, 224, 224), 1000, arch="mobilenet_v2").eval()
    weights = read_file(MOBILENET).checked(ours.published, [], None, None, None)  # type: ignore[arg-type]
    assert str(fit.fit(ours, weights, None, 0)) == "312 matched, 2 new (classifier.1.*), 0 unused"
    theirs = mobilenet_v2().eval()
    theirs.load_state_dict(weights.tensors, strict=False)
    theirs.classifier.load_state_dict(ours.get_submodule("classifier").state_dict())
    assert weights.mean is not None and weights.std is not None
    pixels = functional.normalize(photos().float() / 255, weights.mean, weights.std)
    with torch.no_grad():
        assert torch.equal(ours(pixels), theirs(pixels))


@needs_data
def test_logits_are_those_of_timm_and_name_the_bees() -> None:
    from timm import create_model

    ours = timm((3, 224, 224), 1000).eval()
    weights = read_file(LITE).checked(ours.published, [], None, None, None)  # type: ignore[arg-type]
    assert str(fit.fit(ours, weights, None, 0)) == "296 matched, 0 new, 0 unused"
    theirs = create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict({name: tensor.float() for name, tensor in weights.tensors.items()}, strict=False)
    assert weights.mean == weights.std == [0.5, 0.5, 0.5]
    with torch.no_grad():
        logits = ours(photos().float() / 127.5 - 1)
        assert torch.equal(logits, theirs(photos().float() / 127.5 - 1))
    assert int((logits.argmax(dim=1) == 309).sum()) >= 3  # ImageNet's bee


def test_ls_lists_them_by_pattern(trainkit_here: CommandHere) -> None:
    found = trainkit_here("ls", "model.arch", "--model", "timm", "tf_efficientnet_lite?")
    assert found.out.splitlines() == [f"tf_efficientnet_lite{n}" for n in range(5)]
    both = json.loads(trainkit_here("ls", "model.arch", "mobilenet_v2", "--json").out)
    assert both == {"timm": [], "torchvision": ["mobilenet_v2"]}
    nothing = trainkit_here("ls", "model.arch", "mobilnet_v2")
    assert nothing.code == 2 and "no model matches 'mobilnet_v2'; there is mobilenet" in nothing.err
    assert "unknown" not in trainkit_here("ls", "model").err


def test_a_wrong_name_is_told_without_torch(trainkit_here: CommandHere) -> None:
    wrong = trainkit_here("train", "model=torchvision", "model.arch=mobilnet_v2")
    assert wrong.code == 2
    assert "model.arch: there is no model of torchvision 'mobilnet_v2' (did you mean mobilenet_v2?)" in wrong.err
    assert "trainkit ls model.arch --model torchvision lists them" in wrong.err
