"""Samples that stay image files: decoded when a batch needs them, by workers that run a few batches ahead.

`Files` stands where a split has an array of inputs. All splits of a data set share one `Stream`: its workers, and a
ring of batches in shared memory that they decode into.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from trainkit.data.decoders import Decoders, in_memory
from trainkit.errors import DataError

_AHEAD = 3  # batches in the ring: one with the model, two being decoded


class Stream:
    """Decodes batches in the order they are asked for. mode: `rgb` or `gray`; workers: 0 decodes in this process."""

    def __init__(self, shape: tuple[int, int, int], mode: str, workers: int) -> None:
        self.shape, self.mode, self.workers = shape, mode, workers
        self.decoders: Decoders | None = None
        self._rows = 0  # of one batch in the ring

    def batches(self, paths: NDArray[np.object_], indices: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """Yield the images of each index array, uint8 (B, C, H, W); an array is good until the next one is asked for.

        Raises DataError with the path for a file that cannot be decoded, ResourceError when a worker fails.
        """
        decoders = self._ready(max(map(len, indices), default=1))
        asked: list[list[list[str]]] = []  # the files of each batch, in as many pieces as there are workers
        for done in range(len(indices)):
            while len(asked) < min(done + _AHEAD, len(indices)) and (self.workers or len(asked) == done):
                asked.append(self._ask(decoders, paths[indices[len(asked)]].tolist(), len(asked)))
            for piece in asked[done]:
                for bad in decoders.result():
                    path = piece[bad.row]
                    raise DataError(f"{path}: not a readable image any more ({bad.reason}); was it changed?")
            start = done % _AHEAD * self._rows
            yield decoders.images.array[start : start + len(indices[done])]

    def _ask(self, decoders: Decoders, paths: list[str], number: int) -> list[list[str]]:
        start = number % _AHEAD * self._rows
        size = -(-len(paths) // max(self.workers, 1))
        pieces = [paths[first : first + size] for first in range(0, len(paths), size)]
        for index, piece in enumerate(pieces):
            decoders.submit(start + index * size, 0, piece)
        return pieces

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
        self.decoders = Decoders(self.workers, ring, None, self.mode)
        return self.decoders


class Files:
    """Image files as the inputs of a split: the shape and type of an array, without its content."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, paths: NDArray[np.object_], stream: Stream) -> None:
        self.paths, self.stream = paths, stream
        self.shape = (len(paths), *stream.shape)
        self.size = self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: NDArray[np.int64]) -> Files:
        return Files(self.paths[index], self.stream)

    def batches(self, indices: Sequence[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """As `Stream.batches`, of these files."""
        return self.stream.batches(self.paths, indices)
