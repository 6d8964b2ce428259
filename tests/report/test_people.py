"""A report for people who do not know trainkit: their own names, numbers as they write them, plots that are fair."""

from __future__ import annotations

import csv
import itertools
import re
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from trainkit.data.spec import TargetSpec
from trainkit.plots.charts import confusion, regression
from trainkit.plots.draw import write_ticks
from trainkit.report.facts import Facts
from trainkit.report.verdict import verdict
from trainkit.run_folders.predictions import Predictions
from trainkit.text import written
from writers import class_folders, lay_out

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from conftest import CommandHere

pytestmark = pytest.mark.slow

FAST = ("device=cpu", "device.threads=1", "epochs=1")


def drawn(panel: Any) -> Axes:
    axes = Figure().subplots()
    panel.draw(axes)
    write_ticks(axes)
    return axes


def first(page: Path, tag: str) -> str:
    found = re.search(f"<{tag}[^>]*>(.*?)</{tag}>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (44610.3, "44,610"),
        (1234567.8, "1,234,568"),
        (999.96, "1,000"),
        (123.456, "123.5"),
        (2.0, "2"),
        (0.98765, "0.9877"),
        (0.00012345, "0.0001234"),
        (-51234.0, "-51,234"),
        (0.0, "0"),
        (1e-9, "1e-09"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert written(value) == text


def test_the_title_is_the_name_of_the_users_own_data(trainkit_here: CommandHere, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    np.savez(tmp_path / "flat_prices.npz", x=x, y=(250_000 + 60_000 * x[:, 0]).astype(np.float32))
    lay_out(tmp_path, class_folders("insects"))
    chosen = ("dataset=npz", "dataset.file=flat_prices.npz", "hydra.run.dir=prices")
    assert trainkit_here("train", *chosen, *FAST).code == 0
    assert trainkit_here("train", "dataset=folder", "dataset.root=insects", "hydra.run.dir=photos", *FAST).code == 0
    for run, title in (("prices", "flat_prices mlp"), ("photos", "insects mlp")):
        assert trainkit_here("report", run).code == 0
        page = tmp_path / run / "report.html"
        assert first(page, "h1") == title and first(page, "title").startswith(f"{title}: ")
    text = (tmp_path / "prices" / "report.html").read_text(encoding="utf-8")
    assert "split of flat_prices, 16 samples" in text
    assert "e+0" not in text and re.search(r">\d\d\d,\d\d\d<", text)  # of the targets
    assert trainkit_here("report", "prices", "--title", "Flats in <town>").code == 0
    assert first(tmp_path / "prices" / "report.html", "h1") == "Flats in &lt;town&gt;"
    assert trainkit_here("report", "prices", "photos", "--output", "both.html").code == 0
    assert first(tmp_path / "both.html", "h1") in ("flat_prices, insects: 2 runs", "insects, flat_prices: 2 runs")


@pytest.mark.parametrize("share", [True, False])
def test_colors_of_a_confusion_matrix_are_shares_of_the_row(share: bool) -> None:
    panel = confusion(np.array([[160, 40], [1, 3]]), ["a", "b"], share=share)
    assert max(panel.size) <= 3.0
    (image,) = drawn(panel).images
    assert image.get_clim() == (0, 1)
    np.testing.assert_allclose(np.asarray(image.get_array()), [[0.8, 0.2], [0.25, 0.75]])
    alphas = [image.to_rgba(np.array([[value]]))[0, 0, 3] for value in (0.0, 0.25, 0.5, 1.0)]
    np.testing.assert_allclose(alphas, [0, 0.25, 0.5, 1], atol=0.002)  # as much color as there is share


def predictions(task: str, count: int) -> Predictions:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 2)).astype(np.float32)
    kept = {"targets": rng.integers(0, 2, (count, 2)).astype(np.float32), "outputs": logits}
    if task == "classification":
        odds = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        kept |= {
            "targets": rng.integers(0, 2, count),
            "predicted": logits.argmax(axis=1),
            "confidence": odds.max(axis=1),
        }
    return Predictions("test", TargetSpec(task, ["a", "b"]), kept)


@pytest.mark.parametrize("task", ["classification", "multilabel"])
@pytest.mark.parametrize(("count", "caveat"), [(199, " (only 199 samples)"), (200, "")])
def test_the_calibration_error_covers_no_point_and_is_doubted_where_samples_are_few(
    task: str, count: int, caveat: str
) -> None:
    found = predictions(task, count)
    name = "reliability" if task == "classification" else "reliability of labels"
    drawings = {
        name: panels for part in found.task.sections(found.kept, found.target) for name, panels in part.panels.items()
    }
    (panel,) = drawings["reliability"]
    assert not drawn(panel).texts
    assert re.fullmatch(rf"{name}, ECE \d+\.\d%{re.escape(caveat)}", panel.title)
    facts = Facts(Path("run"), state="completed", measured={"test": {"accuracy": 0.5}}, predictions=found)
    (said,) = [text for text in verdict(facts).sentences if "calibration error" in text]
    assert ("too few to tell it from chance" in said) == bool(caveat)


def test_ticks_have_separators() -> None:
    axes = Figure().subplots()
    axes.plot([0, 1], [0, 400_000])
    write_ticks(axes)
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    assert "400,000" in [label.get_text() for label in axes.get_yticklabels()]
    assert "0.2" in [label.get_text() for label in axes.get_xticklabels()]


def test_long_numbers_below_a_plot_do_not_overlap() -> None:
    x = np.random.default_rng(0).normal(50_000, 40_000, (200, 1))
    for panel in regression(x, x + 9000):
        figure = Figure(figsize=panel.size, layout="constrained")
        axes = figure.subplots()
        panel.draw(axes)
        write_ticks(axes)
        figure.draw_without_rendering()
        boxes = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 3 and all(left.x1 + 2 < right.x0 for left, right in itertools.pairwise(boxes))


def test_runs_over_seeds_have_a_mean_and_no_best(trainkit_here: CommandHere, tmp_path: Path) -> None:
    done = trainkit_here("train", "-m", "seed=2,0,1", "dataset=wine", "hydra.sweep.dir=s", *FAST)
    assert done.code == 0, done.err
    with (tmp_path / "s" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    numbers = {name: [float(row[name]) for row in rows] for name in ("val/accuracy", "test/accuracy")}
    for name, values in numbers.items():
        line = f"{name} {mean(values):.4f} ± {stdev(values):.4f} (mean ± standard deviation over seed, n = 3)"
        assert line in done.out.splitlines()
    assert "best" not in done.out.partition("3 jobs, 0 failed")[2]
    table = done.out.partition("3 jobs, 0 failed")[2].splitlines()[2:5]
    assert [line.split()[:2] for line in table] == [["0", "2"], ["1", "0"], ["2", "1"]]
    assert trainkit_here("report", "s").code == 0
    page = tmp_path / "s" / "report.html"
    val, test = (numbers[name] for name in ("val/accuracy", "test/accuracy"))
    assert first(page, "h1") == "wine: 3 runs over seed"
    assert (
        first(page, "strong") == f"accuracy {mean(val):.2%} ± {stdev(val):.2%} (mean ± standard deviation of 3) on val"
    )
    text = page.read_text(encoding="utf-8")
    assert f"On test the accuracy is {mean(test):.2%} ± {stdev(test):.2%}" in text
    assert "is best" not in text and "Effect of each parameter" not in text and "Best first" not in text
    other = trainkit_here("train", "-m", "seed=0,1", "model=linear,mlp", "dataset=wine", "hydra.sweep.dir=t", *FAST)
    assert "best first by val/accuracy" in other.out and "±" not in other.out
