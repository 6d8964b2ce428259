"""What each sample was answered by the run that had not seen it: a CSV file of each fold, and one of a sweep.

row         of the train split before a fold was held out, from 0
name        of the sample's file, where it has one
fold        that was held out with it
target      what is right: a class, or numbers
…           what the task keeps of the answer, see `Task.keep`: predicted, confidence, outputs
job         of the sweep, in the sweep's file alone: of several settings each has its own answers
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainkit import storage
from trainkit.run_folders.predictions import Predictions
from trainkit.text import cell

FILE = "out_of_fold.csv"
Row = dict[str, str]


def write(folder: Path, found: Predictions, fold: int, rows: Sequence[int], names: Any) -> None:
    """Put the answers on a fold into its run folder. Raises ResourceError when they cannot be written.

    rows: of its samples, in the order of the answers. names: of their files (N,), or None.
    """
    classes = found.target.classes
    columns: dict[str, list[Any]] = {"row": list(rows)}
    if names is not None:
        columns["name"] = [str(name) for name in names]
    columns["fold"] = [fold] * len(found)
    for name, values in found.kept.items():
        title = "target" if name == "targets" else name.removesuffix("s")
        flat = values.reshape(len(values), -1)
        if flat.shape[1] == 1 and values.dtype.kind in "iu" and classes is not None:
            columns[title] = [classes[int(value)] for value in flat[:, 0]]
        else:
            labels = classes if classes is not None and len(classes) == flat.shape[1] else range(flat.shape[1])
            titles = [title] if flat.shape[1] == 1 else [f"{title}_{label}" for label in labels]
            columns |= {one: flat[:, place].tolist() for place, one in enumerate(titles)}
    _write_csv(folder / FILE, list(columns), zip(*columns.values(), strict=True))


def gather(sweep: Path, jobs: Sequence[Path]) -> str | None:
    """Put the rows of all folds into one file of the sweep, in their order; returns what is to be said of it.

    None where no job has held out a fold. Raises ResourceError when the file cannot be written.
    """
    having = [job for job in jobs if (job / FILE).exists()]
    rows = [row | {"job": job.name} for job in having for row in _read(job / FILE)]
    rows.sort(key=lambda row: (int(row["row"]), int(row["job"])))
    if not rows:
        return None
    columns = list(dict.fromkeys(name for row in rows for name in row))
    _write_csv(sweep / FILE, columns, ([row.get(name, "") for name in columns] for row in rows))
    samples = len({row["row"] for row in rows})
    folds = len({row["fold"] for row in rows})
    told = f"{samples:,} samples of {folds} fold{'s' if folds > 1 else ''}, each by a run that had not seen it"
    if missing := len(jobs) - len(having):
        told += f"; {missing} job{'s have' if missing > 1 else ' has'} none"
    if len(rows) > samples:
        told += f"; {len(rows):,} answers, of several settings: see the column job"
    elif all("predicted" in row for row in rows):
        hits = np.mean([row["predicted"] == row["target"] for row in rows])
        told += f"; accuracy {hits:.4f}"
    return told


def _read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write_csv(path: Path, columns: Sequence[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    storage.replace(path, text.getvalue().encode("utf-8", "replace"))
