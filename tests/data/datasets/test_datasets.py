"""Data sets in files of a known format: the real reader on real bytes, and what is said when a file is damaged."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import os
import pickle
import struct
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from trainkit import registry
from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.datasets import cifar, download, idx
from trainkit.data.splits import input_stats
from trainkit.errors import DataError
from trainkit.schema import REQUIRED, plain

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("TRAINKIT_DATA", ROOT.parent / "shared" / "datasets"))


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb") as stream:
        stream.write(header + array.tobytes())


def write_mnist(folder: Path, prefixes: tuple[str, str] = ("train", "t10k"), suffix: str = "", first: int = 0) -> Path:
    """30 + 10 images whose pixel (row 0, column 1) is the label; returns the folder."""
    for prefix, count in zip(prefixes, (30, 10), strict=True):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 1] = labels
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels + np.uint8(first))
    return folder


def fails(text: str, name: str, data_dir: Path, **config: Any) -> str:
    with pytest.raises(DataError, match=text) as caught:
        finish(registry.get("dataset", name).build(data_dir, 0, **config))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_config_equals_signature(name: str) -> None:
    text = (ROOT / "conf" / "dataset" / f"{name}.yaml").read_text()
    first = text.splitlines()[0]
    assert first.startswith("# ") and len(first) <= 70
    schema = registry.get("dataset", name).schema
    defaults = {key: "???" if field.default is REQUIRED else plain(field.default) for key, field in schema.items()}
    assert yaml.safe_load(text) == {"name": name, **defaults}
    assert all("  # " in line for line in text.splitlines()[2:])


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "folder", "third"),
    [("mnist", "MNIST", "2"), ("fashion_mnist", "FashionMNIST", "Pullover"), ("kmnist", "KMNIST", "su")],
)
def test_idx(tmp_path: Path, name: str, folder: str, third: str, suffix: str) -> None:
    write_mnist(tmp_path / folder / "raw", suffix=suffix)
    data: Data = finish(registry.get("dataset", name).build(tmp_path, 0))
    train, test = data.splits["train"], data.splits["test"]
    assert train.inputs.shape == (30, 1, 28, 28) and test.inputs.shape == (10, 1, 28, 28)
    assert train.inputs.dtype == np.uint8 and train.targets.dtype == np.int64
    assert (train.inputs[:, 0, 0, 1] == train.targets).all()
    classes, mean = data.spec.target.classes, data.spec.input.mean
    assert classes is not None and classes[2] == third and len(classes) == 10
    assert mean is not None and len(mean) == 1


def test_emnist_is_upright_and_letters_start_at_zero(tmp_path: Path) -> None:
    for split, first in (("letters", 1), ("balanced", 0)):
        write_mnist(tmp_path / "EMNIST" / "raw", (f"emnist-{split}-train", f"emnist-{split}-test"), ".gz", first)
    letters = finish(idx.emnist(tmp_path, 0, split="letters"))
    balanced = finish(idx.emnist(tmp_path, 0))
    names, more = letters.spec.target.classes, balanced.spec.target.classes
    assert names is not None and (names[0], len(names)) == ("a", 26)
    assert more is not None and len(more) == 47
    assert more[36:] == list("abdefghnqrt")
    for data in (letters, balanced):
        train = data.splits["train"]
        assert train.targets.tolist() == (np.arange(30) % 10).tolist()
        assert (train.inputs[:, 0, 1, 0] == train.targets).all()  # row and column changed places
    assert any("no sample of 16 of 26 classes: k, l, m, n, o, …" in note for note in letters.notes)


def test_class_names_are_torchvisions() -> None:
    from torchvision import datasets

    assert datasets.FashionMNIST.classes == idx._FASHION
    assert datasets.KMNIST.classes == idx._KUZUSHIJI
    expected = {**datasets.EMNIST.classes_split_dict, "letters": datasets.EMNIST.classes_split_dict["letters"][1:]}
    assert expected == idx._EMNIST_CLASSES


def test_real_mnist() -> None:
    if not (REAL / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST under {REAL}; set TRAINKIT_DATA")
    data = finish(idx.mnist(REAL, 0))
    train, test = data.splits["train"], data.splits["test"]
    assert (train.inputs.shape, test.inputs.shape) == ((60000, 1, 28, 28), (10000, 1, 28, 28))
    assert train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_allclose(input_stats(train.inputs), ([0.1307], [0.3081]), atol=1e-4)


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (IMAGES, lambda raw: raw[:500], f"{IMAGES}: damaged, 23520 bytes expected but 484 found"),
        (IMAGES, lambda raw: raw + b"x", f"{IMAGES}: damaged, 23520 bytes expected but more found"),
        (IMAGES, lambda raw: b"\0\0\x0d\3" + raw[4:], f"{IMAGES}: not an IDX file of bytes with 3 axes"),
        (IMAGES, lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], f"{IMAGES}: damaged, .* expected but 23520 found"),
        (IMAGES, lambda raw: b"", f"{IMAGES}: not an IDX file"),
        (
            LABELS,
            lambda raw: raw[:4] + struct.pack(">I", 29) + raw[8:-1],
            f"{LABELS}: 29 labels, but {IMAGES} holds 30",
        ),
        (LABELS, lambda raw: raw[:8] + b"\x0a" + raw[9:], f"{LABELS}: the label in row 0 is 10, outside 0..9"),
    ],
)
def test_damaged_idx(tmp_path: Path, file: str, change: Any, message: str) -> None:
    path = write_mnist(tmp_path / "MNIST" / "raw") / file
    path.write_bytes(change(path.read_bytes()))
    assert str(path) in fails(message, "mnist", tmp_path)


def test_damaged_gz_and_label_zero_of_letters(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path / "MNIST" / "raw", suffix=".gz")
    path = raw / f"{IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:1000])
    assert str(path) in fails("cannot be read .*end-of-stream", "mnist", tmp_path)
    write_mnist(tmp_path / "EMNIST" / "raw", ("emnist-letters-train", "emnist-letters-test"))
    fails("label in row 0 is 0, outside 1..26", "emnist", tmp_path, split="letters")


def write_pickle(path: Path, content: dict[str, Any]) -> list[str]:
    """Write a file in CIFAR's format; returns [name, md5] as torchvision lists it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def write_cifar(folder: Path, dataset: Any, key: str, classes: int, patch: pytest.MonkeyPatch) -> None:
    """torchvision's layout with 20 images a file, and torchvision's MD5 list for just these files."""
    rows = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    content = {"data": rows, key: [row % classes for row in range(20)]}
    base = folder / dataset.base_folder
    patch.setattr(dataset, "train_list", [write_pickle(base / name, content) for name, _ in dataset.train_list])
    patch.setattr(dataset, "test_list", [write_pickle(base / name, content) for name, _ in dataset.test_list])
    names = {dataset.meta["key"]: [f"class {index}" for index in range(classes)]}
    md5 = write_pickle(base / dataset.meta["filename"], names)[1]
    patch.setattr(dataset, "meta", {**dataset.meta, "md5": md5})


