"""Checkpoints and .npz files as an attacker would write them: signed, and whole but for one thing."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

UNSIGNED = "0" * 64
Header = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A row. meta: changes what trainkit says in the header; text: the JSON of it; table: the header of safetensors.

    write: makes the file of the content of a good one instead. codes: how eval, predict and resume may end. resume
    builds what config.yaml says, and nothing of a header's config; where the two are not one experiment it refuses (4).
    """

    name: str
    codes: tuple[int, int, int] = (4, 4, 4)
    meta: Callable[[Header], object] = lambda meta: None
    text: Callable[[str], str] = lambda text: text
    table: Callable[[Header], object] = lambda table: None
    write: Callable[[Path, bytes], object] | None = None

    def make(self, path: Path, good: bytes) -> None:
        """Write the file, of the content of a good one."""
        if self.write is not None:
            self.write(path, good)
            return
        (size,) = struct.unpack("<Q", good[:8])
        table = json.loads(good[8 : 8 + size])
        meta = json.loads(table["__metadata__"]["trainkit"])
        self.meta(meta)
        table["__metadata__"]["trainkit"] = self.text(json.dumps(meta | {"sha256": UNSIGNED}))
        self.table(table)
        header = json.dumps(table).encode()
        header += b" " * (-len(header) % 8)
        content = struct.pack("<Q", len(header)) + header + good[8 + size :]
        path.write_bytes(content.replace(UNSIGNED.encode(), hashlib.sha256(content).hexdigest().encode(), 1))


def put(*keys: str, value: Any) -> Callable[[Header], object]:
    """Set a value deep in a header."""

    def change(meta: Header) -> None:
        for key in keys[:-1]:
            meta = meta[key]
        meta[keys[-1]] = value

    return change


def in_tensors(**values: Any) -> Callable[[Header], object]:
    return lambda table: [entry.update(values) for name, entry in table.items() if name != "__metadata__"]


def sparse(path: Path, good: bytes) -> None:
    """A good one that goes on with 40 GB of zeros, which take no room."""
    path.write_bytes(good)
    os.truncate(path, 40 * 2**30)


