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

if TYPE_CHECKING:
    import torch

    from trainkit.data.loaders import Normalize
    from trainkit.data.splits import Data

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
    outputs: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets)


class Collector:
    """Keeps the answers of one pass over a split on the device; `predictions` brings them to the host at once."""

    def __init__(self, split: str, data: Data, normalize: Normalize) -> None:
        self.split, self.task, self.classes = split, data.task, data.classes
        self.soft = data.task in ("classification", "soft")
        nbytes = len(data.splits[split]) * data.num_outputs * 4
        self.whole = nbytes <= MAX_BYTES or not self.soft
        self.mean, self.std = normalize.target_mean, normalize.target_std
        self._parts: dict[str, list[torch.Tensor]] = {}

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Keep a batch: the outputs (N, C) of the model and the targets that its loss takes."""
        outputs = outputs.float()
        if self.soft:
            confidence, predicted = outputs.softmax(dim=1).max(dim=1)
            classes = targets if targets.ndim == 1 else targets.argmax(dim=1)
            kept = {"targets": classes, "predicted": predicted, "confidence": confidence}
        else:
            kept = {"targets": self._original(targets)}
        if self.whole:
            # a copy: what a compiled model returns is overwritten by its next call
            kept["outputs"] = self._original(outputs).clone()
        for name, tensor in kept.items():
            self._parts.setdefault(name, []).append(tensor)

    def _original(self, values: torch.Tensor) -> torch.Tensor:
        return values if self.mean is None or self.std is None else values * self.std + self.mean

    def predictions(self) -> Predictions:
        """All answers, in the order of the split."""
        import torch

        arrays = {name: torch.cat(parts).cpu().numpy() for name, parts in self._parts.items()}
        return Predictions(self.split, self.task, classes=self.classes, **arrays)


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
    if found.task not in ("classification", "soft", "multilabel", "regression") or len(found) == 0:
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
