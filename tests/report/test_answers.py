"""predictions.npz and pictures.npz: what training and evaluation leave behind for those who look at a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from trainkit.data.batch import Batch
from trainkit.data.dataset import Data
from trainkit.data.loaders import Normalize
from trainkit.data.spec import InputSpec, TargetSpec
from trainkit.data.splits import Split
from trainkit.report import pictures
from trainkit.run_folders import predictions
from trainkit.run_folders.predictions import Collector, Predictions

if TYPE_CHECKING:
    from conftest import CommandHere

PLAIN = InputSpec("features", (1,), "float32")


def train(run: CommandHere, *words: str) -> tuple[Path, dict[str, Any]]:
    outcome = run("train", "epochs=2", "device=cpu", "device.threads=1", "--json", *words)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    return Path(result["run"]), result["metrics"]


def found(folder: Path) -> Predictions:
    read = predictions.read(folder)
    assert read is not None
    return read


def test_classes(trainkit_here: CommandHere) -> None:
    run, metrics = train(trainkit_here, "optim=adam")
    answered = found(run)
    assert (answered.split, answered.target.task, len(answered)) == ("test", "classification", 359)
    assert answered.target.classes == [str(digit) for digit in range(10)]
    kept = answered.kept
    assert (kept["targets"] == kept["predicted"]).mean() == pytest.approx(metrics["test"]["accuracy"])
    assert (kept["outputs"].argmax(axis=1) == kept["predicted"]).all()
    probability = torch.from_numpy(kept["outputs"]).softmax(dim=1)
    assert kept["confidence"] == pytest.approx(probability.max(dim=1).values.numpy(), abs=1e-6)
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(kept["outputs"]), torch.from_numpy(kept["targets"]))
    assert float(loss) == pytest.approx(metrics["test"]["loss"], rel=1e-5)

    again, _ = train(trainkit_here, "optim=adam")
    assert (run / "predictions.npz").read_bytes() == (again / "predictions.npz").read_bytes()
    outcome = trainkit_here("eval", f"ckpt={run}", "--json")
    evaluated = found(Path(json.loads(outcome.out)["run"]))
    assert (evaluated.kept["outputs"] == kept["outputs"]).all()


def test_val_where_there_is_no_test(trainkit_here: CommandHere, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {"x_train": rng.normal(size=(80, 4)).astype(np.float32), "y_train": rng.integers(0, 3, 80)}
    np.savez(tmp_path / "data.npz", **data)
    run, metrics = train(
        trainkit_here, "dataset=npz", f"dataset.file={tmp_path / 'data.npz'}", "dataset.test_fraction=0"
    )
    answered = found(run)
    kept = answered.kept
    assert answered.split == "val" and len(answered) == 8
    assert (kept["targets"] == kept["predicted"]).mean() == pytest.approx(metrics["val"]["accuracy"])
    assert not (run / "pictures.npz").exists()  # a table has no images


def test_regression_is_kept_in_its_own_units(trainkit_here: CommandHere) -> None:
    run, metrics = train(trainkit_here, "dataset=diabetes", "optim=adam")
    kept = found(run).kept
    assert found(run).target.classes is None and kept.keys() == {"targets", "outputs"}
    assert kept["targets"].mean() > 100  # the target of this data set lies in 25..346
    error = kept["targets"].astype(np.float64) - kept["outputs"]
    assert np.sqrt((error**2).mean()) == pytest.approx(metrics["test"]["rmse"], rel=1e-5)


def test_labels(trainkit_here: CommandHere, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, :3] > 0).astype(np.int64))
    run, metrics = train(trainkit_here, "dataset=npz", f"dataset.file={tmp_path / 'data.npz'}")
    kept = found(run).kept
    assert found(run).target.task == "multilabel"
    right = ((kept["outputs"] > 0) == (kept["targets"] > 0.5)).all(axis=1)
    assert right.mean() == pytest.approx(metrics["test"]["accuracy"])


PLAIN = InputSpec("features", (1,), "float32")


def batch(targets: torch.Tensor) -> Batch:
    """A batch of which only the targets count."""
    return Batch(torch.zeros(len(targets), 1), targets, torch.arange(len(targets)))


def test_what_is_too_large_is_kept_without_the_outputs() -> None:
    count, classes = 1_000_000, 20
    names = [str(i) for i in range(classes)]
    split = Split(np.zeros((count, 1), np.float32), np.zeros(count, np.int64))
    data = Data("d", {"train": split}, TargetSpec("classification", names), PLAIN)
    assert count * classes * 4 > predictions.MAX_BYTES
    collector = Collector("train", data, Normalize(data.spec, torch.device("cpu")))
    collector.add(torch.eye(classes), batch(torch.arange(classes)))
    kept = collector.predictions.kept  # type: ignore[union-attr]
    assert kept.keys() == {"targets", "predicted", "confidence"}
    assert kept["predicted"].tolist() == list(range(classes))


def test_the_outputs_are_copies() -> None:
    """What a compiled model returns lies in a buffer that its next call overwrites."""
    split = Split(np.zeros((4, 1), np.float32), np.zeros(4, np.int64))
    data = Data("d", {"train": split}, TargetSpec("classification", ["a", "b"]), PLAIN)
    collector = Collector("train", data, Normalize(data.spec, torch.device("cpu")))
    buffer = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    collector.add(buffer, batch(torch.tensor([0, 1])))
    buffer.fill_(0)
    collector.add(buffer, batch(torch.tensor([0, 1])))
    outputs = collector.predictions.kept["outputs"]  # type: ignore[union-attr]
    assert outputs.tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]


def test_pictures_show_what_the_model_saw(trainkit_here: CommandHere) -> None:
    from sklearn.datasets import load_digits

    run, _ = train(trainkit_here, "model=linear")
    kept = pictures.read(run)
    assert kept is not None
    digits = {
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(load_digits().images, load_digits().target, strict=True)
    }
    samples = zip(kept["train_images"], kept["train_targets"], strict=True)
    assert len(kept["train_images"]) == pictures.COUNT
    assert all((image[0].tobytes(), int(label)) in digits for image, label in samples)  # normalized and back: the bytes
    answered = found(run)
    wrong = answered.kept["predicted"][kept["error_index"]] != answered.kept["targets"][kept["error_index"]]
    assert wrong.all() and len(wrong) == len(kept["error_images"])
    pairs = zip(kept["error_images"], answered.kept["targets"][kept["error_index"]], strict=True)
    assert all((image[0].tobytes(), int(label)) in digits for image, label in pairs)


def test_mixed_and_augmented_samples(trainkit_here: CommandHere) -> None:
    run, _ = train(trainkit_here, "augment=mixup", "model=linear")
    kept = pictures.read(run)
    assert kept is not None
    assert kept["train_targets"].shape == (pictures.COUNT, 10)
    assert kept["train_targets"].sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("loader", ["resident", "streaming"])
def test_files_are_named_and_large_images_shrunk(loader: str, trainkit_here: CommandHere, tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("one", "other"):  # which nothing tells apart, so that there are errors
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    words = ("dataset=folder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=160", "model=linear")
    run, _ = train(trainkit_here, *words, f"loader={loader}", "workers=0", "optim.lr=1e-6", "epochs=1")
    kept = pictures.read(run)
    assert kept is not None
    assert kept["train_images"].shape[1:] == (3, pictures.SIDE, pictures.SIDE)
    assert len(kept["error_images"])
    assert all(Path(file).is_file() for file in kept["error_files"])


def test_a_full_disk_costs_the_keepsakes_and_not_the_run(trainkit_here: CommandHere, tmp_path: Path) -> None:
    (tmp_path / "run" / "predictions.npz").mkdir(parents=True)  # where the file should go stands a folder
    outcome = trainkit_here("train", "epochs=1", "hydra.run.dir=run")
    assert outcome.code == 0
    assert "a report of this run will lack" in outcome.out


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"targets": None}, "no targets"),
        ({"task": np.asarray("")}, "task"),
        ({"targets": np.array(list("abcd"))}, "else than numbers"),
        ({"predicted": np.zeros(3, np.int64)}, "length"),
        ({"predicted": np.full(4, 7)}, "classes that do not exist"),
        ({"outputs": np.zeros((4, 5), np.float32)}, "do not fit"),
        ({"confidence": None}, "confidences"),
        ({"targets": np.array([object()] * 4)}, "Python objects in targets"),
    ],
)
def test_damaged_files_are_refused(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "split": np.asarray("test"),
        "task": np.asarray("classification"),
        "classes": np.asarray(["a", "b"]),
        "targets": np.zeros(4, np.int64),
        "predicted": np.ones(4, np.int64),
        "confidence": np.ones(4, np.float32),
        "outputs": np.zeros((4, 2), np.float32),
    }
    np.savez(tmp_path / "predictions.npz", **arrays)
    assert len(found(tmp_path)) == 4
    np.savez(tmp_path / "predictions.npz", **{k: v for k, v in (arrays | change).items() if v is not None})
    with pytest.raises(ValueError, match=reason):
        predictions.read(tmp_path)
    whole = (tmp_path / "predictions.npz").read_bytes()
    (tmp_path / "predictions.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="."):
        predictions.read(tmp_path)
