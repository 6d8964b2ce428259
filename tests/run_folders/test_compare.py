"""`trainkit compare` on real runs, its statistics against SciPy's on what the runs have saved."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import stats

from conftest import clean_environment
from trainkit.console.columns import width_of
from trainkit.run_folders.groups import letters

pytestmark = pytest.mark.slow

pytest_plugins = ["made_runs"]

if TYPE_CHECKING:
    from made_runs import ChangeStatus

    from conftest import CommandHere


def metrics_of(run: Path) -> dict[str, float]:
    """`split/name` -> value, as the run's status has it."""
    found = json.loads((run / "status.json").read_text())["result"]["metrics"]
    return {f"{split}/{name}": value for split, numbers in found.items() for name, value in numbers.items()}


def compared(command: CommandHere, *words: object) -> dict[str, Any]:
    outcome = command("compare", *map(str, words), "--json")
    assert outcome.code == 0, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def saved(run: Path) -> dict[str, Any]:
    with np.load(run / "predictions.npz", allow_pickle=False) as file:
        return dict(file)


def test_saved_predictions_are_those_that_were_measured(sweep: Path, regression: Path) -> None:
    for run in (sweep / "0", sweep / "5"):
        found = saved(run)
        assert str(found["split"]) == "test" and len(found["targets"]) == 36
        assert np.mean(found["predicted"] == found["targets"]) == metrics_of(run)["test/accuracy"]
    found = saved(regression / "1")
    rmse = np.sqrt(np.mean((found["outputs"].astype(float) - found["targets"]) ** 2))
    assert rmse == pytest.approx(metrics_of(regression / "1")["test/rmse"], rel=1e-5)


