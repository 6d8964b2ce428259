"""Features that are computed once: the same numbers as with the whole model in every step, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainkit.checkpoints import checkpoint

if TYPE_CHECKING:
    from conftest import CommandHere

FAST = ["device=cpu", "device.threads=1", "epochs=4", "batch_size=100", "optim=adam", "plots=false", "log_every=1"]
NET = ["model=cnn", "model.channels=[4,8]", "model.hidden=16", "model.norm=batch"]
ONCE = "features of the frozen backbone"
SOME = '''
import torch
from torch import nn

from trainkit.registry import register


@register("model")
def noisy(in_shape, num_outputs):
    """Draws in its body."""
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(64, 8), nn.Linear(8, num_outputs)

        def forward(self, x):
            x = self.body(x.flatten(1))
            return self.head(nn.functional.dropout(x, 0.5, self.training))

    return Noisy()


@register("model")
def doubled(in_shape, num_outputs):
    """More than its head at the end."""
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(64, 8), nn.Linear(8, num_outputs)

        def forward(self, x):
            return self.head(self.body(x.flatten(1))) * 2

    return Doubled()
'''


def facts(run: Path) -> list[object]:
    """All logged numbers without times, and all tensors of the last checkpoint."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    times = ("time", "train_seconds", "data_wait", "at")
    logged = [{key: value for key, value in line.items() if key not in times} for line in lines]
    tensors, _ = checkpoint.load(run / "checkpoints" / "last.safetensors")
    return [logged[1:], {name: value.tolist() for name, value in tensors.items()}]


@pytest.mark.parametrize(
    "more", [[], ["ema=0.9", "accumulate=3"], ["precision=bf16", "channels_last=true"]], ids=" ".join
)
def test_the_same_numbers_as_with_the_whole_model(trainkit_here: CommandHere, tmp_path: Path, more: list[str]) -> None:
    assert trainkit_here("train", *NET, "hydra.run.dir=first", *FAST).code == 0
    words = ["train", *NET, "init=first", "finetune=linear", "split_seed=2", *FAST, *more]
    once = trainkit_here(*words, "hydra.run.dir=once")
    assert once.code == 0 and f"the {ONCE}, 16 a sample, are computed once" in once.out, once.err
    plain = trainkit_here(*words, "augment=image", "hydra.run.dir=plain")  # which changes nothing, but might
    assert plain.code == 0 and ONCE not in plain.out
    assert facts(tmp_path / "once") == facts(tmp_path / "plain")
    measured = [trainkit_here("eval", f"ckpt={run}", "--json") for run in ("once", "plain")]
    results = [json.loads(one.out.splitlines()[-1] if one.out.count("\n") == 1 else one.out) for one in measured]
    assert results[0]["metrics"] == results[1]["metrics"]


@pytest.mark.parametrize(
    ("model", "why"), [("noisy", "draws random numbers in training"), ("doubled", "are not those of its head")]
)
def test_a_model_that_is_more_than_its_head_is_trained_as_it_is(
    trainkit_here: CommandHere, tmp_path: Path, model: str, why: str
) -> None:
    (tmp_path / "some_models.py").write_text(SOME)
    done = trainkit_here("train", f"model={model}", "finetune=linear", "plugins=[some_models]", *FAST)
    assert done.code == 0, done.err
    assert "features are computed in every epoch" in done.out and why in done.out
