"""Runs that begin with others' weights and freeze parts of them: killed anywhere, they end in the same bits."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from digest import facts
from scenes import BUSY, copy_as_it_is, only_run, states_kept

from trainkit.cli import main

pytestmark = pytest.mark.slow

WORDS = [*BUSY, "patience=null", "batch_size=512", "epochs=3", "checkpoint_every=1steps", "keep_last=2", "plots=false"]
ONCE = "linear, features once"
KINDS = {
    "gradual": ["finetune=gradual", "optim=adamw", "optim.weight_decay=0.1", "model.dropout=0.2"],
    "layerwise": ["finetune=layerwise", "optim=sgd", "optim.lr=0.01", "accumulate=2"],
    ONCE: ["finetune=linear", "model.dropout=0"],
    "linear, augmented": ["finetune=linear"],
    "uneven classes": ["sampler=balanced", "loss=focal", "loss.weight=balanced", "monitor=roc_auc", "holdout=kfold"],
    "muon, a part frozen": ["finetune=groups", "finetune.freeze=[0.*]", "optim=muon", "optim.lr=0.001"],
}


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that hands over its weights."""
    folder = tmp_path_factory.mktemp("parent")
    with contextlib.chdir(folder):
        assert main(["train", *BUSY, "epochs=1", "seed=5", "plots=false"]) == 0
    return only_run(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_from_every_state(kind: str, parent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if kind == ONCE:  # dropout before the head would be something that the backbone draws
        with contextlib.chdir(tmp_path):
            assert main(["train", *BUSY, "model.dropout=0", "epochs=1", "plots=false", "hydra.run.dir=parent"]) == 0
        parent = tmp_path / "parent"
    common = [word for word in WORDS if kind != ONCE or not word.startswith("augment")]
    words = ["train", *common, f"init={parent}", *KINDS[kind]]
    with contextlib.chdir(tmp_path), states_kept(tmp_path / "states"):
        assert main(words) == 0
    whole = only_run(tmp_path)
    said = capfd.readouterr().out
    assert ("features of the frozen backbone" in said) is (kind == ONCE)
    states = sorted((tmp_path / "states").iterdir())
    assert len(states) >= 9
    for state in states:
        run = copy_as_it_is(state, tmp_path / "again" / state.name)
        assert main(["resume", str(run)]) == 0, state.name
        assert ": bit-exact" in capfd.readouterr().out
        assert facts(run) == facts(whole), state.name


def test_other_weights_are_not_gone_on_with(parent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(tmp_path), states_kept(tmp_path / "states"):
        assert main(["train", *WORDS, f"init={parent}", "finetune=linear"]) == 0
        assert main(["train", *BUSY, "epochs=1", "seed=6", "plots=false", "hydra.run.dir=other"]) == 0
    state = sorted((tmp_path / "states").iterdir())[1]
    run = copy_as_it_is(state, tmp_path / "again")
    assert main(["resume", str(run), f"init.file={tmp_path / 'other'}"]) == 4
    assert "init has SHA-256" in capfd.readouterr().err
    assert main(["resume", str(run), f"init.file={tmp_path / 'other'}", "allow=[init]"]) == 0
    assert "not bit-exact: other initial weights" in capfd.readouterr().out
