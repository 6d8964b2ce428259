"""A torch `Dataset` of (input, target) pairs as a split: read while training, by worker processes, in our order.

Each sample is read with the global generators of torch, NumPy and Python seeded by (seed, epoch, row), so that random
transforms give the same bits for any number of workers, and after a resume; the generators are put back afterwards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from trainkit.data.spec import INPUT, TARGET, TargetSpec, named, unwrap
from trainkit.data.splits import Array, Arrays, Split
from trainkit.errors import DataError, ResourceError
from trainkit.randomness import key
from trainkit.tasks.base import task_of

if TYPE_CHECKING:
    from torch import Tensor

SAMPLED = 64  # samples by which a data set is told from another one
PATIENCE = 1.0  # seconds from the end of a worker to the signal of its end, at most


@dataclasses.dataclass(frozen=True)
class Unread:
    """The shape and the type of a column whose samples are read with others."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Unread:
        return Unread((len(index), *self.shape[1:]), self.dtype)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Mapped(Split):
    """The samples of a torch Dataset at `rows` (None: all), read by `workers` processes.

    specs: of its targets by name, by which each batch is checked when it is read. where: how what is said of it begins.
    Raises DataError when it holds no sample, or samples that are no (input, target) pairs of numbers or dicts of them.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        rows: Array | None = None,
        workers: int = 0,
        specs: dict[str, TargetSpec] | None = None,
        where: str = "",
    ) -> None:
        self.dataset = dataset
        self.specs, self.where = specs or {}, where
        self.rows = np.arange(len(dataset)) if rows is None else rows  # type: ignore[arg-type]
        self.workers = workers
        if not len(self.rows):
            raise DataError(f"{type(dataset).__name__}: it holds no sample")
        columns = [self._unread(part) for part in _read(_Keyed(dataset, 0, 0), int(self.rows[0]))]
        super().__init__(*columns)  # type: ignore[arg-type]

    def _unread(self, part: Tensor | dict[str, Tensor]) -> Unread | dict[str, Unread]:
        if isinstance(part, dict):
            return {name: self._unread(value) for name, value in part.items()}  # type: ignore[misc]
        return Unread((len(self.rows), *part.shape), part.numpy().dtype)

    @property
    def hint(self) -> str | None:
        """What helps when reading takes long."""
        return f"workers={2 * self.workers or 1}, or less work in {type(self.dataset).__name__}.__getitem__"

    def without_workers(self) -> Mapped:
        return Mapped(self.dataset, self.rows, 0, self.specs, self.where)

    def take(self, index: Array) -> Mapped:
        return Mapped(self.dataset, self.rows[index], self.workers, self.specs, self.where)

    def batches(self, indices: Sequence[Array], seed: int = 0, epoch: int = 0) -> Iterator[tuple[Arrays, Arrays]]:
        loader: DataLoader[Any] = DataLoader(
            _Keyed(self.dataset, seed, epoch),
            batch_sampler=[self.rows[index].tolist() for index in indices],
            num_workers=self.workers,
            collate_fn=collate,
        )
        try:
            for index, found in zip(indices, _outlived(loader), strict=True):
                if isinstance(found, DataError):
                    raise found
                inputs, targets = map(_numpy, found)
                self._check(targets, self.rows[index])
                yield inputs, targets
        except Exception as error:
            if str(error).startswith("Caught "):  # by a worker, from the data set: the text ends with the note above
                error.add_note(str(error).rstrip().splitlines()[-1])
            if not isinstance(error, (RuntimeError, ConnectionError, EOFError)) or hasattr(error, "__notes__"):
                raise
            reason = " ".join(str(error).split()).rstrip(". ") or type(error).__name__
            advice = "if memory ran out, lower workers or batch_size"
            raise ResourceError(f"a worker that reads samples has ended ({reason}); {advice}") from error

    def _check(self, targets: Arrays, rows: Array) -> None:
        """Raise DataError, naming the row of the data set, for a target that is not its task's."""
        for name, column in named(targets, TARGET).items():
            spec = self.specs.get(name)
            if spec is None:
                continue
            try:
                task_of(spec).check(column, spec, self.where)
            except DataError:
                for place, row in enumerate(rows):
                    try:
                        task_of(spec).check(column[place : place + 1], spec, "")
                    except DataError as fault:
                        if "row 0" not in str(fault):  # but of all
                            break
                        raise DataError(self.where + str(fault).replace("row 0", f"row {row}", 1)) from None
                raise

    def digest(self) -> str:
        """SHA-256 of the number of samples and of some of them, evenly spaced."""
        chosen = np.unique(np.linspace(0, len(self.rows) - 1, SAMPLED).astype(int))
        found = hashlib.sha256(repr((type(self.dataset).__name__, self.rows.tobytes())).encode())
        keyed = _Keyed(self.dataset, 0, 0)
        for row in self.rows[chosen]:
            for part in _read(keyed, int(row)):
                for name, tensor in sorted((part if isinstance(part, dict) else {"": part}).items()):
                    found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
        return found.hexdigest()


