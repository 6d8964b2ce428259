"""Safetensors files: those of the library byte for byte, in pieces, and nothing read that is not whole."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from trainkit.checkpoints import tensorfile
from trainkit.errors import CheckpointError


def of_every_type() -> dict[str, torch.Tensor]:
    """Tensors of every type that a file can hold, of several shapes; values of all bits."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for place, dtype in enumerate(tensorfile._types().values()):
        raw = torch.randint(0, 2 if dtype == torch.bool else 256, (48,), dtype=torch.uint8, generator=generator)
        for shape in ((-1,), (2, -1), (3, 2, -1)):
            found[f"{100 - place}/{len(shape)}"] = raw.view(dtype).reshape(shape).clone()
    first = torch.randn(6, 4, generator=generator)
    found |= {"0-dim": torch.tensor(7), "turned": first.t(), "part": first[::2, 1:3], "none": torch.zeros(0, 3)}
    return found | {'quo"ted \\ line\n\x01 ümläut ☃ 𝄞 \x7f': torch.ones(3)}


@pytest.mark.parametrize("gathered", [0, 100, 1 << 20])
def test_it_is_the_file_of_the_library(gathered: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorfile, "GATHERED", gathered)
    tensors, metadata = of_every_type(), {"trainkit": json.dumps({"é": '"'})}
    content = tensorfile.pack(dict(reversed(tensors.items())), metadata)
    pieces = [bytes(piece) for piece in content]
    path = tmp_path / "file"
    path.write_bytes(b"".join(pieces))
    assert path.read_bytes() == save({name: t.contiguous() for name, t in tensors.items()}, metadata=metadata)
    assert content.size == path.stat().st_size
    assert (len(pieces) > 10) == (gathered < 1000)
    theirs = load_file(path)
    ours, _ = tensorfile.read(path, bytes)
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype == tensors[name].dtype
        assert tensor.shape == theirs[name].shape
        assert bytes(tensorfile._bytes_of(tensor)) == bytes(tensorfile._bytes_of(theirs[name]))


def test_large_tensors_are_not_copied() -> None:
    tensor = torch.zeros(1 << 20)
    _, piece, _ = tensorfile.pack({"a": tensor}, {})
    assert isinstance(piece, memoryview)
    tensor.fill_(1)
    assert piece[:4] == struct.pack("<f", 1)


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, dtype=torch.complex128), torch.zeros(2, 2).to_sparse()], ids=["complex128", "sparse"]
)
def test_what_the_format_does_not_have_is_named(tensor: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match=r"^model/odd cannot be saved: safetensors has no torch\."):
        tensorfile.pack({"model/odd": tensor}, {})


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
BAD = {
    "no-json": "{",
    "no-table": [],
    "too-deep": "[" * 100_000,
    "entry-is-text": {"a": "F32"},
    "no-offsets": {"a": {"dtype": "F32", "shape": [2]}},
    "unknown-type": {"a": GOOD | {"dtype": "F31"}},
    "type-is-a-list": {"a": GOOD | {"dtype": []}},
    "shape-is-text": {"a": GOOD | {"shape": "ab"}},
    "shape-too-large": {"a": GOOD | {"shape": [10**30]}},
    "negative": {"a": GOOD | {"shape": [-1, -2]}},
    "empty-but-huge": {"a": GOOD, "b": {"dtype": "F32", "shape": [0, 10**30], "data_offsets": [8, 8]}},
    "gap": {"a": GOOD | {"shape": [1], "data_offsets": [4, 8]}},
    "overlap": {"a": GOOD, "b": GOOD},
    "past-the-end": {"a": GOOD | {"shape": [3], "data_offsets": [0, 12]}},
    "before-the-end": {"a": GOOD | {"shape": [1], "data_offsets": [0, 4]}},
    "fractions": {"a": GOOD | {"shape": [2.0]}},
    "text-among-offsets": {"a": GOOD | {"data_offsets": [0, "8"]}},
    "three-offsets": {"a": GOOD | {"data_offsets": [0, 8, 8]}},
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    table = BAD[name]
    text = (table if isinstance(table, str) else json.dumps(table)).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ValueError, match=r"^its t"):
        tensorfile.read(tmp_path / "file", bytes)