def test_seeds_are_one_group_with_mean_deviation_and_interval(trainkit_here: CommandHere, sweep: Path) -> None:
    found = compared(trainkit_here, sweep)
    linear, mlp = found["groups"]
    assert [[run["seed"] for run in group["runs"]] for group in (linear, mlp)] == [[0, 1, 2]] * 2
    runs = {"A": [metrics_of(sweep / job) for job in "012"], "B": [metrics_of(sweep / job) for job in "345"]}
    for group in (linear, mlp):
        for name, shown in group["metrics"].items():
            values = [metrics[name] for metrics in runs[group["name"]]]
            assert shown["values"] == values and shown["count"] == 3
            assert shown["mean"] == pytest.approx(np.mean(values))
            assert shown["std"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
            if len(set(values)) > 1:
                interval = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
                assert shown["interval"] == pytest.approx(list(interval))
    assert found["differences"]["model"] == {"A": "linear", "B": "mlp"}
    assert "seed" not in found["differences"] and "optim" not in found["differences"]

    (verdict,) = found["verdicts"]
    (comparison,) = verdict["comparisons"]
    best, other = comparison["best"], comparison["other"]
    accuracy = {name: [metrics["test/accuracy"] for metrics in group] for name, group in runs.items()}
    assert verdict["metric"] == "test/accuracy" and np.mean(accuracy[best]) >= np.mean(accuracy[other])
    expected = stats.ttest_ind(accuracy[other], accuracy[best], equal_var=False).pvalue
    assert comparison["p"] == comparison["adjusted_p"] == pytest.approx(expected)
    assert comparison["distinguishable"] == (expected < 0.05)


def test_single_runs_are_tested_on_their_predictions(trainkit_here: CommandHere, sweep: Path) -> None:
    found = compared(trainkit_here, sweep / "0", sweep / "3")
    (comparison,) = found["verdicts"][0]["comparisons"]
    right = {
        name: saved(sweep / job)["predicted"] == saved(sweep / job)["targets"] for name, job in (("A", "0"), ("B", "3"))
    }
    best, other = right[comparison["best"]], right[comparison["other"]]
    only_best, only_other = int((best & ~other).sum()), int((other & ~best).sum())
    assert comparison["p"] == pytest.approx(stats.binomtest(only_best, max(only_best + only_other, 1)).pvalue)
    assert comparison["difference"] == pytest.approx(other.mean() - best.mean())
    assert f"{only_best} are right in {comparison['best']} only" in comparison["test"]


def test_a_regression_is_tested_by_bootstrap(trainkit_here: CommandHere, regression: Path) -> None:
    found = compared(trainkit_here, regression)
    (verdict,) = found["verdicts"]
    (comparison,) = verdict["comparisons"]
    rmse = {name: metrics_of(regression / job)["test/rmse"] for name, job in (("A", "0"), ("B", "1"))}
    assert verdict["metric"] == "test/rmse" and comparison["best"] == min(rmse, key=rmse.__getitem__)
    difference = rmse[comparison["other"]] - rmse[comparison["best"]]
    assert comparison["difference"] == pytest.approx(difference, rel=1e-4)
    assert comparison["interval"][0] <= difference <= comparison["interval"][1]
    assert comparison["distinguishable"] == (comparison["p"] < 0.05)
    assert found["best"]["test/rmse"] == [comparison["best"]] and found["best"]["test/r2"] == [comparison["best"]]


def test_several_comparisons_are_corrected(trainkit_here: CommandHere, sweep: Path, single: Path) -> None:
    found = compared(trainkit_here, sweep / "0", sweep / "3", single)
    comparisons = found["verdicts"][0]["comparisons"]
    p_values = sorted(one["p"] for one in comparisons)
    adjusted = sorted(one["adjusted_p"] for one in comparisons)
    assert len(p_values) == 2
    assert adjusted == pytest.approx([min(1, 2 * p_values[0]), min(1, max(2 * p_values[0], p_values[1]))])


def test_two_runs_of_the_same_are_not_distinguishable(trainkit_here: CommandHere, outputs: Path, single: Path) -> None:
    again = outputs / "train" / "again"
    shutil.copytree(single, again)
    found = compared(trainkit_here, single, again)
    assert found["differences"] == {} and found["best"]["test/accuracy"] == []
    (comparison,) = found["verdicts"][0]["comparisons"]
    assert (comparison["difference"], comparison["p"], comparison["distinguishable"]) == (0, 1, False)
    text = trainkit_here("compare", str(single), str(again)).out
    assert "config: no difference" in text and "not distinguishable" in " ".join(text.split())


def test_a_value_of_null_is_told_from_a_key_that_is_not_there(
    trainkit_here: CommandHere, outputs: Path, single: Path
) -> None:
    other = outputs / "train" / "other"
    shutil.copytree(single, other)
    config = (other / "config.yaml").read_text()
    assert "\nclip: null\n" in config
    (other / "config.yaml").write_text(config.replace("\nclip: null\n", "\nclip: 1\n") + "new: 3\n")
    out = trainkit_here("compare", str(single), str(other)).out
    assert re.search(r"^clip +null +1$", out, re.M) and re.search(r"^new {10,}3$", out, re.M)


def test_an_evaluation_counts_as_the_run_it_evaluates(trainkit_here: CommandHere, outputs: Path, sweep: Path) -> None:
    """Two of the three evaluated runs are seeds of one config, though an evaluation's own config does not say so."""
    evaluations = sorted((outputs / "sweeps").iterdir())[2]
    for job in evaluations.glob("[0-9]"):  # the checkpoint's folder has moved with the copy
        config = job / "config.yaml"
        lines = config.read_text().splitlines()
        number = json.loads((job / "status.json").read_text())["overrides"][0].split("/")[-3]
        moved = f"ckpt: {sweep / number / 'checkpoints' / 'best.safetensors'}"
        config.write_text("\n".join(moved if line.startswith("ckpt:") else line for line in lines))
    found = compared(trainkit_here, evaluations)
    assert [[run["seed"] for run in group["runs"]] for group in found["groups"]] == [[0], [0, 1]]
    assert found["differences"]["model"] == {"A": "linear", "B": "mlp"}
    assert "a single run" in found["verdicts"][0]["comparisons"][0]["reason"]
    found = compared(trainkit_here, evaluations / "0", sweep / "0")
    assert found["verdicts"][0]["comparisons"][0]["p"] == 1 and found["differences"].keys() <= {"split"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("other data", "dataset.test_fraction differs"),
        ("other split", "split_seed differs"),
        ("missing", "has no predictions.npz: trainkit eval ckpt="),
        ("damaged", "is damaged"),
        ("empty", "is damaged"),
        ("other targets", "the targets of the samples differ"),
        ("fewer", "different numbers of samples"),
        ("val", "are for val, not for test"),
    ],
)
def test_why_predictions_are_not_paired(trainkit_here: CommandHere, sweep: Path, change: str, reason: str) -> None:
    run, file = sweep / "3", sweep / "3" / "predictions.npz"
    arrays = saved(run)
    if change in ("other data", "other split"):
        old, new = (
            ("test_fraction: 0.2", "test_fraction: 0.3")
            if change == "other data"
            else ("split_seed: 0", "split_seed: 1")
        )
        text = (run / "config.yaml").read_text()
        assert old in text
        (run / "config.yaml").write_text(text.replace(old, new))
    elif change == "missing":
        file.unlink()
    elif change in ("damaged", "empty"):
        file.write_bytes(file.read_bytes()[:500] if change == "damaged" else b"")
    else:
        arrays |= {"split": np.asarray("val")} if change == "val" else {}
        arrays |= {"targets": (arrays["targets"] + 1) % 3} if change == "other targets" else {}
        if change == "fewer":
            names = ("targets", "predicted", "confidence", "outputs")
            arrays |= {name: arrays[name][:-1] for name in names if name in arrays}
        np.savez(file, **arrays)
    (comparison,) = compared(trainkit_here, sweep / "0", run)["verdicts"][0]["comparisons"]
    assert reason in comparison["reason"] and comparison["p"] is None and comparison["distinguishable"] is None
    text = " ".join(trainkit_here("compare", str(sweep / "0"), str(run)).out.split())
    assert "not tested: " in text


