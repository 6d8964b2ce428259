"""`trainkit export`: files that other programs read, compared with the model on real inputs before they are written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors import safe_open
from safetensors.torch import load_file

from conftest import clean_environment, trained
from trainkit.data.images.decode import decode_rows
from trainkit.data.images.fit import Rule
from trainkit.export import formats
from writers import image, lay_out

if TYPE_CHECKING:
    from conftest import CommandHere

pytestmark = pytest.mark.slow


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_onnx_takes_pixels_and_gives_the_probabilities_of_predict(
    digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    done = trainkit_here("export", f"ckpt={digits_run}", "output=m.onnx", "probabilities=true", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["format"] == "onnx" and said["opset"] == 18 and said["classes"] == list("0123456789")
    assert said["input"] == {"name": "input", "shape": ["batch", 1, 8, 8], "dtype": "uint8", "normalized": False}
    assert said["output"]["name"] == "probabilities" and said["check"]["source"] == "64 test samples of digits"
    assert 0 <= said["check"]["difference"] < 1e-5
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", x=pixels)
    rows = [
        json.loads(line)
        for line in trainkit_here("predict", f"ckpt={digits_run}", "input=x.npz", "--json").out.splitlines()
    ]
    onnx = session(tmp_path / "m.onnx")
    (found,) = onnx.run(None, {"input": pixels})
    assert [str(label) for label in found.argmax(axis=1)] == [row["class"] for row in rows]
    np.testing.assert_allclose(found.max(axis=1), [row["probability"] for row in rows], atol=1e-5)
    facts = json.loads(onnx.get_modelmeta().custom_metadata_map[formats.FACTS])
    assert facts["classes"] == said["classes"] and facts["checkpoint"]["progress"]["epoch"] > 0


def test_pt2_runs_with_torch_alone(diabetes_run: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    """A regression: raw features in, the target in its own unit out, without importing trainkit."""
    done = trainkit_here("export", f"ckpt={diabetes_run}", "output=m.pt2")
    assert done.code == 0 and "predictions float32 (batch, 1)" in done.out, done.err
    (tmp_path / "x.csv").write_text("59,2,32.1,101,157,93.2,38,4,4.8598,87\n48,1,21.6,87,183,103.2,70,3,3.8918,69\n")
    rows = [
        json.loads(line)
        for line in trainkit_here("predict", f"ckpt={diabetes_run}", "input=x.csv", "--json").out.splitlines()
    ]
    script = """
