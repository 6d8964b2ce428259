"""Every model, in every format, computes what it computes here, for any number of samples at a time."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from trainkit import registry
from trainkit.data.loaders import Normalize
from trainkit.data.spec import INPUT, TARGET, DataSpec, InputSpec, TargetSpec
from trainkit.errors import TrainkitError
from trainkit.export import formats
from trainkit.export.formats import Deployed

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL: dict[str, dict[str, Any]] = {
    "resnet9": {"width": 4, "temperature": 0.1},
    "resnet18": {"width": 4},
    "airbench": {"widths": [8, 8]},
    "torchvision": {"arch": "resnet18"},
}
CASES: list[tuple[str, dict[str, Any]]] = [(name, SMALL.get(name, {})) for name in registry.names("model")]
CASES += [("mlp", {"norm": "batch", "dropout": 0.1}), ("mlp", {"norm": "layer", "activation": "gelu"})]
CASES += [("cnn", {"norm": "batch", "dropout": 0.1, "pooling": "avg"})]


def normalize() -> Normalize:
    """That of 3x16x16 images."""
    mean, std = (np.array(values, np.float32).tolist() for values in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]))
    spec = InputSpec("image", (3, 16, 16), "uint8", normalize=True, mean=mean, std=std)
    return Normalize(DataSpec({INPUT: spec}, {TARGET: TargetSpec("classification", list("abcde"))}), CPU)


def built(name: str, arguments: dict[str, Any]) -> nn.Module:
    """A model with weights and running statistics that are not the initial ones."""
    torch.manual_seed(0)
    model = registry.get("model", name).build((3, 16, 16), 5, **arguments)
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        model(torch.randn(8, 3, 16, 16))
    return model.eval()


def images(count: int = 7) -> Tensor:
    """Noise, of another contrast in each image, for the models to tell apart."""
    noise = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return (noise * torch.linspace(0, 255, count).view(-1, 1, 1, 1)).to(torch.uint8)


def write_and_read(kind: str, module: Deployed, example: Tensor, facts: dict[str, Any]) -> tuple[bytes, formats.Run]:
    if kind == "onnx":
        content = formats.to_onnx(module, example, "outputs", facts)
        return content, formats.from_onnx(content)
    content = formats.to_pt2(module, example, facts)
    return content, formats.from_pt2(content)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=[f"{name}-{'-'.join(map(str, a))}" for name, a in CASES])
def test_a_file_computes_what_the_model_computes(
    name: str, arguments: dict[str, Any], kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model, scale = built(name, arguments), normalize()
    module = Deployed(model, scale, nn.Softmax(dim=1)).eval()
    _, run = write_and_read(kind, module, images(2), {})
    with torch.inference_mode():
        wanted = model(scale.inputs(images())).softmax(dim=1)
        for count in (1, 2, 3, 7):
            torch.testing.assert_close(run(images()[:count]), wanted[:count], rtol=1e-5, atol=1e-6)
    assert wanted.std(dim=0).max() > 1e-3, "all samples look the same to this model"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_without_normalization_and_probabilities_it_is_the_model_itself(kind: str) -> None:
    model = built("mlp", {})
    inputs = normalize().inputs(images())
    _, run = write_and_read(kind, Deployed(model, None, None).eval(), inputs[:2], {})
    with torch.inference_mode():
        torch.testing.assert_close(run(inputs), model(inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", registry.names("model"))
def test_a_state_dict_holds_the_weights_by_name(name: str) -> None:
    model = built(name, SMALL.get(name, {}))
    content = formats.to_state_dict(model, {})
    inputs = normalize().inputs(images())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        assert torch.equal(formats.from_state_dict(content, model)(inputs), model(inputs))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_facts_are_in_each_file_as_other_programs_read_it(tmp_path: Path) -> None:
    import onnx

    facts = {"classes": ["é", "b"], "mean": [0.5]}
    model = built("linear", {})
    module = Deployed(model, normalize(), None).eval()
    proto = onnx.load_model_from_string(formats.to_onnx(module, images(2), "logits", facts))
    onnx.checker.check_model(proto, full_check=True)
    assert {entry.key: json.loads(entry.value) for entry in proto.metadata_props} == {formats.FACTS: facts}
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", formats.OPSET)]
    shapes = [[d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim] for end in proto.graph.input]
    assert shapes == [["batch", 3, 16, 16]] and proto.graph.input[0].name == "input"
    assert proto.graph.output[0].name == "logits" and proto.graph.output[0].type.tensor_type.shape.dim[0].dim_param

    extra = {formats.FACTS: ""}
    torch.export.load(io.BytesIO(formats.to_pt2(module, images(2), facts)), extra_files=extra)
    assert json.loads(extra[formats.FACTS]) == facts

    (tmp_path / "w.safetensors").write_bytes(formats.to_state_dict(model, facts))
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert json.loads(file.metadata()[formats.FACTS]) == facts
        assert set(file.keys()) == set(model.state_dict())


def test_a_pt2_holds_no_samples() -> None:
    """torch would store those it was traced with, which may be somebody's data."""
    module = Deployed(built("linear", {}), normalize(), None).eval()
    marked = torch.full((2, 3, 16, 16), 123, dtype=torch.uint8)
    archive = zipfile.ZipFile(io.BytesIO(formats.to_pt2(module, marked, {})))
    assert not [name for name in archive.namelist() if bytes([123] * 100) in archive.read(name)]


class Branching(nn.Module):
    """A model whose path depends on the values of its inputs, which a graph cannot express."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5] if x.sum() > 0 else -x.flatten(1)[:, :5]


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_what_torch_cannot_export_is_one_line(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TrainkitError, match=f"torch cannot export this model as {kind} ") as raised:
        write_and_read(kind, Deployed(Branching(), normalize(), None).eval(), images(2), {})
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
    assert capfd.readouterr() == ("", "")
