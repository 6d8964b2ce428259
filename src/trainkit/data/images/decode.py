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

from trainkit.data.images.fit import Rule, fit, reduced

if TYPE_CHECKING:
    from PIL import Image

DECODER = 2  # counted up when the pixels of the same file change
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")  # of the files that are taken for images
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # no other decoder of Pillow is reachable from a file's content
_SIDEWAYS = (5, 6, 7, 8)  # the orientations of EXIF that swap width and height
_OF_THE_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # says nothing about the file that was being opened


class Bad(NamedTuple):
    """A file that could not be decoded. `lasting`: another try on the same bytes would fail too."""

    row: int
    reason: str
    lasting: bool


def decode_rows(
    paths: list[str], images: NDArray[np.uint8], moments: NDArray[np.int64] | None, rule: Rule
) -> list[Bad]:
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
                _decode(path, images[index], rule)
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


def _sum(pixels: NDArray[np.uint8], out: NDArray[np.int64]) -> None:
    wide = pixels.reshape(len(pixels), -1).astype(np.int64)
    out[:, 0] = wide.sum(axis=1)
    out[:, 1] = np.einsum("cp,cp->c", wide, wide)


def _decode(path: str, out: NDArray[np.uint8], rule: Rule) -> None:
    """Decode one file into `out`, uint8 (C, H, W). Raises what Pillow raises, on truncated data too."""
    from PIL import ExifTags, Image, ImageOps

    mode = "L" if rule.mode == "gray" else "RGB"
    size = (out.shape[2], out.shape[1])
    with Image.open(path, formats=_FORMATS) as image:
        lies = "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
        image.draft(mode, reduced(image.size, size[::-1] if lies else size, rule))  # does nothing but for JPEGs
        image.load()
        if "exif" in image.info:
            ImageOps.exif_transpose(image, in_place=True)
        converted = _convert(image, mode)
    pixels = np.asarray(fit(converted, size, rule))
    out[:] = pixels if mode == "L" else pixels.transpose(2, 0, 1)


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """An image as gray or color, on white where it is transparent."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit gray: Pillow would clip it to 255
        values = np.asarray(image)
        gray = (values >> 8).clip(0, 255).astype(np.uint8)
        if (hidden := image.info.get("transparency")) is not None:
            gray[values == hidden] = 255
        image = Image.fromarray(gray)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
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
    rule = Rule(*setup["rule"])
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
            reply: Any = [decode_rows(paths, images[rows], sums, rule), None]
        except (MemoryError, OSError) as error:
            reply = [[], getattr(error, "strerror", None) or "out of memory"]
        try:
            wire.sendall(json.dumps(reply).encode() + b"\n")
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