import sys, numpy, torch
x = torch.from_numpy(numpy.loadtxt("x.csv", delimiter=",", dtype="float32"))
print(*torch.export.load("m.pt2").module()(x)[:, 0].tolist())
assert "trainkit" not in sys.modules
"""
    alone = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    np.testing.assert_allclose([float(x) for x in alone.stdout.split()], [row["prediction"] for row in rows], rtol=1e-5)


def test_a_state_dict_fits_a_network_written_by_hand(
    iris_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    done = trainkit_here("export", f"ckpt={iris_run}", "output=m.safetensors")
    assert done.code == 0 and "largest difference 0.0e+00" in done.out, done.err
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    network.load_state_dict(load_file(tmp_path / "m.safetensors"))
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        facts = json.loads(file.metadata()[formats.FACTS])
    flower = [5.1, 3.5, 1.4, 0.2]
    (tmp_path / "x.csv").write_text(",".join(map(str, flower)) + "\n")
    row = json.loads(trainkit_here("predict", f"ckpt={iris_run}", "input=x.csv", "--json").out)
    normalized = (torch.tensor([flower]) - torch.tensor(facts["mean"])) / torch.tensor(facts["std"])
    probabilities = network(normalized).softmax(dim=1)[0]
    assert facts["input"]["normalized"] and facts["classes"][int(probabilities.argmax())] == row["class"]
    assert float(probabilities.detach().max()) == pytest.approx(row["probability"], abs=1e-5)


def test_without_normalization_it_takes_what_the_model_takes(
    diabetes_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    done = trainkit_here("export", f"ckpt={diabetes_run}", "output=m.onnx", "normalize=false")
    assert done.code == 0 and "input float32 (batch, 10), normalized" in done.out, done.err
    onnx = session(tmp_path / "m.onnx")
    facts = json.loads(onnx.get_modelmeta().custom_metadata_map[formats.FACTS])
    (at_the_mean,) = onnx.run(None, {"input": np.zeros((1, 10), np.float32)})
    (tmp_path / "x.csv").write_text(",".join(map(str, facts["mean"])) + "\n")
    row = json.loads(trainkit_here("predict", f"ckpt={diabetes_run}", "input=x.csv", "--json").out)
    in_unit = float(at_the_mean[0, 0]) * facts["target_std"][0] + facts["target_mean"][0]
    assert in_unit == pytest.approx(row["prediction"], rel=1e-4)


def test_a_file_that_differs_is_not_written(digits_run: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"old")
    words = ["export", f"ckpt={digits_run}", "output=m.onnx", "overwrite=true", "tolerance=1e-30"]
    done = trainkit_here(*words)
    assert done.code == 1 and done.out == ""
    assert "the onnx file differs from the model by" in done.err and "nothing was written" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"] and (tmp_path / "m.onnx").read_bytes() == b"old"
    done = trainkit_here(*words[:-2])
    assert done.code == 2 and "it exists; name another file, or add overwrite=true" in done.err
    done = trainkit_here(*words[:-1])
    assert done.code == 0 and (tmp_path / "m.onnx").read_bytes() != b"old"


def test_without_the_data_set_it_is_checked_with_inputs_that_are_given(
    trainkit_here: CommandHere, tmp_path: Path
) -> None:
    for number in range(20):
        lay_out(tmp_path, {f"photos/{label}/{number}.png": image(seed=number) for label in ("cat", "dog")})
    words = ["dataset=folder", "dataset.root=photos", "dataset.image_size=8", "model.hidden=[4]", "epochs=1"]
    run = trained(tmp_path, *words)
    done = trainkit_here("export", f"ckpt={run}", "output=m.pt2", "loader=streaming")
    assert done.code == 0 and "checked with 8 test samples of folder" in done.out, done.err
    shutil.move(tmp_path / "photos" / "cat" / "3.png", tmp_path / "one.png")
    shutil.rmtree(tmp_path / "photos")
    done = trainkit_here("export", f"ckpt={run}", "output=m2.pt2")
    assert done.code == 3 and not (tmp_path / "m2.pt2").exists()
    assert "to check the export with other real inputs, add input=FILE|FOLDER" in done.err
    done = trainkit_here("export", f"ckpt={run}", "output=m2.pt2", "input=one.png")
    assert done.code == 0 and "checked with 1 samples of input=one.png" in done.out, done.err
    (tmp_path / "bad.png").write_text("no image")
    done = trainkit_here("export", f"ckpt={run}", "output=m3.pt2", "input=bad.png")
    assert done.code == 3 and "bad.png: not a readable image" in done.err and not (tmp_path / "m3.pt2").exists()


PLUGIN = """
from torch import nn
from trainkit import register

