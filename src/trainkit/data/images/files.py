"""Samples that stay image files: decoded when a batch needs them, by workers that run a few batches ahead.

`Files` stands where a split has an array of inputs. All splits of a data set share one `Stream`: its workers, and a
ring of batches in shared memory that they decode into.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trainkit.data.images.decode import Bad
from trainkit.data.images.decoders import Decoders, in_memory
from trainkit.data.images.fit import Rule
from trainkit.errors import DataError

_AHEAD = 3  # batches in the ring: one with the model, two being decoded


class Stream:
    """Decodes batches in the order they are asked for. workers: 0 decodes in this process."""

    def __init__(self, shape: tuple[int, int, int], rule: Rule, workers: int) -> None:
        self.shape, self.rule, self.workers = shape, rule, workers
        self.decoders: Decoders | None = None
        self._rows = 0  # of one batch in the ring

    def batches(self, paths: NDArray[np.object_], indices: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """Yield the images of each index array, as `decode` does.

        Raises DataError with the path for a file that cannot be decoded, ResourceError when a worker fails.
        """
        asked = (paths[index].tolist() for index in indices)
        for batch, images, failures in self.decode(asked, max(map(len, indices), default=1)):
            if failures:
                path, reason = batch[failures[0].row], failures[0].reason
                raise DataError(f"{path}: not a readable image any more ({reason}); was it changed?")
            yield images

    def decode(
        self, batches: Iterator[list[str]], rows: int
    ) -> Iterator[tuple[list[str], NDArray[np.uint8], list[Bad]]]:
        """Yield each batch of at most `rows` paths, its images uint8 (B, C, H, W), and those that hold nothing.

        The images are good until the next batch is asked for. Raises ResourceError when a worker fails.
        """
        decoders = self._ready(rows)
        ahead = _AHEAD if self.workers else 1
        asked: deque[tuple[int, list[str]]] = deque()
        numbered = enumerate(batches)
        while True:
            for number, paths in itertools.islice(numbered, ahead - len(asked)):
                self._ask(decoders, paths, number)
                asked.append((number, paths))
            if not asked:
                return
            number, paths = asked.popleft()
            failures = []
            for first in range(0, len(paths), self._piece(len(paths))):
                failures += [bad._replace(row=first + bad.row) for bad in decoders.result()]
            start = number % _AHEAD * self._rows
            yield paths, decoders.images.array[start : start + len(paths)], failures

    def _piece(self, size: int) -> int:
        """How many files of a batch of this size one worker gets."""
        return -(-size // max(self.workers, 1)) or 1

    def _ask(self, decoders: Decoders, paths: list[str], number: int) -> None:
        start, size = number % _AHEAD * self._rows, self._piece(len(paths))
        for first in range(0, len(paths), size):
            decoders.submit(start + first, 0, paths[first : first + size])

    def _ready(self, rows: int) -> Decoders:
        """The workers, with a ring for batches of so many rows, and nothing left of an epoch that was broken off."""
        if self.decoders is not None and rows <= self._rows:
            while self.decoders.pending:
                self.decoders.result()
            return self.decoders
        if self.decoders is not None:
            self.decoders.close()
        self._rows = rows
        ring = in_memory((_AHEAD * rows, *self.shape), np.uint8, "lower batch_size")
        self.decoders = Decoders(self.workers, ring, None, self.rule)
        return self.decoders


class Files:
    """Image files as the inputs of a split: the shape and type of an array, without its content."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, paths: NDArray[np.object_], stream: Stream) -> None:
        self.paths, self.stream = paths, stream
        self.shape = (len(paths), *stream.shape)
        self.size = self.nbytes = math.prod(self.shape)

    def without_workers(self) -> Files:
        """The same files, decoded in this process."""
        return Files(self.paths, Stream(self.stream.shape, self.stream.rule, 0))

    @property
    def hint(self) -> str:
        """What helps when decoding takes long."""
        return f"workers={2 * self.stream.workers or 1}, loader=resident if memory allows, or smaller images"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: NDArray[np.int64]) -> Files:
        return Files(self.paths[index], self.stream)

    def batches(self, indices: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """As `Stream.batches`, of these files."""
        return self.stream.batches(self.paths, indices)
