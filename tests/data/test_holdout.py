"""How val is held out: each way on its own, and folds from the command line to the one file of their answers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from trainkit.data.holdout import grouped, kfold, random, time
from trainkit.data.splits import Split, split_indices
from writers import class_folders, lay_out

if TYPE_CHECKING:
    from conftest import CommandHere

FAST = ["device=cpu", "device.threads=1", "plots=false"]
STRATA = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [7, 31, 62]))


def pool(names: list[str] | None = None, size: int = len(STRATA)) -> Split:
    files = None if names is None else np.array(names, dtype=object)
    return Split(np.zeros((size, 2), np.float32), np.zeros(size, np.int64), names=files)


def chosen(holdout: Any, split: Split, strata: Any = None) -> list[int]:
    return list(holdout.choose(split, strata))


@pytest.mark.parametrize("folds", [2, 5, 7])
@pytest.mark.parametrize("strata", [None, STRATA])
def test_folds_are_equal_parts(folds: int, strata: Any) -> None:
    parts = [chosen(kfold(3, folds=folds, fold=fold), pool(), strata) for fold in range(folds)]
    assert sorted(row for part in parts for row in part) == list(range(100))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    if strata is not None:
        counts = np.array([np.bincount(strata[part], minlength=3) for part in parts])
        assert (np.ptp(counts, axis=0) <= 1).all()
    assert parts[0] == chosen(kfold(3, folds=folds, fold=0), pool(), strata)
    assert parts[0] != chosen(kfold(4, folds=folds, fold=0), pool(), strata)


def test_random_is_what_it_always_was() -> None:
    assert chosen(random(0.2, 5), pool(), STRATA) == list(split_indices(STRATA, 100, 0.2, 5, "val")[1])
    assert random(0.0, 5).choose is None


def test_groups_stay_together() -> None:
    names = [f"/data/x/patient{row % 13}_{row}.png" for row in range(100)]
    patients = np.array([row % 13 for row in range(100)])
    held = chosen(grouped(0.2, 0, pattern=r"patient(\d+)_"), pool(names))
    assert not set(patients[held]) & set(np.delete(patients, held))
    assert 12 <= len(held) <= 28
    parts = [chosen(grouped(0.2, 0, pattern=r"patient\d+", folds=4, fold=fold), pool(names)) for fold in range(4)]
    assert sorted(row for part in parts for row in part) == list(range(100))
    assert max(map(len, parts)) - min(map(len, parts)) <= 8  # of groups of 7 or 8
    for part in parts:
        assert not set(patients[part]) & set(np.delete(patients, part))


@pytest.mark.parametrize(("mark", "pattern"), [("2024-05-{:02d}", r"\d{4}-\d\d-\d\d"), ("t{}", r"t(\d+)")])
def test_the_latest_are_held_out(mark: str, pattern: str) -> None:
    days = np.random.default_rng(1).permutation(np.repeat(np.arange(1, 26), 4))
    names = [f"/x/y/{mark.format(day)}_{row}.png" for row, day in enumerate(days)]
    held = chosen(time(0.2, pattern=pattern), pool(names))
    assert len(held) == 20 and min(days[held]) > max(np.delete(days, held))  # 9 < 10 as numbers


def sweep(here: Path) -> Path:
    (found,) = (here / "outputs" / "sweeps").iterdir()
    return found


@pytest.mark.slow
def test_a_sweep_over_folds_ends_with_all_answers(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ["train", "-m", "dataset=iris", "holdout=kfold", "holdout.folds=4", "epochs=3", *FAST]
    done = trainkit_here(*words, "holdout.fold=range(4)")
    assert done.code == 0, done.err
    assert "(mean ± standard deviation over holdout.fold, n = 4)" in done.out
    assert "120 samples of 4 folds, each by a run that had not seen it; accuracy 0." in done.out
    folder = sweep(tmp_path)
    with (folder / "out_of_fold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(120))
    assert sorted({row["fold"] for row in rows}) == ["0", "1", "2", "3"]
    assert {row["target"] for row in rows} == {"setosa", "versicolor", "virginica"}
    hits = [row["target"] == row["predicted"] for row in rows]
    assert f"accuracy {np.mean(hits):.4f}" in done.out
    values = [
        json.loads((folder / str(job) / "status.json").read_text())["result"]["metrics"]["val"]["accuracy"]
        for job in range(4)
    ]
    for fold, value in enumerate(values):  # each run's own number is that of its rows
        assert np.mean([hit for hit, row in zip(hits, rows, strict=True) if row["fold"] == str(fold)]) == value
    compared = trainkit_here("compare", str(folder))
    assert "seed 0, folds 0, 1, 2, 3" in compared.out and "mean ± standard deviation over folds" in compared.out
    assert trainkit_here("report", str(folder)).code == 0
    again = trainkit_here("eval", f"ckpt={folder / '1'}", "split=val", "--json")  # finds the same fold again
    assert json.loads(again.out)["metrics"]["val"]["accuracy"] == values[1]


@pytest.mark.slow
def test_several_settings_have_answers_of_their_own(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ["train", "-m", "dataset=iris", "holdout=kfold", "holdout.folds=2", "epochs=1", "seed=0,1", *FAST]
    done = trainkit_here(*words, "holdout.fold=0,1")
    assert done.code == 0 and "240 answers, of several settings: see the column job" in done.out
    with (sweep(tmp_path) / "out_of_fold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted({(row["job"], row["fold"]) for row in rows}) == [("0", "0"), ("1", "1"), ("2", "0"), ("3", "1")]


@pytest.mark.slow
def test_a_fold_that_failed_is_said(trainkit_here: CommandHere, tmp_path: Path) -> None:
    words = ["train", "-m", "dataset=iris", "holdout=kfold", "epochs=1", "optim.lr=0.1,1e30", *FAST]
    done = trainkit_here(*words)
    assert done.code == 1
    assert "24 samples of 1 fold, each by a run that had not seen it; 1 job has none" in done.out


def test_folds_of_photos_have_their_names(trainkit_here: CommandHere, tmp_path: Path) -> None:
    lay_out(tmp_path, class_folders())
    folder = ["dataset=folder", "dataset.root=images", "dataset.image_size=8", "dataset.test_fraction=0"]
    done = trainkit_here("train", *folder, "holdout=kfold", "epochs=1", "hydra.run.dir=run", *FAST)
    assert done.code == 0, done.err
    with (tmp_path / "run" / "out_of_fold.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and all(Path(row["name"]).is_file() for row in rows)
    assert all(row["target"] in row["name"] for row in rows)