class Branching(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        x = x.flatten(1)
        return self.layer(x) if x.sum() > -1e9 else -self.layer(x)

@register("model")
def branching(in_shape, num_outputs):
    return Branching(in_shape[0], num_outputs)
"""


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_model_that_torch_cannot_export(kind: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(PLUGIN)
    lay_out(tmp_path, {"conf/model/branching.yaml": "name: branching\n"})
    plugin = "plugins=[my_models]"
    run = trained(tmp_path, "dataset=iris", "model=branching", "epochs=1", plugin)
    done = trainkit_here("export", f"ckpt={run}", f"output=m.{kind}")
    assert done.code == 2 and "add plugins=[my_models]" in done.err
    done = trainkit_here("export", f"ckpt={run}", f"output=m.{kind}", plugin)
    assert done.code == 1 and len(done.err.splitlines()) == 1
    assert f"torch cannot export this model as {kind}" in done.err and not (tmp_path / f"m.{kind}").exists()
    done = trainkit_here("export", f"ckpt={run}", "output=m.safetensors", plugin)
    assert done.code == 0, done.err


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_the_extra_that_is_missing_is_named(missing: str, digits_run: Path, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from trainkit.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "export", f"ckpt={digits_run}", "output=m.onnx"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == f"trainkit: error: format=onnx needs {missing}: pip install 'trainkit[onnx]'\n"


def test_the_command_prints_nothing_but_its_own_lines(digits_run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainkit", "export", f"ckpt={digits_run}", "output=m.onnx"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("", 2, "output is required (a path): add output=…"),
        ("output=m.pth", 2, "output=m.pth: no format has this suffix (.onnx, .pt2, .safetensors)"),
        ("output=m.pt2 format=torchscript", 2, "format: value 'torchscript' is not known"),
        ("output=m.safetensors probabilities=true", 2, "probabilities=true: a state_dict has none"),
        ("output=m.pt2 tolerance=0", 2, "tolerance: expected a number > 0"),
        ("output=m.pt2 dataset=wine", 4, "dataset wine has inputs x 13"),
        ("output=m.pt2 device=cpu", 2, "key 'device' is not known"),
        ("output=m.pt2 input=x.csv", 3, "the model takes 1x8x8 images"),
        ("output=m.pt2 -m split_seed=1,2", 2, "trainkit export does one thing at a time"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: str, code: int, message: str, digits_run: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    done = trainkit_here("export", f"ckpt={digits_run}", *words.split())
    assert done.code == code and message in done.err, done.err
    assert len(done.err.splitlines()) == 1 and done.out == "" and not list(tmp_path.iterdir())


def pixels_by(rule: dict[str, Any], file: Path) -> Any:
    """An image file prepared as another program would, from what stands in trainkit.json."""
    resize, least = rule["resize"], rule["jpeg_reduced_to_at_least"]
    assert (rule["orientation"], rule["gray16"], rule["layout"]) == ("exif", "upper 8 bits", "CHW")
    assert resize["antialias"] and rule["range"] == [0, 255] and rule["transparency"] == "on white"
    assert resize["keep_aspect"] == (resize["rule"] != "squash")
    size, filter_ = (resize["width"], resize["height"]), Image.Resampling[resize["filter"].upper()]
    opened = Image.open(file)
    opened.draft(rule["mode"], (least * size[0], least * size[1]))
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
    if upright.has_transparency_data:
        layers = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    photo = upright.convert(rule["mode"])
    if resize["rule"] == "crop":
        small = ImageOps.fit(photo, size, filter_, bleed=(1 - resize["crop_share"]) / 2)
    else:
        small = ImageOps.pad(photo, size, filter_) if resize["rule"] == "pad" else photo.resize(size, filter_)
    values = np.asarray(small)
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


@pytest.mark.parametrize(
    ("mode", "resize", "share"),
    [("rgb", "squash", 1.0), ("gray", "squash", 1.0), ("rgb", "crop", 0.9), ("gray", "pad", 1.0)],
)
def test_another_program_prepares_the_same_pixels(
    trainkit_here: CommandHere, tmp_path: Path, mode: str, resize: str, share: float
) -> None:
    lay_out(tmp_path, {f"photos/{c}/{i}.png": image(size=16, seed=i) for c in ("cat", "dog") for i in range(10)})
    words = ("dataset=folder", "dataset.root=photos", f"dataset.mode={mode}", "dataset.image_size=12", "model=linear")
    words = (*words, f"dataset.resize={resize}", f"dataset.crop_share={share}")
    run = trained(tmp_path, *words, "val_fraction=0", "epochs=1")
    assert trainkit_here("export", f"ckpt={run}", "output=m.pt2").code == 0
    extra = {formats.FACTS: ""}
    torch.export.load(tmp_path / "m.pt2", extra_files=extra)
    rule = json.loads(extra[formats.FACTS])["image_files"]
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((400, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    photo.save(tmp_path / "large.jpg", exif=exif)
    photo.quantize(16).save(tmp_path / "palette.png", transparency=3)
    photo.convert("L").resize((12, 12)).save(tmp_path / "fits.png")
    Image.fromarray(rng.integers(0, 1 << 16, (20, 25), dtype=np.uint16)).save(tmp_path / "deep.png")
    for name in ("large.jpg", "palette.png", "fits.png", "deep.png", "photos/cat/0.png"):
        ours = np.zeros((1, 1 if mode == "gray" else 3, 12, 12), np.uint8)
        assert decode_rows([str(tmp_path / name)], ours, None, Rule(mode, resize, share)) == []
        np.testing.assert_array_equal(pixels_by(rule, tmp_path / name), ours[0], err_msg=name)
