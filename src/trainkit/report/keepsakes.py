"""What is done for whoever looks at a run later: its answers and some images kept, and its plots drawn."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from trainkit.errors import Interrupted, TrainkitError
from trainkit.report import pictures
from trainkit.run_folders import out_of_fold, predictions, rundir

if TYPE_CHECKING:
    from trainkit.data.dataset import Data
    from trainkit.data.loaders import Loader
    from trainkit.run_folders.predictions import Collector

WORTHWHILE = 30.0  # seconds that a run must have taken for `plots=auto` to draw: matplotlib takes one or two


def keep(
    folder: Path,
    data: Data,
    collected: Collector | None,
    note: Callable[[str], None],
    train: Loader | None = None,
    saliency: pictures.Heat | None = None,
) -> None:
    """Put predictions.npz and, for images, pictures.npz into a run folder.

    They only serve to look at the run, so a failure to write them is noted and ends nothing.
    """
    images: dict[str, NDArray[Any]] = {}
    try:
        if collected is not None:
            found = collected.predictions
            if found is not None:
                predictions.write(folder, found)
            if found is not None and data.spec.input.is_image:
                images |= pictures.answered(data, found, saliency if len(data.spec.inputs) == 1 else None)
        if train is not None and data.spec.input.is_image:
            images |= pictures.training_samples(data, train)
        if images:
            predictions.write_arrays(folder / pictures.FILE, images)
    except Interrupted:
        raise
    except (TrainkitError, RuntimeError) as error:  # a full disk, a file that has changed, no memory on the device
        note(f"a report of this run will lack predictions or images: {error}")


def keep_fold(folder: Path, data: Data, collected: Collector | None, note: Callable[[str], None]) -> None:
    """Put out_of_fold.csv into the run folder of a fold; a failure is noted and ends nothing."""
    if data.fold is None or data.held is None or collected is None:
        return
    try:
        found = collected.predictions
        if found is not None and len(found) == len(data.held):  # and not limited to a few batches
            out_of_fold.write(folder, found, data.fold, data.held.tolist(), data.splits["val"].names)
    except Interrupted:
        raise
    except (TrainkitError, RuntimeError) as error:  # a full disk, no memory on the device
        note(f"the answers on the fold are not kept: {error}")


def draw_plots(plots: Literal["auto"] | bool, folder: Path, started: float, say: Callable[[str], None]) -> None:
    """Draw the plots of a run that has just been measured, if they are wanted; started: by time.monotonic().

    They change nothing about the run, so that whatever goes wrong is said and ends nothing.
    """
    if plots is False or (plots == "auto" and time.monotonic() - started < WORTHWHILE):
        return
    try:
        from trainkit.report.facts import read_facts
        from trainkit.report.files import write_run_plots

        drawn = write_run_plots(read_facts(folder))
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        say(f"note: no plots were drawn ({reason}); `trainkit report` tries again")
        return
    say(f"plots: {rundir.shown(folder / 'plots')} ({', '.join(path.stem for path in drawn)})")
