"""`resume RUN epochs=+N`: the longer run is, bit for bit, the one that was planned so from the start."""

from __future__ import annotations

from pathlib import Path

import pytest
from digest import facts
from scenes import BUSY

from trainkit.cli import main
from trainkit.run_folders.rundir import read_status

pytestmark = pytest.mark.slow

CONSTANT = [word for word in BUSY if not word.startswith(("schedule", "patience"))] + ["batch_size=256"]
LONG = [*CONSTANT, "schedule=cosine", "schedule.warmup=0.5"]
RULES = ["hold", "stretch", "rewarm"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*words: str) -> Path:
    return new_run("train", *LONG, *words)


def new_run(*words: str) -> Path:
    """Run a command; returns the run folder that it makes."""
    before = set(Path("outputs/train").glob("*"))
    assert main(words) == 0
    (run,) = set(Path("outputs/train").glob("*")) - before
    return run


@pytest.mark.parametrize("rule", RULES)
def test_extended_is_planned(rule: str, capfd: pytest.CaptureFixture[str]) -> None:
    short = train("epochs=2")
    before = facts(short)
    extended = new_run("resume", str(short), "epochs=+2", f"extend={rule}")
    assert "goes on after epoch 2, step 12: bit-exact" in capfd.readouterr().out
    planned = train("epochs=4", f"extensions=[{rule}@2]")
    assert facts(extended) == facts(planned)
    assert facts(short) == before and read_status(short)["state"] == "completed"


def test_extended_twice() -> None:
    once = new_run("resume", str(train("epochs=1")), "epochs=+1", "extend=stretch")
    twice = new_run("resume", str(once), "epochs=+2", "extend=rewarm")
    assert facts(twice) == facts(train("epochs=4", "extensions=[stretch@1,rewarm@2]"))


def test_the_rules_differ() -> None:
    found = [facts(train("epochs=3", f"extensions=[{rule}@1]"))["results.csv"] for rule in RULES]
    assert len(set(found)) == 3


def test_a_constant_lr_needs_no_rule() -> None:
    short = new_run("train", *CONSTANT, "epochs=1")
    extended = new_run("resume", str(short), "epochs=+1")
    assert facts(extended) == facts(new_run("train", *CONSTANT, "epochs=2"))


def test_what_cannot_be_extended(capfd: pytest.CaptureFixture[str]) -> None:
    short = train("epochs=1")
    folders = set(Path("outputs/train").iterdir())
    for words, said in (
        (["epochs=+1"], "say how lr goes on: extend=hold, extend=stretch or extend=rewarm"),
        (["epochs=+1", "extend=cool"], "say how lr goes on"),
        (["epochs=+1", "extend=hold", "extend=cool"], "say how lr goes on"),
        (["epochs=2", "extend=hold"], "is complete; to train longer: trainkit resume"),
        (["epochs=+0", "extend=hold"], "is complete; to train longer"),
        (["optim.lr=1"], "is complete; to train longer"),
    ):
        code = main(["resume", str(short), *words])
        out, err = capfd.readouterr()
        assert (code, said in err) == (2, True), (words, out, err)
    assert set(Path("outputs/train").iterdir()) == folders
