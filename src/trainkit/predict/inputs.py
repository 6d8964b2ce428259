"""What `predict` is given: image files found by name, and rows of tables, a batch at a time.

    photos          a folder: every image in it and in its folders
    'a/*/[0-9].png' a pattern: what it matches, with ** for folders of any depth
    points.csv      a table: its rows; so are .npz and .parquet, also by pattern

All of it is a generator: what is kept does not grow with the number of files or rows. Hence a folder is in order of
names only in runs of 10,000 entries.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trainkit.data.images.decode import SUFFIXES, is_image, may_be_image
from trainkit.data.images.files import Stream
from trainkit.data.images.fit import Rule
from trainkit.data.spec import InputSpec
from trainkit.data.splits import Array
from trainkit.errors import DataError
from trainkit.predict import rows

_RUN = 10_000  # entries of a folder that are held, and sorted, at a time
_FEW = 32  # images that are decoded before workers would have started


@dataclasses.dataclass(frozen=True)
class Batch:
    """A few inputs in their order.

    names: of the files. rows: each one's number in its table, from 0; None for an image, or for a whole file.
    errors: why an input could not be read, None for a good one. values: of the good ones, as `Split.inputs`.
    """

    names: list[str]
    rows: list[int | None]
    errors: list[str | None]
    values: Array


def check(arguments: Sequence[str], spec: InputSpec) -> None:
    """Raise DataError for an argument that names nothing, or that a model with this input cannot take."""
    if not arguments:
        raise DataError("input=[] names nothing; name files, folders or patterns")
    shape = "x".join(map(str, spec.shape))
    table, from_files = spec.kind == "features", takes_image_files(spec)
    for argument in arguments:
        suffix = rows.table_suffix(argument)
        if table and suffix is None:
            raise DataError(f"input={argument}: the model takes {shape} features: name a .csv, .npz or .parquet file")
        if not table and suffix in (".csv", ".parquet"):
            raise DataError(
                f"input={argument}: the model takes {shape} images: name image files, folders or a .npz file"
            )
        if not table and suffix is None and not from_files:
            kind = f"{spec.dtype} {shape} {'images' if spec.is_image else spec.kind}"
            raise DataError(f"input={argument}: the model takes {kind}, which no image file holds: name a .npz file")
        if next(find(argument), None) is None:
            raise DataError(f"input={argument}: {_nothing(argument)}")


def takes_image_files(spec: InputSpec) -> bool:
    """Whether a model with this input can be given image files."""
    return spec.is_image and spec.dtype == "uint8" and spec.shape[0] in (1, 3)


def _nothing(argument: str) -> str:
    path = os.path.expanduser(argument)
    if os.path.isdir(path):
        return f"no image in this folder; looked for {', '.join(SUFFIXES)}"
    if os.path.lexists(path):
        return "neither a file nor a folder"
    return "nothing matches this pattern" if glob.has_magic(argument) else "no such file or folder"


def read(
    arguments: Sequence[str], spec: InputSpec, batch_size: int, workers: int, *, by_position: bool = False
) -> Iterator[Batch]:
    """Yield all inputs in batches of at most `batch_size`; `workers` processes decode images.

    by_position: columns of tables are taken in their order, whatever they are called.

    What cannot be read is an error in its batch. Raises ResourceError when a worker fails.
    """
    for table, group in itertools.groupby(arguments, lambda argument: rows.table_suffix(argument) is not None):
        paths = itertools.chain.from_iterable(map(find, group))
        if table:
            yield from _tables(paths, rows.Wanted.by(spec, by_position), batch_size)
        else:
            yield from _images(paths, spec, batch_size, workers)


def _images(paths: Iterator[str], spec: InputSpec, size: int, workers: int) -> Iterator[Batch]:
    first = list(itertools.islice(paths, _FEW))
    if len(first) < _FEW:
        size, workers = min(size, len(first)), 0
    channels, height, width = spec.shape
    stream = Stream((channels, height, width), Rule.of(spec), workers)
    everything = itertools.chain(first, paths)
    for names, images, failures in stream.decode(iter(lambda: list(itertools.islice(everything, size)), []), size):
        errors: list[str | None] = [None] * len(names)
        for bad in failures:
            errors[bad.row] = f"not a readable image ({bad.reason})"
        yield _batch(names, [None] * len(names), errors, images)


def _tables(paths: Iterator[str], wanted: rows.Wanted, size: int) -> Iterator[Batch]:
    for path in paths:
        done = 0
        try:
            for values, errors in rows.read(path, wanted, size):
                yield _batch([path] * len(errors), list(range(done, done + len(errors))), errors, values)
                done += len(errors)
        except DataError as error:
            yield Batch([path], [None], [str(error)], np.empty((0, *wanted.in_shape), wanted.dtype))


def _batch(
    names: list[str], numbers: Sequence[int | None], errors: list[str | None], values: NDArray[np.generic]
) -> Batch:
    good = [index for index, error in enumerate(errors) if error is None]
    return Batch(names, list(numbers), errors, values if len(good) == len(errors) else values[good])


def find(argument: str) -> Iterator[str]:
    """The files that an argument names; nothing where it names none."""
    path = os.path.expanduser(argument)
    if os.path.isdir(path):
        yield from _walk(path, ())
    elif os.path.exists(path):
        if os.path.isfile(path):  # a pipe would be waited for
            yield path
    elif glob.has_magic(path):
        root, parts = "/" if path.startswith("/") else "", [part for part in path.split("/") if part]
        for match in _matches(root, parts):
            if not os.path.isdir(match):
                if os.path.isfile(match) or not os.path.exists(match):  # not a pipe; a link that leads nowhere is told
                    yield match
            elif "**" not in parts[:-1]:  # which finds what is in the folder too
                yield from _walk(match, ())


def _walk(folder: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The images in a folder and below it. `above`: the folders around it, so that a link to one is no loop."""
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        for entry in _entries(folder):
            if may_be_image(entry):
                yield os.path.join(folder, entry.name)
            elif not is_image(entry.name) and entry.is_dir():
                yield from _walk(os.path.join(folder, entry.name), (*above, here))
    except OSError:
        yield folder  # cannot be listed: opening it fails for the same reason, and that is reported


def _matches(folder: str, parts: list[str]) -> Iterator[str]:
    """The paths below a folder ("": the current one) whose names match the parts of a pattern one by one."""
    head, rest = parts[0], parts[1:]
    if not glob.has_magic(head):
        path = os.path.join(folder, head)
        if os.path.isdir(path) if rest else os.path.exists(path):
            yield from _matches(path, rest) if rest else [path]
        return
    if parts == ["**"]:
        yield folder or "."
        return
    if head == "**":
        yield from _matches(folder, rest)
    for entry in _entries(folder):
        path = os.path.join(folder, entry.name)
        if head == "**":
            if entry.is_dir(follow_symlinks=False):
                yield from _matches(path, parts)
        elif fnmatch.fnmatchcase(entry.name, head):
            if not rest:
                yield path
            elif entry.is_dir():
                yield from _matches(path, rest)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, without hidden files, by name in runs."""
    with os.scandir(folder or ".") as entries:
        shown = (entry for entry in entries if not entry.name.startswith("."))
        while run := sorted(itertools.islice(shown, _RUN), key=lambda entry: entry.name):
            yield from run
            run.clear()
