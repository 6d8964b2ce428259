"""Plots as PNG files in the folder of a run or a sweep."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainkit.plots.draw import Panel, write_grid, write_panels
from trainkit.report.comparison import compare, comparison_panels
from trainkit.report.facts import Facts
from trainkit.report.panels import panels, sections
from trainkit.report.pictures import worst_places
from trainkit.report.run_page import answers, error_images, target_words
from trainkit.storage import make_folder


def write_run_plots(facts: Facts) -> list[Path]:
    """All plots that a run has data for, in its `plots/`. Raises ResourceError when they cannot be written."""
    folder = facts.path / "plots"
    make_folder(folder)
    drawn = _write(folder, panels(facts, sections(facts)))
    kept = facts.pictures or {}
    if len(kept.get("train_images", ())):
        drawn.append(folder / "samples.png")
        write_grid(drawn[-1], kept["train_images"], target_words(facts), "training samples, as the model sees them")
    images = error_images(facts)
    if images and facts.predictions is not None:
        places = [int(place) for place in worst_places(facts.predictions) if int(place) in images]
        lines = answers(facts, places)
        captions = ["\n".join(f"{key} {value}" for key, value in line.items()) for line in lines]
        drawn.append(folder / "errors.png")
        write_grid(
            drawn[-1],
            np.stack([images[place] for place in places]),
            captions,
            f"worst errors on {facts.predictions.split}",
        )
    return drawn


def write_sweep_plots(runs: list[Facts], sweep: Path) -> list[Path]:
    """The overlaid curves and the effect of each parameter, in a sweep's `plots/`."""
    folder = sweep / "plots"
    make_folder(folder)
    return _write(folder, comparison_panels(compare(runs)))


def _write(folder: Path, drawn: dict[str, list[Panel]]) -> list[Path]:
    paths = [folder / f"{name}.png" for name in drawn]
    for path, group in zip(paths, drawn.values(), strict=True):
        write_panels(path, group)
    return paths
