"""What a model answered on a split: collected while it is measured, and kept in the run folder as predictions.npz.

    split       the split's name
    task        the name of a task
    classes     (C,) names, where the task has some
    targets     (N, …): int64 (N,) classes; multilabel float32 (N, C); regression float32 (N, T) in original units
    …           (N, …) each: what else the task keeps, see `Task.keep`

Of classification and soft targets:

    predicted   int64 (N,), the likeliest class, and
    confidence  float32 (N,), its probability

Of these four tasks:

    outputs     float32 (N, C) logits, or (N, T) predictions in original units

No array but `targets` is larger than MAX_BYTES: it is left out. The file holds no pickle, and the same answers give the
same bytes. Reading it needs NumPy alone.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import storage
from trainkit.data import arrays as npz
from trainkit.data.spec import TargetSpec
from trainkit.errors import ResourceError
from trainkit.tasks.base import Numbers, Task, reading_task, task_of

if TYPE_CHECKING:
    import torch

    from trainkit.data.batch import Batch
    from trainkit.data.dataset import Data
    from trainkit.data.loaders import Normalize

FILE = "predictions.npz"
MOST_BYTES = 1 << 30  # of all arrays that are read: a run keeps less
MAX_BYTES = 64 << 20  # of an array, on the device and in the file


@dataclasses.dataclass(frozen=True)
class Predictions:
    """target: its task, and the classes; nothing else of it is known. kept: the arrays, by name."""

    split: str
    target: TargetSpec
    kept: Numbers

    def __len__(self) -> int:
        return len(self.kept["targets"])

    @property
    def task(self) -> Task:
        return reading_task(self.target.task)

    def answer(self, place: int) -> dict[str, str]:
        """What one sample is and what the model said of it, in words."""
        return self.task.answer(self.kept, place, self.target)


class Collector:
    """Keeps the answers of one pass over a split on the device; `predictions` brings them to the host, once."""

    def __init__(self, split: str, data: Data, normalize: Normalize) -> None:
        self.split, self.target, self.normalize = split, data.spec.target, normalize
        self.task = task_of(self.target)
        self.size = len(data.splits[split])
        self._parts: dict[str, list[torch.Tensor]] = {}

    def add(self, outputs: torch.Tensor, batch: Batch) -> None:
        """Keep of a batch what the task keeps of the outputs of the model and the targets that its loss took."""
        kept = self.task.keep(outputs.float(), batch.targets, self.target)
        for name, tensor in kept.items():
            if tensor[:1].nbytes * self.size <= MAX_BYTES or name == "targets":
                # a copy: what a compiled model returns is overwritten by its next call
                self._parts.setdefault(name, []).append(tensor.clone())

    @functools.cached_property
    def predictions(self) -> Predictions | None:
        """All answers, in the order of the split; None of a task that keeps no targets. To be asked for at the end."""
        import torch

        if "targets" not in self._parts:
            return None
        found = {name: torch.cat(parts) for name, parts in self._parts.items()}
        arrays = {
            name: (self.normalize.original(values) if values.is_floating_point() else values.cpu()).numpy()
            for name, values in found.items()
        }
        return Predictions(self.split, TargetSpec(self.target.task, self.target.classes), arrays)


def write(folder: Path, found: Predictions) -> None:
    """Put predictions.npz into a run folder. Raises ResourceError when it cannot be written."""
    said: dict[str, Any] = {"split": found.split, "task": found.target.task, "classes": found.target.classes}
    arrays = {name: np.asarray(value) for name, value in said.items() if value is not None}
    write_arrays(folder / FILE, arrays | found.kept)


def read(folder: Path) -> Predictions | None:
    """The predictions of a run folder, None where it has none. Raises ValueError for a damaged file."""
    arrays = read_arrays(folder / FILE)
    if arrays is None:
        return None
    said = {name: arrays.pop(name) for name in ("split", "task", "classes") if name in arrays}
    classes = [str(name) for name in said["classes"].reshape(-1)] if "classes" in said else None
    if "targets" not in arrays:
        raise ValueError("it holds no targets")
    found = Predictions(str(said.get("split", "")), TargetSpec(str(said.get("task", "")), classes), arrays)
    if not found.target.task or arrays["targets"].ndim == 0 or len(found) == 0:
        raise ValueError("it says nothing of the task, or holds no sample")
    if any(array.ndim == 0 or len(array) != len(found) for array in arrays.values()):
        raise ValueError("its arrays differ in length")
    if any(array.dtype.kind not in "biuf" for array in arrays.values()):
        raise ValueError("its arrays hold something else than numbers")
    found.task.check_kept(arrays, found.target)
    return found


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Replace an .npz file at once. Raises ResourceError when it cannot be written."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    storage.replace(path, content.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]] | None:
    """The arrays of an .npz file, None where there is no such file. Raises ValueError for a damaged one."""
    try:
        return npz.read_arrays(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ResourceError) as error:
        raise ValueError(str(error)) from error