@pytest.mark.parametrize(
    ("name", "key", "classes", "train"), [("cifar10", "labels", 10, 100), ("cifar100", "fine_labels", 100, 20)]
)
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, key: str, classes: int, train: int) -> None:
    from torchvision import datasets

    dataset = getattr(datasets, name.upper())
    write_cifar(tmp_path, dataset, key, classes, monkeypatch)
    data = finish(registry.get("dataset", name).build(tmp_path, 0))
    assert data.splits["train"].inputs.shape == (train, 3, 32, 32) and data.splits["test"].inputs.shape == (
        20,
        3,
        32,
        32,
    )
    original = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8).reshape(20, 3, 32, 32)
    assert (data.splits["test"].inputs == original).all() and data.splits["test"].inputs.dtype == np.uint8
    assert data.splits["test"].targets.tolist() == [row % classes for row in range(20)]
    names = data.spec.target.classes or []
    assert (len(names), names[:2]) == (classes, ["airplane", "automobile"] if classes == 10 else ["apple", names[1]])
    (tmp_path / dataset.base_folder / dataset.test_list[0][0]).write_bytes(EVIL)
    fails("damaged .*corrupted.*; delete it", name, tmp_path)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.exit, ("a pickle was opened",))


EVIL = pickle.dumps(Evil())


def write_binary(folder: Path, source: cifar._Source, rows: int = 20) -> cifar._Source:
    """The records of the binary version, `rows` in a file; returns the source with just these files' digests."""
    (folder / source.folder).mkdir(parents=True)
    files: dict[str, dict[str, str]] = {}
    for split, names in source.files.items():
        for name in names:
            random = np.random.default_rng(len(name))
            records = random.integers(0, 256, (rows, source.labels + 3072), dtype=np.uint8)
            records[:, source.labels - 1] = np.arange(rows) % 10
            (folder / source.folder / name).write_bytes(records.tobytes())
            digest = hashlib.sha256(records.tobytes()).hexdigest()
            files.setdefault(split, {})[name] = digest
    return dataclasses.replace(source, files=files)


@pytest.mark.parametrize(("name", "train"), [("cifar10", 100), ("cifar100", 20)])
def test_cifar_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, train: int) -> None:
    source = write_binary(tmp_path, getattr(cifar, f"_{name.upper()}"))
    monkeypatch.setattr(cifar, f"_{name.upper()}", source)
    data = finish(registry.get("dataset", name).build(tmp_path, 0))
    (file,) = source.files["test"]
    path = tmp_path / source.folder / file
    content = path.read_bytes()
    first = np.frombuffer(content[source.labels : source.labels + 3072], np.uint8).reshape(3, 32, 32)
    assert (data.splits["test"].inputs[0] == first).all()
    assert data.splits["train"].inputs.shape == (train, 3, 32, 32)
    assert data.splits["test"].targets.tolist() == [row % 10 for row in range(20)]
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert str(path) in fails("its SHA-256 differs.*delete it", name, tmp_path)


