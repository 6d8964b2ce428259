"""Only the command line says where new files go: never the config of a run that came from somewhere else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

if TYPE_CHECKING:
    from conftest import CommandHere

WORDS = ("model=linear", "epochs=1", "device=cpu", "device.threads=1")


@pytest.fixture
def stranger(trainkit_here: CommandHere, tmp_path: Path) -> Path:
    """A run whose config says `far`, and that lies somewhere else now."""
    assert trainkit_here("train", "output_dir=far", *WORDS).code == 0
    (run,) = (tmp_path / "far" / "train").iterdir()
    (tmp_path / "theirs" / "train").mkdir(parents=True)
    return run.rename(tmp_path / "theirs" / "train" / "run")


@pytest.mark.parametrize("words", [("resume", "epochs=+1"), ("reproduce",)], ids=" ".join)
@pytest.mark.parametrize("chosen", [None, "mine"])
def test_a_new_folder(
    words: tuple[str, ...], chosen: str | None, stranger: Path, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    before = set((tmp_path / "far").rglob("*"))
    verb, *more = words
    outcome = trainkit_here(verb, str(stranger), *more, *([f"output_dir={chosen}"] if chosen else []))
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / (chosen or "outputs") / "train").iterdir())) == 1
    assert set((tmp_path / "far").rglob("*")) == before
    assert list((tmp_path / "theirs" / "train").iterdir()) == [stranger]


def test_a_run_that_goes_on(stranger: Path, trainkit_here: CommandHere, tmp_path: Path) -> None:
    """What a logger writes beside the run folders of an `output_dir` goes where the folder is that was named."""
    status = stranger / "status.json"
    status.write_text(status.read_text().replace('"completed"', '"interrupted"'))
    outcome = trainkit_here("resume", str(stranger))
    assert outcome.code == 0, outcome.err
    config = yaml.safe_load((stranger / "config.yaml").read_text())
    assert config["output_dir"] == str(tmp_path / "theirs")
    assert not (tmp_path / "outputs").exists()
