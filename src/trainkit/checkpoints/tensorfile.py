"""A safetensors file, written and read one tensor at a time: there never is a second copy of all of them.

    8 bytes     the length of the header, little-endian
    header      JSON, filled up with spaces to a multiple of 8: `__metadata__`, then each tensor's type, shape and place
    tensors     in the order of the header: the widest types first, those of one type by name

Byte for byte it is the file that the safetensors library makes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit import storage
from trainkit.errors import CheckpointError

if TYPE_CHECKING:
    import torch

Piece = bytes | bytearray | memoryview
GATHERED = 1 << 20  # bytes of small tensors that are handed out together


@functools.cache
def _types() -> dict[str, torch.dtype]:
    """Torch's types by their names in a file, in the reverse of their order there."""
    import torch

    return {
        "BOOL": torch.bool,
        "U8": torch.uint8,
        "I8": torch.int8,
        "F8_E5M2": torch.float8_e5m2,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E8M0": torch.float8_e8m0fnu,
        "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
        "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
        "I16": torch.int16,
        "U16": torch.uint16,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I32": torch.int32,
        "U32": torch.uint32,
        "F32": torch.float32,
        "C64": torch.complex64,
        "F64": torch.float64,
        "I64": torch.int64,
        "U64": torch.uint64,
    }


@dataclasses.dataclass(frozen=True)
class Content:
    """A file that is yet to be written: iterating gives its bytes in pieces, each time anew. size: all of them."""

    header: bytes
    tensors: list[torch.Tensor]
    size: int

    def __iter__(self) -> Iterator[Piece]:
        """A tensor comes to the host when it is its turn; a large one that is there already is not copied."""
        gathered = bytearray(self.header)
        for tensor in self.tensors:
            content = _bytes_of(tensor.detach().cpu().contiguous())
            if len(gathered) + len(content) > GATHERED:
                yield gathered
                gathered = bytearray()
            if len(content) > GATHERED:
                yield content
            else:
                gathered += content
        yield gathered

    def digest(self) -> str:
        """The SHA-256 of all bytes."""
        found = hashlib.sha256()
        for piece in self:
            found.update(piece)
        return found.hexdigest()


def pack(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> Content:
    """The file of these tensors. Raises CheckpointError for one of a type that the format does not have."""
    import torch

    names = {dtype: name for name, dtype in _types().items()}
    places = {dtype: place for place, dtype in enumerate(reversed(names))}
    for name, tensor in tensors.items():
        if tensor.dtype not in names or tensor.layout != torch.strided:
            raise CheckpointError(f"{name} cannot be saved: safetensors has no {tensor.layout} {tensor.dtype}")
    ordered = sorted(tensors.items(), key=lambda pair: (places[pair[1].dtype], pair[0]))
    table: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.nbytes
        table[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return Content(header, [tensor for _, tensor in ordered], len(header) + end)


def read(path: Path, unsign: Callable[[bytes], bytes]) -> tuple[dict[str, torch.Tensor], str]:
    """All tensors of a file, on the CPU, and the SHA-256 of the file with its header as `unsign` makes it.

    Raises OSError, and ValueError for a file that is not whole.
    """
    import torch

    found = {}
    with storage.open_regular(path) as file:
        length = file.read(8)
        text = file.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(unsign(length + text))
        for name, dtype, shape in _entries(text, path.stat().st_size - 8 - len(text)):
            found[name] = torch.empty(shape, dtype=dtype)
            content = _bytes_of(found[name])
            if file.readinto(content) != len(content):
                raise ValueError(f"it ends within {name}")
            digest.update(content)
    return found, digest.hexdigest()


def _entries(text: bytes, size: int) -> list[tuple[str, torch.dtype, list[int]]]:
    """Name, type and shape of the tensors in their order. Raises ValueError unless they fill `size` bytes exactly."""
    found = []
    end = 0
    try:
        table = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        for name, entry in sorted(table.items(), key=lambda pair: pair[1]["data_offsets"]):
            dtype, shape, (start, stop) = _types()[entry["dtype"]], entry["shape"], entry["data_offsets"]
            natural = all(isinstance(n, int) and n >= 0 for n in (start, stop, *shape))
            fits = natural and start == end and stop - start == math.prod(shape) * dtype.itemsize
            if not fits or math.prod(n or 1 for n in shape) > 1 << 60:  # torch multiplies the rest of an empty shape
                raise ValueError(f"type, shape and place of {name}")
            found.append((name, dtype, shape))
            end = stop
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"its table of tensors cannot be ({error!r})") from error
    if end != size:
        raise ValueError(f"its tensors have {end:,} bytes, but {size:,} are there")
    return found


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    import torch

    return tensor.view(-1).view(torch.uint8).numpy().data
