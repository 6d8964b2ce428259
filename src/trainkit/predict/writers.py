"""Rows of predictions as CSV, JSON lines or Parquet, each batch written when it comes."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

from trainkit.errors import ConfigError
from trainkit.tasks.base import Double
from trainkit.text import cell as safe_cell
from trainkit.text import to_json

Stream = BinaryIO | io.RawIOBase
Row = dict[str, Any]
Fields = dict[str, type]  # the columns: str, int, float (which a model gives, so float32), Double, or list (of str)
Write = Callable[[list[Row]], None]


_GROUP = 10_000  # rows that Parquet stores together


@contextlib.contextmanager
def csv_rows(stream: Stream, fields: Fields) -> Iterator[Write]:
    """CSV: a header, one line a row, UTF-8. Text that a spreadsheet would run gets a ' in front."""

    def write(lines: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        stream.write(text.getvalue().encode())
        stream.flush()

    write([[_cell(name) for name in fields]])
    yield lambda rows: write([[_cell(row.get(name), kind) for name, kind in fields.items()] for row in rows])


def _cell(value: Any, kind: type = str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value) if kind is Double else f"{value:.7g}"
    text = ";".join(value) if isinstance(value, list) else str(value)
    return str(safe_cell(text.replace("\r", "\\r")))  # which the writer would not quote


@contextlib.contextmanager
def jsonl_rows(stream: Stream, fields: Fields) -> Iterator[Write]:
    """JSON lines: one object a row, with every field; null where there is nothing."""

    def write(rows: list[Row]) -> None:
        lines = (to_json({name: _plain(row.get(name), kind) for name, kind in fields.items()}) for row in rows)
        stream.write("".join(f"{line}\n" for line in lines).encode())
        stream.flush()

    yield write


def _plain(value: Any, kind: type) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) and kind is float else value  # float32 has no more digits


@contextlib.contextmanager
def parquet_rows(stream: Stream, fields: Fields) -> Iterator[Write]:
    """Parquet, with typed columns. Raises ConfigError when pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("format=parquet needs pyarrow: pip install 'trainkit[parquet]'") from None
    kinds = {
        str: pyarrow.string(),
        int: pyarrow.int64(),
        float: pyarrow.float32(),
        Double: pyarrow.float64(),
        list: pyarrow.list_(pyarrow.string()),
    }
    schema = pyarrow.schema([(name, kinds[kind]) for name, kind in fields.items()])
    waiting: list[Row] = []
    with parquet.ParquetWriter(stream, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        def write(rows: list[Row]) -> None:
            waiting.extend(rows)
            if len(waiting) >= _GROUP:
                flush()

        yield write
        flush()


FORMATS: dict[str, Callable[[Stream, Fields], AbstractContextManager[Write]]] = {
    "csv": csv_rows,
    "jsonl": jsonl_rows,
    "parquet": parquet_rows,
}
