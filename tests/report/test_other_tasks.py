"""Runs of a task that a plug-in brings, read where its code is not imported; results that do not say what they mean."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trainkit.report.facts import read_facts
from trainkit.report.verdict import verdict
from trainkit.run_folders import predictions, records
from trainkit.tasks.base import LOSS, Metric, find_task
from trainkit.tasks.metrics import describe_metrics, headline, read_metrics

if TYPE_CHECKING:
    from conftest import Command, CommandHere

pytestmark = pytest.mark.slow

PLUGIN = """
import numpy as np
from trainkit import register
from trainkit.data.dataset import Data
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.tasks.base import Mean, Metric, Task


@register("task", name="angle")
class Angle(Task):
    name = "angle"
    losses = ("mse",)

    def check(self, targets, target, where):
        assert targets.shape[1:] == (1,)

    def num_outputs(self, target):
        return 1

    def sums(self, target, *, full, topk):
        extra = [Mean(Metric("hits", "max", "share"), lambda outputs, targets: ((outputs - targets).abs() < 1)[:, 0])]
        turn = Mean(Metric("turn", "min", short="turn", title="turn error"), lambda o, t: (o - t).abs()[:, 0])
        return [*(extra if full else []), turn]

    def keep(self, outputs, targets, target):
        return {"targets": targets, "angle": outputs}


@register("dataset")
def angles(data_dir, split_seed):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    y = x[:, :1] * 2
    return Data("angles", {"train": Split(x[:150], y[:150]), "test": Split(x[150:], y[150:])}, TargetSpec("angle"))
"""


@pytest.fixture
def angle_runs(tmp_path: Path, trainkit: Command) -> list[Path]:
    """Two runs, the second with an lr of next to nothing."""
    (tmp_path / "turning.py").write_text(PLUGIN)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "angles.yaml").write_text("name: angles\n")
    words = ("plugins=[turning]", "dataset=angles", "model=linear", "epochs=2", "device=cpu", "device.threads=1")
    for name, lr in (("good", 0.1), ("bad", 1e-6)):
        done = trainkit("train", *words, f"optim.lr={lr}", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    return [tmp_path / "good", tmp_path / "bad"]


def test_a_run_of_a_task_whose_code_is_not_there(angle_runs: list[Path], trainkit_here: CommandHere) -> None:
    assert find_task("angle") is None
    record = records.read(angle_runs[0])
    assert record is not None and record.measured["turn"] == Metric("turn", "min", short="turn", title="turn error")
    kept = predictions.read(angle_runs[0])
    assert (
        kept is not None and kept.kept.keys() == {"targets", "angle"} and not kept.task.sections(kept.kept, kept.target)
    )

    compared = trainkit_here("compare", "good", "bad", "--json")
    found: dict[str, Any] = json.loads(compared.out)
    assert found["best"]["test/turn"] == found["best"]["test/hits"] == ["A"]  # one is better low, the other high
    assert found["verdicts"][0]["metric"] == "test/turn"
    assert "there is no paired test of test/turn" in found["verdicts"][0]["comparisons"][0]["reason"]

    facts = read_facts(angle_runs[0])
    assert re.fullmatch(r"turn error [\d.]+ on test", verdict(facts).headline) and not facts.missing
    outcome = trainkit_here("report", "good")
    assert outcome.code == 0 and "(curves)" in outcome.out
    page = (angle_runs[0] / "report.html").read_text()
    assert "Metrics" in page and re.search(r"hits.*?\d\d%", page, re.DOTALL) and "Confusion" not in page
    assert "val/loss" in trainkit_here("runs", ".").out


def test_an_unfinished_run_knows_what_it_measures(angle_runs: list[Path]) -> None:
    (run, _) = angle_runs
    status = json.loads((run / "status.json").read_text())
    del status["result"]
    (run / "status.json").write_text(json.dumps(status | {"state": "failed"}))
    record = records.read(run)
    assert record is not None and record.measured["turn"].better == "min" and "val/turn" in record.metrics


def test_metrics_are_read_as_they_were_described() -> None:
    metrics = [LOSS, Metric("mae", "min", title="MAE"), Metric("iou", "max", "share", "iou")]
    described = json.loads(json.dumps(describe_metrics(metrics)))
    assert list(read_metrics(described).values()) == metrics
    assert headline(read_metrics(described)) == "iou"  # the first that an epoch's line shows


@pytest.mark.parametrize(
    "damaged",
    [None, "x", {}, [1, None], [{"name": 3, "better": "min"}], [{"name": "iou"}], [{"name": "a", "better": 1}]],
)
def test_what_says_nothing_is_judged_by_the_loss(damaged: object) -> None:
    assert read_metrics(damaged) == {"loss": LOSS}
    assert headline(read_metrics(damaged)) == "loss"


def test_another_description_of_the_metrics_is_no_other_result(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ("dataset=iris", "epochs=1", "device=cpu", "device.threads=1", "hydra.run.dir=run")
    assert trainkit_here("train", *words).code == 0
    log = tmp_path / "run" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"title": "macro F1"', '"title": "F1"'))
    again = trainkit_here("reproduce", "run")
    assert again.code == 0 and "bit-identical" in again.out
