"""Files for the tests of the command: the bytes of images, arrays and configs, and folders full of them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from trainkit.checkpoints import checkpoint

# What stands at a path: text or bytes of a file, None for an empty folder, a Link for a symbolic link.
Content = str | bytes | None


class Link(str):
    """The target of a symbolic link."""

    __slots__ = ()


def lay_out(folder: Path, files: dict[str, Content]) -> None:
    """Put the files at their paths under `folder`."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, Link):
            path.symlink_to(content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def npz(**arrays: Any) -> bytes:
    """An .npz file of these arrays."""
    stream = io.BytesIO()
    np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items()})
    return stream.getvalue()


def table(rows: int = 20, columns: int = 3, classes: int = 2) -> dict[str, Any]:
    """Random features and labels, as `x` and `y`."""
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(rows, columns)).astype(np.float32), "y": np.arange(rows) % classes}


def image(kind: str = "PNG", mode: str = "RGB", size: int = 8, seed: int = 0) -> bytes:
    """An image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) << 8)
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def class_folders(root: str = "images", each: int = 10, **more: Content) -> dict[str, Content]:
    """Two class folders of images under `root`; `more` adds files by path under it, `__` for a slash."""
    files: dict[str, Content] = {
        f"{root}/{name}/{i}.png": image(seed=seed * each + i)
        for seed, name in enumerate(("cat", "dog"))
        for i in range(each)
    }
    return files | {f"{root}/{name.replace('__', '/')}": content for name, content in more.items()}


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large, and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def alias_bomb(levels: int = 9) -> str:
    """YAML whose aliases expand to levels ** levels nodes."""
    lines = ["name: mlp", f"a0: &a0 [{', '.join('x' * levels)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * levels)}]" for i in range(1, levels)]
    return "\n".join(lines)


def packed(tensors: dict[str, Any], meta: dict[str, Any]) -> bytes:
    """A checkpoint file."""
    return b"".join(checkpoint.pack(tensors, meta))


def damaged(payload: bytes) -> Iterator[bytes]:
    """A file's content with one bit flipped, at 300 places, and cut off, at 100."""
    draw = random.Random(0)
    for _ in range(300):
        content = bytearray(payload)
        content[draw.randrange(len(payload))] ^= 1 << draw.randrange(8)
        yield bytes(content)
    for _ in range(100):
        yield payload[: draw.randrange(len(payload))]
