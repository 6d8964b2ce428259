"""Rows of .csv, .npz and .parquet files, a block at a time, as inputs for a model.

Every row of a file is accounted for: it has values, or the reason why it has none. Raises DataError, without the
file's name, where the file as a whole cannot be read.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
import os
import zipfile
from collections.abc import Iterator, Sequence

import numpy as np

from trainkit.data import arrays
from trainkit.data.datasets.npz import column_names, to_inputs
from trainkit.data.spec import InputSpec
from trainkit.data.splits import Array
from trainkit.errors import ConfigError, DataError, nearest

SUFFIXES = (".csv", ".npz", ".parquet")

Block = tuple[Array, list[str | None]]  # values (N, …), and for each row why it has none


def table_suffix(name: str) -> str | None:
    """The suffix that makes a file a table; None for any other file."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix if suffix in SUFFIXES else None


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a model takes for one row.

    features: names of the columns in the model's order, where it knows them. A file whose columns have names gives them
    by name, in any order, others left out; one without names gives them in order. by_position: always in order.
    """

    in_shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    features: list[str] | None
    by_position: bool = False

    @classmethod
    def by(cls, spec: InputSpec, by_position: bool) -> Wanted:
        """What a model with this input takes."""
        return cls(spec.shape, np.dtype(spec.dtype), spec.names, by_position)


def read(path: str, wanted: Wanted, size: int) -> Iterator[Block]:
    """Yield the rows of a table as inputs (at most `size`, *in_shape)."""
    suffix = table_suffix(path)
    blocks = (_npz if suffix == ".npz" else _csv if suffix == ".csv" else _parquet)(path, wanted, size)
    try:
        for values, errors in blocks:
            _note_not_finite(values, errors, wanted.features)
            yield values, errors
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})") from error


def _note_not_finite(values: Array, errors: list[str | None], features: list[str] | None) -> None:
    if values.dtype.kind != "f":
        return
    finite = np.isfinite(values.reshape(len(values), -1))
    for row in np.flatnonzero(~finite.all(axis=1)):
        if errors[row] is None:
            column = int(np.argmin(finite[row]))
            errors[row] = f"column {_name(column, features)} is {values[row].reshape(-1)[column]}"


def _name(column: int, features: list[str] | None) -> str:
    return str(column) if features is None else f"'{features[column]}'"


def _columns(names: Sequence[str] | None, found: int, wanted: Wanted) -> list[int]:
    """Which of the `found` columns of a file are the features. Raises DataError where that is not clear."""
    (width,), features = wanted.in_shape, wanted.features
    if names is None or features is None or wanted.by_position:
        if found != width:
            raise DataError(f"it has {found} columns, but the model takes {width} features")
        if names is not None and not wanted.by_position:
            first = ", ".join(names[:3]) + (", …" if found > 3 else "")
            raise DataError(
                f"its columns have names ({first}), and the model knows none to find them by; "
                "if they are its features in its order, add by_position=true"
            )
        return list(range(width))
    for name in features:
        if name not in names:
            close = nearest(name, names)
            raise DataError(f"it has no column '{name}'" + (f" (is it '{close}'?)" if close else ""))
        if names.count(name) > 1:
            raise DataError(f"it has {names.count(name)} columns '{name}'")
    return [names.index(name) for name in features]


def _csv(path: str, wanted: Wanted, size: int) -> Iterator[Block]:
    """A first line without any number, or with the names of the features, is a header."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines: Iterator[list[str]] = (line for line in csv.reader(file) if line)
            head = next(lines, None)
            if head is None:
                raise DataError("it is empty")
            names = [cell.strip() for cell in head]
            named = wanted.features is not None and set(wanted.features) <= set(names)
            titled = named or not any(map(_is_number, names))
            if not titled:
                lines = itertools.chain([head], lines)
            columns = _columns(names if titled else None, len(head), wanted)
            shown = [names[column] for column in columns] if titled else wanted.features
            while block := list(itertools.islice(lines, size)):
                yield _parsed(block, len(head), columns, shown)
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 text ({error.reason})") from error
    except csv.Error as error:
        raise DataError(f"it is no CSV file ({error})") from error


