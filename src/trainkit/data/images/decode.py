"""One image file to pixels, and the loop of a worker process that does only that. Imports no torch.

A worker is started by `decoders.py`. It speaks JSON lines over a socket and writes pixels into memory that it shares
with the process that started it, so no pixel is copied or pickled on the way.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import queue
import socket
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

DECODER = 1  # counted up when the pixels of the same file change
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")  # of the files that are taken for images
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # no other decoder of Pillow is reachable from a file's content
RESAMPLING = "bilinear"  # of Pillow, which averages over all pixels of a larger image
REDUCED = 2  # a large JPEG is decoded at 1/2, 1/4 or 1/8, as long as it stays so many times the size that is wanted
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing about the file that was being opened


class Bad(NamedTuple):
    """A file that could not be decoded. `lasting`: another try on the same bytes would fail too."""

    row: int
    reason: str
    lasting: bool


def decode_rows(paths: list[str], images: NDArray[np.uint8], moments: NDArray[np.int64] | None, mode: str) -> list[Bad]:
    """Decode files into the rows of `images`, uint8 (N, C, H, W); returns those that failed, by their row.

    moments: int64 (N, C, 2), set to each row's sum of pixels and of squared pixels per channel, exact.
    Raises MemoryError, and OSError where the machine and not the file is at fault.
    """
    from PIL import Image

    failures = []
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index, path in enumerate(paths):
            try:
                _decode(path, images[index], mode)
            except MemoryError:
                raise
            except Exception as error:  # on a damaged file Pillow's decoders raise almost anything
                code = getattr(error, "errno", None)
                if code in _OF_THE_MACHINE:
                    raise
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                reason = reason.replace(f" {path!r}", " it")[:300].encode("utf-8", "replace").decode()
                failures.append(Bad(index, reason, code is None))
                continue
            if moments is not None:
                _sum(images[index], moments[index])
    return failures


def preparation(shape: tuple[int, ...]) -> dict[str, Any]:
    """What `decode_rows` makes of an image file for images (C, H, W), as JSON data for other programs."""
    channels, height, width = shape
    return {
        "orientation": "exif",
        "mode": "L" if channels == 1 else "RGB",
        "gray16": "upper 8 bits",
        "jpeg_reduced_to_at_least": REDUCED,
        "resize": {"height": height, "width": width, "filter": RESAMPLING, "antialias": True, "keep_aspect": False},
        "layout": "CHW",
        "range": [0, 255],
    }


def _sum(pixels: NDArray[np.uint8], out: NDArray[np.int64]) -> None:
    wide = pixels.reshape(len(pixels), -1).astype(np.int64)
    out[:, 0] = wide.sum(axis=1)
    out[:, 1] = np.einsum("cp,cp->c", wide, wide)


def _decode(path: str, out: NDArray[np.uint8], mode: str) -> None:
    """Decode one file into `out`, uint8 (C, H, W). Raises what Pillow raises, on truncated data too."""
    from PIL import Image, ImageOps

    height, width = out.shape[1:]
    with Image.open(path, formats=_FORMATS) as image:
        image.draft("L" if mode == "gray" else "RGB", (REDUCED * width, REDUCED * height))
        image.load()
        if "exif" in image.info:
            ImageOps.exif_transpose(image, in_place=True)
        converted = _convert(image, "L" if mode == "gray" else "RGB")
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling[RESAMPLING.upper()])
    pixels = np.asarray(converted)
    out[:] = pixels if mode == "gray" else pixels.transpose(2, 0, 1)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip it to 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about a direct conversion
    return image if image.mode == mode else image.convert(mode)


def is_image(name: str) -> bool:
    """Whether a file is taken for an image, by its name."""
    return name.lower().endswith(SUFFIXES)


def may_be_image(entry: os.DirEntry[str]) -> bool:
    """Whether what a folder holds is taken for an image file; so is a link that leads nowhere, a bad one.

    A folder or a pipe named x.png is not.
    """
    try:
        return is_image(entry.name) and (entry.is_file() or not os.path.exists(entry.path))
    except OSError:  # a loop of links
        return True


def mapped(descriptor: int, shape: tuple[int, ...], dtype: Any, *, private: bool = False) -> NDArray[Any]:
    """The file behind a descriptor as an array. `private`: what is written into it stays in this process."""
    access = mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(descriptor, size, access=access), dtype=dtype).reshape(shape)


def serve(setup: dict[str, Any]) -> None:
    """The life of a worker: jobs [image row, moments row, paths] in, [[failures], error or null] out.

    It ends when the other end of the socket closes, even if in the middle of a file: no worker outlives its run.
    """
    images = mapped(setup["images"], tuple(setup["image_shape"]), np.uint8)
    moments = None
    if setup["moments"] is not None:
        moments = mapped(setup["moments"], tuple(setup["moments_shape"]), np.int64)
    wire = socket.socket(fileno=setup["socket"])
    jobs: queue.SimpleQueue[tuple[int, int, list[str]]] = queue.SimpleQueue()

    def listen() -> None:  # at once, also while a file is decoded: whoever sends a job never has to wait
        try:
            for line in wire.makefile("rb"):
                jobs.put(json.loads(line))
        finally:  # the other end has closed, or was killed (which a read reports as a reset)
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        row, at, paths = jobs.get()
        rows = slice(row, row + len(paths))
        try:
            sums = None if moments is None else moments[at : at + len(paths)]
            reply: Any = [decode_rows(paths, images[rows], sums, setup["mode"]), None]
        except (MemoryError, OSError) as error:
            reply = [[], getattr(error, "strerror", None) or "out of memory"]
        try:
            wire.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
