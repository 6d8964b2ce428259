"""The own task of docs/extending.md: a task, a metric, a torch Dataset, a loss and a model of a user's, in one file."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import kills
import pytest
from digest import facts
from scenes import only_run

from conftest import ROOT

if TYPE_CHECKING:
    from nursery import Nursery

    from conftest import CommandHere

pytestmark = pytest.mark.slow

PLUGIN = "plugins=[tagging]"
WORDS = ["train", "dataset=rising", "model=tagger", "optim=adam", "optim.lr=0.01", "batch_size=32", "epochs=6"]
WORDS += ["checkpoint_every=1steps", "device=cpu", "device.threads=1", "log_every=1"]


def lay_out(folder: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"<!-- file: tagging\.py -->\n```python\n(.+?)\n```", page, re.S)
    folder.mkdir(exist_ok=True)
    (folder / "tagging.py").write_text(code, encoding="utf-8")


def test_killed_it_goes_on_in_the_same_bits_and_every_verb_works(
    nursery: Nursery, trainkit_here: CommandHere, tmp_path: Path
) -> None:
    for folder in ("whole", "killed"):
        lay_out(tmp_path / folder)
    code, output = nursery.run(*WORDS, PLUGIN, cwd=tmp_path / "whole")
    assert code == 0, output
    found = kills.survive(nursery.start, WORDS, tmp_path / "killed", 4, random.Random(3), [PLUGIN])
    runs = [only_run(tmp_path / folder) for folder in ("whole", "killed")]
    assert len(found) >= 2
    assert facts(runs[0]) == facts(runs[1])

    lay_out(tmp_path)
    done = trainkit_here("eval", f"ckpt={runs[1]}", PLUGIN)
    assert done.code == 0, done.err
    measured = json.loads((runs[0] / "status.json").read_text())["result"]["metrics"]["test"]
    assert f"{measured['token_accuracy']:.6f}" in done.out and "whole_sentences" in done.out
    done = trainkit_here("reproduce", str(runs[1]), PLUGIN)
    assert done.code == 0 and "bit-identical" in done.out, done.err
    done = trainkit_here("compare", *map(str, runs), "--json")
    assert done.code == 0 and "token_accuracy" in done.out, done.err
    assert trainkit_here("report", str(runs[1])).code == 0
    assert "token accuracy" in (runs[1] / "report.html").read_text(encoding="utf-8").replace("_", " ")