def _number(cell: str) -> float:
    """The number in a cell. Raises ValueError; also for `1_000` and digits of other scripts, which Python takes."""
    if "_" in cell or not cell.strip().isascii():
        raise ValueError(cell)
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _parsed(lines: list[list[str]], cells: int, columns: list[int], shown: list[str] | None) -> Block:
    values = np.zeros((len(lines), len(columns)), np.float32)
    errors: list[str | None] = [None] * len(lines)
    for row, line in enumerate(lines):
        if len(line) != cells:
            errors[row] = f"{len(line)} cells instead of {cells}"
            continue
        texts = [line[column] for column in columns]
        try:
            with np.errstate(over="ignore"):  # beyond float32 it becomes infinite, which is reported
                values[row] = [_number(text) for text in texts]
        except ValueError:
            column = next(index for index, text in enumerate(texts) if not _is_number(text))
            what = f"{texts[column]!r}, not a number" if texts[column].strip() else "empty"
            errors[row] = f"column {_name(column, shown)} is {what}"
    return values, errors


def _npz(path: str, wanted: Wanted, size: int) -> Iterator[Block]:
    """The rows of the array x, or of the only one; `features` names its columns."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = arrays.names(archive)
            rows = [name for name in names if name != "features"]
            if "x" not in rows and len(rows) != 1:
                raise DataError(f"it has no array x; it holds {', '.join(names) or 'nothing'}")
            columns: list[int] | None = None
            for raw in _array(archive, "x" if "x" in rows else rows[0], size):
                try:
                    values = to_inputs(raw, "")
                except DataError as error:
                    raise DataError(str(error).removeprefix(": ")) from None
                if columns is None and len(names) > len(rows) and len(wanted.in_shape) == 1:
                    columns = _columns(_titles(archive, values), values.shape[-1], wanted)
                values = values if columns is None else values[:, columns]
                if values.shape[1:] != wanted.in_shape or values.dtype != wanted.dtype:
                    ours, theirs = ("x".join(map(str, shape)) for shape in (wanted.in_shape, values.shape[1:]))
                    raise DataError(
                        f"its samples are {values.dtype} {theirs}, but the model takes {wanted.dtype} {ours}"
                    )
                if len(values):
                    yield values, [None] * len(values)
    except arrays.DAMAGE as error:
        raise DataError(f"it is no whole .npz file ({arrays.reason(error)})") from error


def _titles(archive: zipfile.ZipFile, values: Array) -> list[str]:
    first = itertools.islice(_array(archive, "features", values.shape[-1] + 1), 2)  # one too many is told, not read
    try:
        return column_names(np.concatenate(list(first)), values, "")
    except DataError as error:
        raise DataError(str(error).removeprefix(": ")) from None


def _array(archive: zipfile.ZipFile, name: str, size: int) -> Iterator[Array]:
    """An array of an archive: first none of its rows, to show their shape and type, then `size` rows at a time.

    Objects (pickles) are refused, because opening them runs code.
    """
    with archive.open(f"{name}.npy") as file:
        shape, fortran, dtype = arrays.read_header(file, archive.getinfo(f"{name}.npy").file_size)
        if not shape:
            raise DataError(f"{name} holds one number; save rows of numbers")
        yield np.empty((0, *shape[1:]), dtype)
        if fortran and len(shape) > 1:  # its rows are spread over the whole file
            whole = arrays.read_array(archive, name)
            yield from (np.ascontiguousarray(whole[start : start + size]) for start in range(0, len(whole), size))
            return
        row = math.prod(shape[1:]) * dtype.itemsize
        for start in range(0, shape[0], size):
            count = min(size, shape[0] - start)
            content = file.read(count * row)
            if len(content) != count * row:
                raise DataError(f"{name} ends before its row {shape[0] - 1}")
            yield np.frombuffer(bytearray(content), dtype).reshape(count, *shape[1:])  # bytes could not be written to


def _parquet(path: str, wanted: Wanted, size: int) -> Iterator[Block]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(f"reading {path} needs pyarrow: pip install 'trainkit[parquet]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = [schema.names[column] for column in _columns(schema.names, len(schema.names), wanted)]
            for name in names:
                kind, types = schema.field(name).type, pyarrow.types
                if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
                    raise DataError(f"column '{name}' holds {kind}, not numbers")
            for batch in file.iter_batches(size, columns=names):
                table = [batch.column(name).to_numpy(zero_copy_only=False).astype(np.float32) for name in names]
                yield np.stack(table, axis=1), [None] * len(batch)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"it is no whole Parquet file ({str(error).splitlines()[0]})") from error
