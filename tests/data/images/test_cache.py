"""The cache of decoded images: used when whole, made again when not, done without where it cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.datasets.folder import folder
from trainkit.data.images.cache import cache_folder
from trainkit.data.splits import input_stats
from trainkit.errors import ConfigError, DataError, ResourceError

COUNT = 300


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 150 small JPEGs of noise."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(COUNT):
        path = root / ("cat" if index % 2 else "dog") / f"{index:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "decoded"


def load(root: Path, workers: int = 0, **config: Any) -> Data:
    return finish(folder(Path("unused"), 0, root=root, **{"image_size": 16, **config}).decoded(workers))


def same(left: Data, right: Data) -> bool:
    names = left.splits.keys() == right.splits.keys()
    pixels = all(np.array_equal(left.splits[s].inputs, right.splits[s].inputs) for s in left.splits)
    labels = all(np.array_equal(left.splits[s].targets, right.splits[s].targets) for s in left.splits)
    return names and pixels and labels and left.spec == right.spec


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.name != ".lock")


def inode(entry: Path) -> int:
    return entry.stat().st_ino


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("TRAINKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "trainkit"


def test_the_second_run_takes_what_the_first_one_left(photos: Path, cache: Path) -> None:
    first = load(photos)
    (entry,) = entries(cache)
    made = inode(entry)
    assert sorted(path.name for path in entry.iterdir()) == ["images.u8", "index.json", "moments.i64"]
    assert (entry / "images.u8").stat().st_size == COUNT * 3 * 16 * 16
    assert same(first, load(photos)) and [inode(path) for path in entries(cache)] == [made]
    assert first.notes == []


def test_writing_into_the_arrays_leaves_the_cache_alone(photos: Path) -> None:
    first = load(photos, test_fraction=0.0)
    whole = first.splits["train"].inputs
    assert isinstance(whole, np.ndarray)
    before = whole.copy()
    whole[:] = 0
    assert np.array_equal(load(photos, test_fraction=0.0).splits["train"].inputs, before)


def test_workers_decode_the_same_pixels(photos: Path, cache: Path) -> None:
    alone = load(photos)
    shutil.rmtree(cache)
    assert same(alone, load(photos, workers=3))


def test_statistics_from_moments_are_those_from_pixels(photos: Path) -> None:
    data = load(photos)
    assert isinstance(data.splits["train"].inputs, np.ndarray)
    mean, std = input_stats(data.splits["train"].inputs)
    assert (data.spec.input.mean, data.spec.input.std) == (mean.tolist(), std.tolist())


def test_what_the_pixels_depend_on_is_in_the_key(photos: Path, cache: Path) -> None:
    load(photos)
    for count, config in enumerate(
        ({"mode": "gray"}, {"image_size": 8}, {"resize": "crop"}, {"on_bad": "skip"}), start=2
    ):
        load(photos, **config)
        assert len(entries(cache)) == count


def test_another_file_of_the_same_name_size_and_time_is_seen(tmp_path: Path) -> None:
    for name, level in (("cat/0", 1), ("cat/1", 2), ("dog/0", 3), ("dog/1", 4)):
        path = tmp_path / "mine" / f"{name}.bmp"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (16, 16), (level, 0, 0)).save(path)
    assert levels(tmp_path / "mine") == [1, 2, 3, 4]
    path = tmp_path / "mine" / "cat" / "1.bmp"
    before = path.stat()
    Image.new("RGB", (16, 16), (9, 0, 0)).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert levels(tmp_path / "mine") == [1, 9, 3, 4]


def levels(root: Path) -> list[int]:
    inputs = load(root, test_fraction=0.0).splits["train"].inputs
    assert isinstance(inputs, np.ndarray)
    return list(inputs[:, 0, 0, 0])


def damage_truncate(entry: Path) -> None:
    os.truncate(entry / "images.u8", 1000)


def damage_bit(entry: Path) -> None:
    content = bytearray((entry / "images.u8").read_bytes())
    content[5000] ^= 4
    (entry / "images.u8").write_bytes(content)


def damage_moments(entry: Path) -> None:
    (entry / "moments.i64").write_bytes(bytes((entry / "moments.i64").stat().st_size))


def damage_index(entry: Path) -> None:
    text = (entry / "index.json").read_text()
    (entry / "index.json").write_text(text.replace('"bad": []', '"bad": [[0, "x", true]]'))


def damage_foreign(entry: Path) -> None:
    (entry / "index.json").write_text("[]")


def damage_missing(entry: Path) -> None:
    (entry / "images.u8").unlink()


def damage_file(entry: Path) -> None:
    shutil.rmtree(entry)
    entry.write_text("a file where a folder is expected")


@pytest.mark.parametrize(
    "damage",
    [damage_truncate, damage_bit, damage_moments, damage_index, damage_foreign, damage_missing, damage_file],
)
def test_a_damaged_entry_is_made_again(photos: Path, cache: Path, damage: Any) -> None:
    first = load(photos)
    (entry,) = entries(cache)
    damage(entry)
    again = load(photos)
    assert same(first, again)
    assert len(again.notes) == 1 and "were damaged" in again.notes[0] and str(entry) in again.notes[0]
    assert entries(cache) == [entry] and load(photos).notes == []


def test_an_entry_under_another_name_is_not_believed(photos: Path, cache: Path) -> None:
    gray = load(photos, mode="gray")
    (one,) = entries(cache)
    load(photos, mode="gray", on_bad="skip")
    (other,) = set(entries(cache)) - {one}
    shutil.rmtree(one)
    other.rename(one)
    again = load(photos, mode="gray")
    assert same(gray, again) and "of other data" in again.notes[0]


def test_bad_images_are_remembered(photos: Path, cache: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    shutil.copytree(photos, root)
    (root / "cat" / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/bad.jpg: not a readable image .*on_bad=skip"):
        load(root, workers=2)
    assert entries(cache) == []  # nothing is kept of a failure
    first = load(root, on_bad="skip")
    again = load(root, on_bad="skip")
    assert same(first, again) and first.notes == again.notes and "1 of 301" in first.notes[0]


LOAD = """
import sys
from pathlib import Path
from trainkit.data.datasets.folder import folder
data = folder(Path("x"), 0, root=Path(sys.argv[1]), image_size=16).decoded(int(sys.argv[2]))
print(data.splits["train"].inputs.sum(), *data.notes)
"""


def start(root: Path, workers: int = 0, before: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", before + LOAD, str(root), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_runs_build_at_once(photos: Path, cache: Path) -> None:
    runs = [start(photos, workers) for workers in (0, 1, 0)]
    outputs = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    inputs = load(photos).splits["train"].inputs
    assert isinstance(inputs, np.ndarray)
    assert outputs == {f"{inputs.sum()}\n"}
    assert len(entries(cache)) == 1 and load(photos).notes == []


def test_a_run_killed_while_building_leaves_nothing_that_stays(photos: Path, cache: Path) -> None:
    slow = "import time\nfrom trainkit.data.images import decode\n_sum = decode._sum\n"
    slow += "decode._sum = lambda *rows: (time.sleep(0.1), _sum(*rows))\n"
    run = start(photos, before=slow)
    deadline = time.monotonic() + 30
    while not list(cache.glob(".draft-*/images.u8")) and time.monotonic() < deadline:
        time.sleep(0.01)
    draft = next(cache.glob(".draft-*"))
    load(photos, image_size=8)  # another builder leaves the draft of a living one alone
    assert draft.exists()
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()  # type: ignore[union-attr]
    assert draft.exists()
    load(photos)
    assert not list(cache.glob(".draft-*")) and len(entries(cache)) == 2


def test_a_file_where_the_cache_should_be(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TRAINKIT_CACHE", str(tmp_path / "file"))
    data = load(photos, workers=1)
    assert len(data.splits["train"]) == 240
    assert data.notes == [f"decoded images are not cached in {tmp_path}/file/decoded: Not a directory"]


def test_a_full_disk(photos: Path, cache: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    for workers in (0, 2):  # the limit counts for memory that processes share too, so this one decodes alone
        run = start(photos, workers, before=limit)
        said, _ = run.communicate(timeout=60)
        assert run.returncode == 0
        total, note = said.rstrip().split(" ", 1)
        assert note == f"decoded images are not cached in {cache}: File too large" and entries(cache) == []
    inputs = load(photos).splits["train"].inputs
    assert isinstance(inputs, np.ndarray) and str(inputs.sum()) == total


def test_a_cache_smaller_than_the_images(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINKIT_CACHE_GB", "0.0001")
    data = load(photos)
    assert "more than $TRAINKIT_CACHE_GB allows, 100,000" in data.notes[0] and len(data.splits["train"]) == 240
    assert not cache.exists()
    monkeypatch.setenv("TRAINKIT_CACHE_GB", "lots")
    with pytest.raises(ConfigError, match="TRAINKIT_CACHE_GB=lots: expected a number"):
        load(photos)


def test_the_longest_unused_entry_goes_first(photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(photos)
    load(photos, image_size=15)
    (old,) = (path for path in entries(cache) if (path / "images.u8").stat().st_size == COUNT * 3 * 16 * 16)
    (used,) = set(entries(cache)) - {old}
    os.utime(old / "index.json", (1, 1))
    os.utime(used / "index.json", (0, 0))
    load(photos, image_size=15)  # used again, and so younger than the other
    monkeypatch.setenv("TRAINKIT_CACHE_GB", "0.0005")
    data = load(photos, image_size=14)
    assert "1 older entries removed" in data.notes[0]
    assert used in entries(cache) and old not in entries(cache) and len(entries(cache)) == 2


def test_no_memory_for_the_images(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINKIT_CACHE_GB", "0")
    with pytest.raises(ResourceError, match="no memory for 300 x .*bytes, .* free.; choose a smaller"):
        load(photos, image_size=30_000_000)
