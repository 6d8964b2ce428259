"""Experiments, test-time mirror images and mixed samples, through the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainkit import loop
from trainkit.config.compose import check_jobs
from trainkit.config.frame import Train, to_plain
from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.loaders import Normalize, ResidentLoader
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.losses.base import as_loss
from trainkit.tasks.base import task_of
from trainkit.tasks.meter import Meter
from trainkit.training.speed import mirrored

pytestmark = pytest.mark.slow

CONF = Path(__file__).parents[2] / "conf"
EXPERIMENTS = sorted(file.stem for file in (CONF / "experiment").glob("*.yaml"))
QUICK = ["device=cpu", "device.threads=1", "epochs=1"]
CPU = torch.device("cpu")


def compose(*words: str) -> Train:
    (config,) = check_jobs("train", words, False, [])
    assert isinstance(config, Train)
    return config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_compose_and_the_command_line_wins(name: str) -> None:
    photos = "dataset: folder" in (CONF / "experiment" / f"{name}.yaml").read_text()
    config = compose(f"experiment={name}", *(["dataset.root=photos"] if photos else []))
    assert config.dataset.name == ("folder" if photos else name.partition("_")[0])
    lr = config.optim.arguments["lr"]
    changed = compose(f"experiment={name}", "epochs=3", "optim.lr=0.5", "dataset=folder", "dataset.root=photos")
    assert (changed.epochs, changed.optim.arguments["lr"], changed.dataset.name) == (3, 0.5, "folder")
    assert lr != 0.5 and changed.model == config.model
    # with the words swapped too
    assert compose("optim.lr=0.5", "epochs=3", "dataset=folder", "dataset.root=photos", f"experiment={name}") == changed


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_say_what_they_do(name: str) -> None:
    directive, head, *lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert directive == "# @package _global_"
    assert head.startswith("# ") and len(head) <= 72
    comments = "\n".join(line for line in lines if line.startswith("#"))
    assert f"trainkit train experiment={name}" in comments
    keys = [
        line for line in lines if line and not line.startswith(("#", "defaults", "  - override")) and line[-1] != ":"
    ]
    assert keys and all("  # " in line for line in keys)


def test_no_experiment_leaves_no_key_behind() -> None:
    assert "experiment" not in to_plain(compose()) and "experiment" not in to_plain(compose("experiment=mnist_mlp"))


def test_ls_and_help_list_experiments(trainkit_here: Callable[..., Any]) -> None:
    found = trainkit_here("ls", "experiment", "--json")
    facts = json.loads(found.out)["experiment"]
    assert list(facts) == EXPERIMENTS
    assert facts["mnist_cnn"]["arguments"]["model"] == "cnn"
    assert facts["mnist_cnn"]["arguments"]["model.norm"] == "batch"
    assert "slightly turned" in facts["mnist_cnn"]["summary"]
    assert "experiment=NAME" in trainkit_here("ls", "experiment").out
    for words in (["ls"], ["train", "--help"]):
        assert f"experiment {', '.join(EXPERIMENTS)}" in " ".join(trainkit_here(*words).out.split())
    assert "experiment" not in trainkit_here("eval", "--help").out
    wrong = trainkit_here("train", "experiment=mnist_ml")
    assert wrong.code == 2 and "did you mean mnist_mlp?" in wrong.err


def test_a_sweep_over_experiments(trainkit_here: Callable[..., Any]) -> None:
    ran = trainkit_here("train", "-m", "experiment=mnist_mlp,mnist_cnn", "dataset=digits", *QUICK)
    assert ran.code == 0, ran.err
    assert "mlp " in ran.out and "cnn " in ran.out


def test_the_speedrun_trains_on_tiny_data(trainkit_here: Callable[..., Any]) -> None:
    ran = trainkit_here(
        "train", "experiment=cifar10_speedrun", "dataset=digits", "model.widths=[8,16]", "batch_size=128", *QUICK
    )
    assert ran.code == 0, ran.err


class Lopsided(nn.Module):
    """Logits that depend on which side of the image is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[..., : x.shape[-1] // 2].sum(dim=(1, 2, 3)), (2 * x[..., 0]).sum(dim=(1, 2))], dim=1)


def test_mirror_judges_the_mean_of_two_forwards(small: Data) -> None:
    loader = ResidentLoader(small.splits["train"], 8, Normalize(small.spec, CPU), CPU)
    seen: list[torch.Tensor] = []
    judged: list[torch.Tensor] = []

    class Recording(nn.CrossEntropyLoss):
        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            judged.append(outputs)
            return super().forward(outputs, targets)

    model, target = Lopsided(), small.spec.target
    meter = Meter(task_of(target).sums(target, full=True, topk=5), CPU)
    collect = lambda outputs, batch: seen.append(outputs)  # noqa: E731
    loop.evaluate(model, mirrored(model), as_loss(Recording()), loader, meter, 0, collect=collect)
    batches = [batch.inputs for batch in loader]
    expected = [(model(inputs) + model(inputs.flip(-1))) / 2 for inputs in batches]
    assert torch.equal(torch.cat(judged), torch.cat(expected))
    assert torch.equal(torch.cat(seen), torch.cat(expected))
    assert not torch.equal(torch.cat(seen), torch.cat([model(inputs) for inputs in batches]))


@pytest.fixture
def small() -> Data:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 6), dtype=np.uint8)
    return finish(Data("made", {"train": Split(pixels, np.arange(20) % 2)}, TargetSpec("classification", ["a", "b"])))


def test_tta_in_train_and_eval_agree(trainkit_here: Callable[..., Any], tmp_path: Path) -> None:
    assert trainkit_here("train", "tta=flip", *QUICK).code == 0
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    told = json.loads((run / "status.json").read_text())["result"]["metrics"]["test"]
    results = {}
    for words in ([], ["tta=none"]):
        ran = trainkit_here("eval", f"ckpt={run}", "--json", *words)
        results[bool(words)] = json.loads(ran.out)["metrics"]["test"]
    assert results[False] == told
    assert results[True] != told


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["dataset=wine", "tta=flip"], "tta=flip is for images, dataset wine has none"),
        (["dataset=wine", "augment=mixup"], "augment is for images, dataset wine has none"),
        (["augment=image", "augment.hue=0.1"], "augment.saturation and augment.hue are for color images"),
        (["augment.flip=0.5"], "key 'augment.flip' is not known"),
        (["augment=image", "augment.flip=alternat"], "expected a number >= 0 and <= 1 or alternate, got 'alternat'"),
    ],
)
def test_refusals_are_one_line(words: list[str], text: str, trainkit_here: Callable[..., Any]) -> None:
    ran = trainkit_here("train", *QUICK, *words)
    assert ran.code == 2
    (line,) = [line for line in ran.err.splitlines() if line.startswith("trainkit: error")]
    assert text in line


def test_mixing_needs_a_loss_for_class_probabilities(trainkit_here: Callable[..., Any], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", x=pixels, y=(pixels.mean(axis=(2, 3)) > 128).astype(np.float32))
    words = ["dataset=npz", "dataset.file=many.npz", "dataset.task=multilabel", "model=linear", *QUICK]
    ran = trainkit_here("train", *words)
    assert ran.code == 0, ran.err
    ran = trainkit_here("train", *words, "augment=mixup")
    assert ran.code == 2
    assert "augment.mixup and augment.cutmix mix classes, which multilabel with loss bce cannot take" in ran.err
    assert trainkit_here("train", *QUICK, "augment=mixup", "augment.padding=1").code == 0
