"""Regression targets far from 0 for their spread, which float64 holds and float32 would round to one value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from conftest import trained
from trainkit.checkpoints.checkpoint import locate, read_header

if TYPE_CHECKING:
    from conftest import CommandHere

FAR = 1e9
X = np.random.default_rng(0).normal(size=(400, 6)).astype(np.float32)
Y = X[:, 0].astype(np.float64)


def train(folder: Path, name: str, targets: Any) -> Path:
    np.savez(folder / f"{name}.npz", x=X, y=targets)
    return trained(folder, "dataset=npz", f"dataset.file={name}.npz", "model.hidden=[16]", "epochs=5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("far")
    return {name: train(folder, name, targets) for name, targets in (("near", Y), ("far", Y + FAR))}


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "status.json").read_text())["result"]["metrics"]
    return found


def predictions(trainkit_here: CommandHere, run: Path) -> np.ndarray:
    np.savez("new.npz", x=X[:50])
    done = trainkit_here("predict", f"ckpt={run}", "input=new.npz", "--json")
    assert done.code == 0, done.err
    return np.array([json.loads(line)["prediction"] for line in done.out.splitlines()])


def test_they_are_learnt_as_if_they_were_near(runs: dict[str, Path]) -> None:
    near, far = metrics(runs["near"]), metrics(runs["far"])
    assert near["test"]["r2"] > 0.8
    for split in ("val", "test"):
        assert far[split] == pytest.approx(near[split], rel=1e-4)


def test_eval_repeats_them_exactly(runs: dict[str, Path], trainkit_here: CommandHere, tmp_path: Path) -> None:
    assert trainkit_here("eval", f"ckpt={runs['far']}").code == 0
    (again,) = tmp_path.glob("outputs/eval/*")
    assert metrics(again)["test"] == metrics(runs["far"])["test"]


def test_answers_are_kept_and_predicted_in_their_own_unit(runs: dict[str, Path], trainkit_here: CommandHere) -> None:
    kept = np.load(runs["far"] / "predictions.npz")
    assert np.std(kept["targets"]) > 0.5
    error = np.abs(kept["outputs"] - kept["targets"]).mean()
    assert error == pytest.approx(metrics(runs["far"])["test"]["mae"], rel=1e-4)
    far, near = (predictions(trainkit_here, runs[name]) for name in ("far", "near"))
    np.testing.assert_allclose(far - FAR, near, atol=1e-4)


def test_tables_of_predictions_hold_all_digits(
    runs: dict[str, Path], trainkit_here: CommandHere, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    wanted = predictions(trainkit_here, runs["far"])
    for name in ("out.csv", "out.parquet"):
        assert trainkit_here("predict", f"ckpt={runs['far']}", "input=new.npz", f"output={name}").code == 0
    rows = [line.split(",")[2] for line in (tmp_path / "out.csv").read_text().splitlines()[1:]]
    assert [float(row) for row in rows] == wanted.tolist()
    assert parquet.read_table(tmp_path / "out.parquet")["prediction"].to_pylist() == wanted.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_exports_give_them_in_double(
    suffix: str, runs: dict[str, Path], trainkit_here: CommandHere, tmp_path: Path
) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    done = trainkit_here("export", f"ckpt={runs['far']}", f"output=m.{suffix}", "--json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["output"]["dtype"] == "float64" and said["check"]["allowed"] < 1e-2  # not a share of 1e9
    from trainkit.export import formats

    content = (tmp_path / f"m.{suffix}").read_bytes()
    run = formats.from_onnx(content) if suffix == "onnx" else formats.from_pt2(content)
    import torch

    with torch.inference_mode():
        found = run(torch.from_numpy(X[:50]))[:, 0].numpy()
    np.testing.assert_allclose(found, predictions(trainkit_here, runs["far"]), rtol=0, atol=1e-4)


def test_float32_targets_stay_float32(diabetes_run: Path) -> None:
    target = read_header(locate(diabetes_run))["spec"]["targets"]["y"]
    assert target["dtype"] == "float32"
    kept = np.load(diabetes_run / "predictions.npz")
    assert kept["targets"].dtype == kept["outputs"].dtype == np.float32
