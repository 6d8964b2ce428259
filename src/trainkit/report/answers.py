"""What a model answered on a split: collected while it is measured, and kept in the run folder as predictions.npz.

    split       the split's name
    task        as in `data.splits`
    classes     (C,) names; not for regression
    targets     int64 (N,) classes; multilabel float32 (N, C); regression float32 (N, T) in original units
    predicted   int64 (N,), the likeliest class, and
    confidence  float32 (N,), its probability: for classification and soft targets
    outputs     float32 (N, C) logits, or (N, T) predictions in original units; left out of classes above MAX_BYTES

The file holds no pickle, and the same answers give the same bytes. Reading it needs NumPy alone.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit import storage
from trainkit.data import arrays as npz
from trainkit.errors import ResourceError
from trainkit.tasks.base import task_of

if TYPE_CHECKING:
    import torch

    from trainkit.data.batch import Batch
    from trainkit.data.dataset import Data
    from trainkit.data.loaders import Normalize

FILE = "predictions.npz"
MOST_BYTES = 1 << 30  # of all arrays that are read: a run keeps less
MAX_BYTES = 64 << 20  # of the outputs, on the device and in the file


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The arrays of the module docstring."""

    split: str
    task: str
    targets: NDArray[Any]
    classes: list[str] | None = None
    predicted: NDArray[np.int64] | None = None
    confidence: NDArray[np.float32] | None = None
    outputs: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.targets)


class Collector:
    """Keeps the answers of one pass over a split on the device; `predictions` brings them to the host at once."""

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

    def predictions(self) -> Predictions | None:
        """All answers, in the order of the split; None of a task that keeps no targets."""
        import torch

        if "targets" not in self._parts:
            return None
        found = {name: torch.cat(parts) for name, parts in self._parts.items()}
        arrays = {
            name: (self.normalize.original(values) if values.is_floating_point() else values.cpu()).numpy()
            for name, values in found.items()
        }
        return Predictions(self.split, self.target.task, classes=self.target.classes, **arrays)


def write(folder: Path, predictions: Predictions) -> None:
    """Put predictions.npz into a run folder. Raises ResourceError when it cannot be written."""
    arrays = {name: value for name, value in vars(predictions).items() if value is not None}
    write_arrays(folder / FILE, {name: np.asarray(value) for name, value in arrays.items()})


def read(folder: Path) -> Predictions | None:
    """The predictions of a run folder, None where it has none. Raises ValueError for a damaged file."""
    arrays = read_arrays(folder / FILE)
    if arrays is None:
        return None
    known = {field.name for field in dataclasses.fields(Predictions)}
    values: dict[str, Any] = {name: value for name, value in arrays.items() if name in known}
    for name in ("split", "task"):
        values[name] = str(values[name]) if name in values else ""
    if "classes" in values:
        values["classes"] = [str(name) for name in values["classes"].reshape(-1)]
    if "targets" not in values:
        raise ValueError("it holds no targets")
    found = Predictions(**values)
    _check(found)
    return found


def _check(found: Predictions) -> None:
    """Raise ValueError unless the arrays have the types and lengths that the module docstring gives them."""
    if not found.task or len(found) == 0:
        raise ValueError("it says nothing of the task, or holds no sample")
    columns = [found.outputs, found.predicted, found.confidence]
    if any(column is not None and len(column) != len(found) for column in columns):
        raise ValueError("its arrays differ in length")
    if found.task in ("classification", "soft"):
        if found.predicted is None or found.confidence is None or found.targets.ndim != 1:
            raise ValueError("it holds no classes and confidences")
        labels = np.concatenate([found.targets, found.predicted])
        num_classes = len(found.classes) if found.classes else labels.max(initial=0) + 1
        if labels.dtype.kind != "i" or labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError("it names classes that do not exist")
        if found.outputs is not None and found.outputs.shape != (len(found), num_classes):
            raise ValueError("its outputs do not fit its classes")
    elif found.outputs is None or found.outputs.shape != found.targets.shape or found.targets.ndim != 2:
        raise ValueError("its outputs do not fit its targets")


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