def _outlived(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches. When a worker dies, its socket breaks, and then a signal handler of torch's raises RuntimeError."""
    try:
        yield from loader
    except (ConnectionError, EOFError):
        time.sleep(PATIENCE)  # for the second not to come later, anywhere else
        raise


class _Keyed(Dataset[Any]):
    """A data set whose samples are a function of (seed, epoch, row), whatever generator they draw from.

    What is no pair of numbers is a DataError in its place.
    """

    def __init__(self, dataset: Dataset[Any], seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch

    def __getitem__(self, row: int) -> Any:
        before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
        value = key(self.seed, self.epoch, row, "sample")  # rows come in any order: none is one of a block of steps
        torch.default_generator.manual_seed(value)
        np.random.seed(value % 2**32)  # noqa: NPY002
        random.seed(value)
        try:
            return as_pair(self.dataset[row], self.dataset)
        except DataError as error:
            return error
        except Exception as error:
            error.add_note(f"dataset {type(self.dataset).__name__}, asked for sample {row},")
            raise
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            random.setstate(before[2])


def _read(keyed: _Keyed, row: int) -> tuple[Any, Any]:
    """A sample. Raises DataError where it is none."""
    found: tuple[Any, Any] | DataError = keyed[row]
    if isinstance(found, DataError):
        raise found
    return found


def as_pair(sample: Any, dataset: Any) -> tuple[Any, Any]:
    """A sample as tensors: (input, target), each one or several by name. Raises DataError for anything else."""
    name = type(dataset).__name__
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        raise DataError(f"dataset {name}: a sample is {_kind(sample)}; it must be a pair (input, target)")
    return _tensors(sample[0], f"dataset {name}: the input"), _tensors(sample[1], f"dataset {name}: the target")


def _tensors(value: Any, where: str) -> Tensor | dict[str, Tensor]:
    if isinstance(value, dict):
        return unwrap({str(name): _tensor(one, f"{where} '{name}'") for name, one in value.items()})
    return _tensor(value, where)


def _tensor(value: Any, where: str) -> Tensor:
    try:
        number = isinstance(value, (int, float)) and not isinstance(value, np.generic)  # float32, int64 or bool
        found = (
            torch.as_tensor(value) if number or isinstance(value, torch.Tensor) else torch.from_numpy(np.asarray(value))
        )
    except (TypeError, ValueError):
        raise DataError(f"{where} is {_kind(value)}; it must be a tensor, an array or a number") from None
    return found.detach().cpu()


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")


def collate(samples: list[tuple[Any, Any] | DataError]) -> tuple[Any, Any] | DataError:
    """Samples as tensors with a batch dimension; or what is wrong with one, or with their shapes."""
    # returned, not raised: a worker would send a traceback instead
    good = [sample for sample in samples if not isinstance(sample, DataError)]
    if len(good) < len(samples):
        return next(sample for sample in samples if isinstance(sample, DataError))
    try:
        return _stack([sample[0] for sample in good], INPUT), _stack([sample[1] for sample in good], TARGET)
    except DataError as error:
        return error


def _stack(values: list[Any], name: str) -> Any:
    forms = {frozenset(value) if isinstance(value, dict) else None for value in values}
    if len(forms) > 1:
        told = sorted("none" if form is None else ", ".join(sorted(form)) for form in forms)
        raise DataError(f"samples of {name} have different names, {' and '.join(told[:2])}: give each the same")
    if isinstance(values[0], dict):
        return {key: _stack([value[key] for value in values], key) for key in values[0]}
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) > 1:
        raise DataError(
            f"samples of {name} have different shapes, {' and '.join(map(str, sorted(shapes)[:2]))}: pad them"
        )
    return torch.stack(values)


def _numpy(tree: Any) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tree.items()} if isinstance(tree, dict) else tree.numpy()