def test_different_data_sets_are_not_compared(trainkit_here: CommandHere, sweep: Path, regression: Path) -> None:
    found = compared(trainkit_here, sweep, regression)
    assert [verdict["metric"] for verdict in found["verdicts"]] == ["test/accuracy", "test/rmse"]
    (lowest,) = set(found["best"]["test/loss"]) & {"C", "D"}
    losses = {name: metrics_of(regression / job)["test/loss"] for name, job in (("C", "0"), ("D", "1"))}
    assert lowest == min(losses, key=losses.__getitem__)
    assert found["verdicts"][0]["comparisons"][0]["other"] in "AB"


def test_runs_without_metrics_are_said(trainkit_here: CommandHere, sweep: Path, change_status: ChangeStatus) -> None:
    for job in "345":
        change_status(sweep / job, state="failed", result=None)
        (sweep / job / "metrics.jsonl").unlink()
    outcome = trainkit_here("compare", str(sweep))
    assert outcome.code == 0 and outcome.err.count("has no metrics: failed") == 3
    assert "tested" not in outcome.out and "model" in outcome.out


def test_names(trainkit_here: CommandHere, sweep: Path, single: Path) -> None:
    uid = sweep.name[-6:]

    def chosen(*words: str) -> list[str]:
        return [run["path"] for group in compared(trainkit_here, *words)["groups"] for run in group["runs"]]

    jobs = [str(sweep / job) for job in "012345"]
    assert chosen(uid) == chosen(sweep.name) == chosen(str(sweep)) == chosen(f"outputs/sweeps/{sweep.name}/") == jobs
    assert chosen(f"{uid}/0", f"{uid}/4") == chosen(f"{sweep.name}/0", f"{sweep.name}/4") == [jobs[0], jobs[4]]
    assert chosen(single.name[-6:], f"{uid}/0") == [str(single), jobs[0]]
    assert chosen(f"{uid}/0", uid) == jobs  # a run that is named twice is there once


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "needs two or more runs"),
        (["{single}"], "needs two or more runs"),
        (["nothing"], "'nothing' is no folder, and names no run below outputs"),
        (["20"], "'20' may be any of 4 runs"),
        (["outputs/nothing", "{single}"], "is no folder"),
        ([".", "--frobnicate"], "unknown flag '--frobnicate'"),
        (["empty"], "'empty' holds no run"),
    ],
)
def test_wrong_names_are_one_line(
    trainkit_here: CommandHere, tmp_path: Path, single: Path, words: list[str], error: str
) -> None:
    (tmp_path / "empty").mkdir()
    outcome = trainkit_here("compare", *(word.format(single=single) for word in words))
    assert outcome.code == 2 and outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("trainkit: error: ") and error in line


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_every_line_fits(
    trainkit_here: CommandHere, outputs: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = trainkit_here("compare", str(outputs)).out.splitlines()
    assert max(map(width_of, lines)) <= width
    assert any("*" in line for line in lines)
    letters_shown = {word for line in lines if line.startswith("metric ") for word in line.split()[1:]}
    assert letters_shown >= {"A", "B", "C"}  # in several blocks where it is narrow


def test_torch_is_not_imported_and_scipy_only_for_seeds(sweep: Path, tmp_path: Path) -> None:
    probe = (
        "import sys; from trainkit.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'scipy', 'numpy', 'sklearn', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )

    def imported(*words: str) -> str:
        command = [sys.executable, "-c", probe, *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60
        )
        return done.stderr.strip()

    assert imported("runs") == "[]"
    assert imported("compare", str(sweep / "0"), str(sweep / "3")) == "['numpy']"
    assert imported("compare", str(sweep)) == "['numpy', 'scipy']"


def test_letters() -> None:
    assert [letters(i) for i in (0, 1, 25, 26, 27, 701, 702)] == ["A", "B", "Z", "AA", "AB", "ZZ", "AAA"]
