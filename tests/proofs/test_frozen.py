"""Ten trainings whose bits are written down: a change of the code that moves one of them is no refactoring.

Each digest is of the names, types, shapes and bytes of all tensors in the last and the best checkpoint, and of
results.csv without times. They are bits of one torch on one kind of processor, so frozen.json says whose they are;
elsewhere the test skips. To write them anew, for a torch that has changed its kernels or a change that is meant to
move numbers: `TRAINKIT_FREEZE=1 pytest tests/proofs/test_frozen.py`, and say why in the commit.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from digest import of_json, of_tensor, table
from PIL import Image

from conftest import trained
from trainkit.checkpoints import checkpoint, record

FILE = Path(__file__).with_name("frozen.json")
# Columns that came after the digests: new metrics move no number of the old ones.
NEWER = [f"val/{name}" for name in ("balanced_accuracy", "log_loss", "roc_auc", "pr_auc", "threshold")]
CONFIGS = {
    "mlp": "epochs=3 model.hidden=[32,16]",
    "cnn-batchnorm-dropout-augment-ema": (
        "model=cnn model.channels=[8,16] model.norm=batch model.dropout=0.2 model.hidden=32 "
        "augment=flip_crop augment.padding=1 ema=0.99 optim=adam schedule=cosine schedule.warmup=1 epochs=3"
    ),
    "resnet9-mixup": (
        "dataset=npz dataset.file={images} model=resnet9 model.width=8 augment=image augment.mixup=0.4 "
        "augment.rotate=10 augment.brightness=0.2 batch_size=16 epochs=2"
    ),
    "multilabel": "dataset=npz dataset.file={multilabel} optim=adamw epochs=3 batch_size=32 patience=2",
    "soft": "dataset=npz dataset.file={soft} model=linear epochs=3 batch_size=32 clip=1",
    "regression-standardized": "dataset=diabetes optim=adam loss=huber epochs=3 batch_size=50",
    "regression-several": "dataset=npz dataset.file={targets} loss=l1 epochs=3 batch_size=32",
    "class-weights-accumulate": (
        "dataset=wine loss=cross_entropy loss.weight=[1,2,0.5] loss.label_smoothing=0.1 accumulate=3 batch_size=32 "
        "epochs=3"
    ),
    "streaming-folder": (
        "dataset=folder dataset.root={folder} dataset.image_size=16 loader=streaming workers=1 model=cnn "
        "model.channels=[8] augment=image augment.flip=0.5 augment.cutmix=1 batch_size=8 epochs=2"
    ),
    "muon-onecycle": "model=cnn model.channels=[8] optim=muon schedule=onecycle accumulate=2 epochs=2 seed=3",
}


def environment() -> dict[str, str]:
    """What the bits depend on beside the code."""
    return {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "vendor": _vendor(),
        "numpy": np.__version__.rpartition(".")[0],
    }


def _vendor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data of the configs that need some, the same bytes on every machine."""
    folder = tmp_path_factory.mktemp("frozen")
    generator = np.random.Generator(np.random.PCG64(11))
    features = generator.standard_normal((200, 6)).astype(np.float32)
    scores = features @ generator.standard_normal((6, 3)).astype(np.float32)
    shares = np.abs(scores) / np.abs(scores).sum(axis=1, keepdims=True)
    images = generator.integers(0, 256, (60, 3, 16, 16), dtype=np.uint8)
    arrays = {
        "images": (images, np.arange(60) % 3),
        "multilabel": (features, (scores > 0).astype(np.int64)),
        "soft": (features, shares),
        "targets": (features, scores[:, :2] * 5 + 20),
    }
    for name, (x, y) in arrays.items():
        np.savez(folder / f"{name}.npz", x=x, y=y)
    for number, image in enumerate(images[:48]):
        place = folder / "photos" / ("ants", "bees")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, 2)).save(place)
    return {name: folder / f"{name}.npz" for name in arrays} | {"folder": folder / "photos"}


def digests(run: Path) -> dict[str, str]:
    """Of the tensors of the last and the best checkpoint, and of results.csv."""
    known = record.read(run / "checkpoints")
    assert known is not None and known.best is not None
    rows = [{name: value for name, value in row.items() if name not in NEWER} for row in table(run / "results.csv")]
    found = {"results.csv": of_json(rows)}
    for role, entry in (("last", known.last), ("best", known.best)):
        tensors, _ = checkpoint.load(run / "checkpoints" / entry.file)
        found[role] = of_json({name: of_tensor(tensor) for name, tensor in tensors.items()})
    return found


def frozen() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else {}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_bits_are_those_that_were_written_down(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    words = CONFIGS[name].format(**files).split()
    found = digests(trained(tmp_path, *words))
    known = frozen()
    if os.environ.get("TRAINKIT_FREEZE") == "1":
        kept = known.get("digests", {}) if known.get("environment") == environment() else {}
        content = {"environment": environment(), "digests": {**kept, name: found}}
        FILE.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        return
    if known["environment"] != environment():
        pytest.skip(f"written down for {known['environment']}, this is {environment()}")
    assert found == known["digests"][name]