def test_cifar_archive(tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the archive only the known files are taken, and only when the whole of it has the known digest."""
    url, www = server
    source = dataclasses.replace(write_binary(tmp_path / "made", cifar._CIFAR10), url=url + "cifar.tar.gz")
    with tarfile.open(www / "cifar.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made" / source.folder, source.folder)
        for hostile in ("../escaped", str(tmp_path / "escaped"), f"{source.folder}/more"):
            tar.add(Path(__file__), hostile)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(cifar, "_CIFAR10", source)
    data_dir = tmp_path / "data"
    fails("download failed .*corrupted: its SHA-256 is not the known one", "cifar10", data_dir)
    assert list(data_dir.iterdir()) == []
    digest = hashlib.sha256((www / "cifar.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "_CIFAR10", dataclasses.replace(source, sha256=digest))
    assert len(finish(registry.get("dataset", "cifar10").build(data_dir, 0)).splits["train"]) == 100
    assert [path.name for path in data_dir.iterdir()] == [source.folder]
    assert {path.name for path in data_dir.rglob("*.*")} == {n for names in source.files.values() for n in names}
    assert not (tmp_path / "escaped").exists()


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scipy.io
    from torchvision.datasets import SVHN

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    lists = {}
    for split, (url, file, _) in SVHN.split_list.items():
        scipy.io.savemat(tmp_path / file, {"X": pixels, "y": np.arange(1, 21).reshape(-1, 1) % 10 + 1})
        lists[split] = [url, file, hashlib.md5((tmp_path / file).read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", lists)
    data = finish(registry.get("dataset", "svhn").build(tmp_path, 0))
    assert (data.splits["train"].inputs == pixels.transpose(3, 2, 0, 1)).all()
    assert data.splits["test"].targets[:9].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 0]  # the file's 10 is the digit 0


DEAD = "http://127.0.0.1:9/"  # the discard port, where nothing listens: a connection is refused at once


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("mnist", "into {}/MNIST/raw: train-images-idx3-ubyte.gz, "),
        ("emnist", "into {}/EMNIST/raw: http://127.0.0.1:9/gzip.zip"),
        ("cifar10", "get http://127.0.0.1:9/cifar.tar.gz by hand and unpack it in {}"),
        ("cifar100", "get http://127.0.0.1:9/cifar.tar.gz by hand and unpack it in {}"),
        ("svhn", "into {}: http://127.0.0.1:9/train, http://127.0.0.1:9/test"),
    ],
)
def test_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, advice: str
) -> None:
    from torchvision import datasets

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(datasets.MNIST, "mirrors", [DEAD])
    monkeypatch.setattr(datasets.EMNIST, "url", DEAD + "gzip.zip")
    for source in ("_CIFAR10", "_CIFAR100"):
        dead = dataclasses.replace(getattr(cifar, source), url=DEAD + "cifar.tar.gz")
        monkeypatch.setattr(cifar, source, dead)
    monkeypatch.setattr(datasets.SVHN, "split_list", {s: [DEAD + s, s, "0" * 32] for s in ("train", "test", "extra")})
    line = fails(f"dataset {name}: there is no intact copy .*refused", name, tmp_path)
    assert advice.format(tmp_path) in line
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server of a folder: (URL, folder). Of paths with `short` it sends one half, with `hang` it thinks first."""
    folder = tmp_path / "www"
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "hang" in self.path:
                time.sleep(0.5)
            body = (folder / self.path.rpartition("/")[2]).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if "short" in self.path else body)

        def log_message(self, *args: Any) -> None:
            """Keeps the test's output clean."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()


def test_download(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from torchvision.datasets import MNIST

    url, folder = server
    write_mnist(folder, suffix=".gz")
    md5s = [(name, hashlib.md5((folder / name).read_bytes()).hexdigest()) for name, _ in MNIST.resources]
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(MNIST, "resources", md5s)
    data_dir = tmp_path / "data"
    monkeypatch.setattr(MNIST, "mirrors", [url + "short/"])
    fails("download failed .*corrupted", "mnist", data_dir)  # the server closed midway
    with monkeypatch.context() as patch:
        patch.setattr(MNIST, "mirrors", [url + "hang/"])
        patch.setattr(download, "_TIMEOUT", 0.2)
        fails("download failed .*timed out", "mnist", data_dir)
    assert list(data_dir.iterdir()) == []
    monkeypatch.setattr(MNIST, "mirrors", [url])
    assert len(finish(idx.mnist(data_dir, 0)).splits["train"]) == 30
    names = sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if path.is_file())
    assert names == sorted(f"MNIST/raw/{name.removesuffix('.gz')}" for name, _ in md5s)
    assert capfd.readouterr().out == ""
