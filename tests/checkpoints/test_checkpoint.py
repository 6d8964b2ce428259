"""Checkpoints: the same bytes for the same state, damage noticed, only what fits loaded."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from trainkit.checkpoints import checkpoint
from trainkit.cli import main
from trainkit.errors import CheckpointError
from writers import damaged, packed

META = {"config": {"model": {"name": "é"}}, "progress": {"epoch": 1, "step": 2}, "spec": {}}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "model/a.weight": torch.randn(8, 16, generator=generator),
        "model/count": torch.tensor(7),
        "optim/a.weight/exp_avg": torch.randn(16, 8, generator=generator).t(),
    }


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(packed(tensors(), META))
    assert packed(dict(reversed(tensors().items())), META) == path.read_bytes()
    loaded, meta = checkpoint.load(path)
    assert meta["config"] == META["config"]
    for name, value in tensors().items():
        assert torch.equal(loaded[name], value)
    with safe_open(path, "pt") as file:  # any reader of safetensors opens it
        assert set(file.keys()) == set(tensors())


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    payload = packed(tensors(), META)
    path = tmp_path / "c.safetensors"
    for content in damaged(payload):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.load(path)


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle ran')",)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Boom()), b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}"])
def test_foreign_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a whole trainkit checkpoint"):
        checkpoint.load(path)


def test_newer_format_names_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(packed({}, {**META, "format": 99, "trainkit": "9.9"}))
    with pytest.raises(CheckpointError, match=r"written by trainkit 9\.9 in format 99; .* reads format 2"):
        checkpoint.read_header(path)


def test_a_model_that_does_not_fit_is_told_where(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    stored = {f"model/{name}": value for name, value in model.state_dict().items()}
    checkpoint.load_model(model, stored, tmp_path)
    stored["model/0.weight"] = torch.zeros(5, 4)
    stored["model/1.bias"] = stored["model/1.bias"].double()
    del stored["model/0.bias"]
    stored["model/extra"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_model(model, stored, tmp_path)
    assert "0.bias is missing" in str(error.value)
    assert "0.weight is (5, 4) torch.float32 there and (3, 4) torch.float32 here" in str(error.value)
    assert "(and 1 more)" in str(error.value)


def test_header_is_read_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "epochs=1", "device=cpu", "device.threads=1"]) == 0
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    code = (
        "import sys, json; from pathlib import Path; from trainkit.checkpoints import checkpoint;"
        f"print(json.dumps(checkpoint.read_header(checkpoint.locate(Path({str(run)!r})))['config']['model']));"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["name"] == "mlp"