NAMES = ["<script>alert(1)</script>", "=cmd|calc", "\x1b[2J", *map(str, range(7))]
DEEP = 100_000
CHECKPOINTS = [
    Checkpoint("good", (0, 0, 0)),
    Checkpoint("interpolation", (2, 2, 4), put("config", "dataset", "name", value="${oc.env:HOME}")),
    Checkpoint("target", (2, 2, 4), put("config", "model", "hidden", value=[{"_target_": "os.system"}])),
    Checkpoint("plugin", (0, 0, 0), put("config", "plugins", value=["antigravity"])),
    Checkpoint("plugins-number", meta=put("config", "plugins", value=5)),
    Checkpoint("hydra", (0, 0, 4), put("config", "hydra", value={"run": {"dir": "elsewhere"}})),
    Checkpoint("output-dir", (0, 0, 0), put("config", "output_dir", value="elsewhere")),
    Checkpoint("data-dir", (0, 0, 0), put("config", "data_dir", value="elsewhere")),
    Checkpoint("terminal", (2, 0, 4), put("config", "dataset", "name", value="\x1b[31mfoo")),
    Checkpoint("no-memory", (6, 6, 4), put("config", "model", "hidden", value=[10**9, 10**9])),
    Checkpoint("negative-epoch", meta=put("progress", "epoch", value=-5)),
    Checkpoint("no-progress", meta=lambda meta: meta.pop("progress")),
    Checkpoint("no-state", (0, 0, 4), lambda meta: [meta.pop(name) for name in ("optim", "skipped", "monitor")]),
    Checkpoint("other-state", (0, 0, 4), put("optim", value={"layers.0.weight": {"step": {"tensor": "gone"}}})),
    Checkpoint("state-text", meta=put("monitor", value="best")),
    Checkpoint("format-nan", text=lambda text: text.replace('"format": 2', '"format": NaN')),
    Checkpoint("format-true", meta=put("format", value=True)),
    Checkpoint("value-nan", meta=put("monitor", "best", value=float("nan"))),
    Checkpoint("key-twice", text=lambda text: f'{text[:-1]}, "config": {{"model": 1}}}}'),
    Checkpoint("deep", text=lambda text: f'{text[:-1]}, "z": {"[" * DEEP}{"]" * DEEP}}}'),
    Checkpoint("deep-config", meta=put("config", "x", value=json.loads("[" * 700 + "]" * 700))),
    Checkpoint("large-config", meta=put("config", "x", value=[[]] * 1_000_000)),
    Checkpoint("config-list", meta=put("config", value=[1])),
    Checkpoint("config-text", meta=put("config", value="mlp")),
    Checkpoint("model-list", meta=put("config", value={"model": [1, 2], "dataset": "x"})),
    Checkpoint("model-null", meta=put("config", "model", value=None)),
    Checkpoint("model-text", meta=put("config", "model", value="mlp")),
    Checkpoint("no-data", meta=lambda meta: meta.pop("spec")),
    Checkpoint("classes-hostile", (4, 0, 0), put("spec", "targets", "y", "classes", value=NAMES)),
    Checkpoint("classes-number", (4, 4, 0), put("spec", "targets", "y", "classes", value=5)),
    Checkpoint("classes-few", (4, 4, 0), put("spec", "targets", "y", "classes", value=["a"])),
    Checkpoint("shape-huge", (4, 6, 0), put("spec", "inputs", "x", "shape", value=[1, 100_000, 100_000])),
    Checkpoint("mean-text", (4, 4, 0), put("spec", "inputs", "x", "mean", value="0.1")),
    Checkpoint("tensors-huge", table=in_tensors(shape=[2**62, 4])),
    Checkpoint("tensors-type", table=in_tensors(dtype="F4")),
    Checkpoint("tensors-outside", table=in_tensors(data_offsets=[0, 10**12])),
    Checkpoint("tensors-text", table=in_tensors(data_offsets="ab")),
    Checkpoint("header-huge", write=lambda path, good: path.write_bytes(struct.pack("<Q", 2**63) + b"{}")),
    Checkpoint(
        "header-deep",
        write=lambda path, good: path.write_bytes(
            struct.pack("<Q", 9_000_000) + b'{"__metadata__":' + b"[" * 9_000_000
        ),
    ),
    Checkpoint("empty", write=lambda path, good: path.write_bytes(b"")),
    Checkpoint("sparse", write=sparse),
    Checkpoint("pipe", write=lambda path, good: os.mkfifo(path)),
    Checkpoint("device", write=lambda path, good: path.symlink_to("/dev/zero")),
]


def saved(array: Any) -> bytes:
    """An array as the content of a .npy file."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(array))
    return stream.getvalue()


def only_header(shape: tuple[int, ...]) -> bytes:
    """A .npy file that says it is this large, and holds nothing."""
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)  # type: ignore[arg-type]
    return stream.getvalue()


def nested_header() -> bytes:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 3000 + b")" * 3000 + b"}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


LABELS = saved(np.arange(20) % 2)
ROWS = saved(np.ones((20, 3)))
NPZ: dict[str, list[tuple[str, bytes]]] = {
    "shape-50-gb": [("x.npy", only_header((50 * 2**28,))), ("y.npy", LABELS)],
    "shape-negative": [("x.npy", only_header((-1, 4))), ("y.npy", LABELS)],
    "shape-huge": [("x.npy", only_header((2**62, 2**62))), ("y.npy", LABELS)],
    "name-twice": [("x.npy", ROWS), ("x.npy", saved(np.zeros((10, 3)))), ("y.npy", LABELS)],
    "name-outside": [("../../x.npy", ROWS), ("x", b"hello"), ("y.npy", LABELS)],
    "no-arrays": [("x", b"hello" * 10), ("y", b"01")],
    "nested-header": [("x.npy", nested_header()), ("y.npy", b"")],
    "empty-members": [("x.npy", b""), ("y.npy", b"")],
}


def write_npz(path: Path, members: list[tuple[str, bytes]]) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that stands twice
        for name, content in members:
            archive.writestr(name, content)
