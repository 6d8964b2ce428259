"""Streaming: the same numbers as resident for any number of workers, and one clear end when a worker fails."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trainkit.checkpoints import checkpoint
from trainkit.cli import main
from trainkit.console.live import WAIT
from trainkit.data.dataset import Data
from trainkit.data.datasets.folder import folder
from trainkit.data.images.decoders import Decoders, in_memory
from trainkit.data.images.files import Files, Stream
from trainkit.data.images.fit import Rule
from trainkit.data.loaders import Normalize, StreamingLoader
from trainkit.data.placement import place
from trainkit.data.spec import INPUT, DataSpec, TargetSpec
from trainkit.data.splits import Split
from trainkit.errors import DataError, ResourceError
from trainkit.machine import free_host_memory

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 100 small JPEGs: noise that is darker at the top or at the bottom."""
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for index in range(200):
        pixels = generator.integers(0, 150, (20, 20, 3), dtype=np.uint8)
        pixels[: 10 if index % 2 else None : 1 if index % 2 else 2] += 100
        path = root / ("cat" if index % 2 else "dog") / f"{index:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def paths(root: Path) -> Any:
    return np.array(sorted(map(str, root.glob("*/*.jpg"))), dtype=object)


def words(root: Path, *more: str) -> list[str]:
    quick = ["dataset=folder", f"dataset.root={root}", "dataset.image_size=16", "device=cpu", "device.threads=1"]
    return ["train", *quick, "epochs=2", "batch_size=32", *more]


BUSY = ["model=cnn", "model.dropout=0.3", "model.norm=batch", "augment=flip_crop", "augment.padding=1", "optim=adam"]


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command in this process and `tmp_path`; returns what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*line: str) -> str:
        assert main(line) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    return run


def newest(verb: str = "train") -> Path:
    return max(Path("outputs", verb).iterdir(), key=os.path.getmtime)


def test_the_weights_are_those_of_resident_for_any_number_of_workers(
    photos: Path, run_here: Callable[..., str]
) -> None:
    runs = {}
    for loader in ("loader=resident", *(f"loader=streaming workers={workers}" for workers in (0, 1, 2))):
        said = run_here(*words(photos, *BUSY, *loader.split()))
        run = newest()
        status = json.loads((run / "status.json").read_text())["result"]
        runs[loader] = checkpoint.load(run / "checkpoints" / "last.safetensors")[0], status["metrics"]
        environment = json.loads((run / "env.json").read_text())
        assert environment["loader"]["kind"] == ("resident" if "resident" in loader else "streaming")
        assert f"note: loader {environment['loader']['kind']}: as asked" in said
    resident, metrics = runs.pop("loader=resident")
    for loader, (weights, found) in runs.items():
        assert found == metrics, loader
        assert all(torch.equal(weights[name], resident[name]) for name in resident), loader


def test_eval_streams_too(photos: Path, run_here: Callable[..., str]) -> None:
    run_here(*words(photos, "loader=streaming", "workers=1", "epochs=1"))
    trained = json.loads((newest() / "status.json").read_text())["result"]["metrics"]["test"]
    for loader in ("resident", "streaming"):
        run_here("eval", f"ckpt={newest()}", f"loader={loader}")
        folder = newest("eval")
        assert json.loads((folder / "env.json").read_text())["loader"]["kind"] == loader
        assert json.loads((folder / "status.json").read_text())["result"]["metrics"]["test"] == trained


def test_data_wait_is_measured_and_shown_with_one_hint(photos: Path, run_here: Callable[..., str]) -> None:
    said = run_here(*words(photos, "model=linear", "loader=streaming", "workers=0"))
    rows = [json.loads(line) for line in (newest() / "metrics.jsonl").read_text().splitlines()]
    waits = [row["data_wait"] for row in rows if row["event"] == "epoch"]
    assert len(waits) == 2 and all(0 < wait < 1 for wait in waits)
    assert (newest() / "results.csv").read_text().splitlines()[0].endswith(",data_wait")
    late = sum(wait > WAIT for wait in waits)
    assert said.count("(data wait ") == late and said.count("the model waits for data: workers=1") == min(late, 1)
    said = run_here(*words(photos, "model=linear", "loader=resident"))
    assert "data wait" not in said and "waits" not in said


def test_auto_goes_by_size(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 200 * 3 * 16 * 16
    for free, kind in ((2 * size, "resident"), (2 * size - 2, "streaming")):
        data = load(photos, free, "auto", monkeypatch)
        assert data.loading.kind == kind and data.notes == [f"loader {kind}: {data.loading.why}"]
        assert isinstance(data.splits["train"].inputs, Files) == (kind == "streaming")
    with pytest.raises(ResourceError, match="loader=resident: 0.2 MB of samples, 0.1 MB of memory free; use"):
        load(photos, 100_000, "resident", monkeypatch)


def load(root: Path, free: int, loader: Any, monkeypatch: pytest.MonkeyPatch) -> Data:
    monkeypatch.setattr("trainkit.data.placement.free_host_memory", lambda: free)
    return place(folder(Path("x"), 0, root=root, image_size=16), loader, 0, CPU)


def test_free_memory_is_the_least_that_the_system_or_a_container_leaves(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    assert free_host_memory(proc, groups) == 51200
    inner = groups / "outer" / "inner"
    inner.mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/outer/inner\n")
    for place_, limit, used in ((inner, "max", 4000), (inner.parent, "20000", 5000)):
        (place_ / "memory.max").write_text(f"{limit}\n")
        (place_ / "memory.current").write_text(f"{used}\n")
        (place_ / "memory.stat").write_text("inactive_file 700\nactive_file 300\nanon 5\n")
    assert free_host_memory(proc, groups) == 16000
    (inner / "memory.max").write_text("4100\n")
    assert free_host_memory(proc, groups) == 1100
    assert 0 < free_host_memory() < 2**50


def test_arrays_of_the_host_stream_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 1, 4, 4), dtype=np.uint8)
    split = Split(pixels, np.arange(50) % 2)
    data = place(Data("made", {"train": split}, TargetSpec("classification", ["a", "b"])), "streaming", None, CPU)
    assert data.loading.kind == "streaming" and data.loading.workers is None
    spec = DataSpec({INPUT: dataclasses.replace(data.spec.input, mean=[0.5], std=[0.5])}, data.spec.targets)
    loader = StreamingLoader(split, 16, Normalize(spec, CPU), CPU)
    inputs = torch.cat([batch.inputs for batch in loader])
    assert torch.allclose(inputs, torch.from_numpy(pixels) / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iteration_that_is_broken_off_does_not_disturb_the_next(photos: Path, workers: int) -> None:
    files = Files(paths(photos), Stream((3, 16, 16), Rule(), workers))
    indices = [np.arange(start, start + 20) for start in range(0, 200, 20)]
    whole = [batch.copy() for batch in files.batches(indices)]
    for _ in files.batches(indices[::-1]):
        break
    larger = np.arange(200)  # and a batch that the ring has no room for
    again = [batch.copy() for batch in files.batches([*indices[:3], larger])]
    assert np.array_equal(np.concatenate(whole), again[3])
    assert all(np.array_equal(a, b) for a, b in zip(whole[:3], again[:3], strict=True))


def test_a_file_that_goes_bad_is_named(photos: Path, tmp_path: Path) -> None:
    names = paths(photos)
    names[7] = str(tmp_path / "bad.jpg")
    Path(names[7]).write_bytes(b"no image")
    for workers in (0, 2):
        files = Files(names, Stream((3, 16, 16), Rule(), workers))
        with pytest.raises(DataError, match="bad.jpg: not a readable image any more"):
            list(files.batches([np.arange(10)]))


def endless(photos: Path, stream: Stream) -> None:
    files = Files(paths(photos), stream)
    for _ in files.batches([np.arange(100)] * 10_000):
        decoders = stream.decoders
        assert decoders is not None
        os.kill(decoders.processes[1].pid, signal.SIGKILL)


def test_a_killed_worker_is_one_error(photos: Path) -> None:
    with pytest.raises(ResourceError, match="a decoding worker was killed by SIGKILL; if memory ran out"):
        endless(photos, Stream((3, 16, 16), Rule(), 2))


def test_a_worker_that_hangs_is_one_error(photos: Path) -> None:
    decoders = Decoders(1, in_memory((10, 3, 16, 16), np.uint8, ""), None, Rule())
    decoders.submit(0, 0, [])
    assert decoders.result() == []
    decoders.patience = 0.5  # only now that the worker has started, however long that took
    os.kill(decoders.processes[0].pid, signal.SIGSTOP)
    decoders.submit(0, 0, [])
    with pytest.raises(ResourceError, match="gave no answer for 0 s.*or set workers=0"):
        decoders.result()
    assert decoders.processes[0].returncode == -signal.SIGKILL


def test_too_few_open_files_is_one_error() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    images = in_memory((10, 3, 16, 16), np.uint8, "")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 3, hard))
        with pytest.raises(ResourceError, match=r"cannot start 8 decoding workers \(Too many open files\).*ulimit -n"):
            Decoders(8, images, None, Rule())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


@pytest.fixture
def long_run(photos: Path, tmp_path: Path) -> Any:
    """A streaming run of many epochs that has saved its first checkpoint."""
    log = tmp_path / "said"
    command = [sys.executable, "-m", "trainkit", *words(photos, "loader=streaming", "workers=2", "epochs=100000")]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    try:
        wait_for(lambda: list(tmp_path.glob("outputs/train/*/checkpoints/last.safetensors")))
        yield process, log, tmp_path
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_ends_with_6_and_keeps_its_checkpoint(long_run: Any) -> None:
    process, log, place_ = long_run
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(30) == 6
    errors = [line for line in log.read_text().splitlines() if "error" in line]
    assert len(errors) == 1 and errors[0].startswith("trainkit: error: a decoding worker was killed by SIGKILL")
    assert "Traceback" not in log.read_text()
    (last,) = place_.glob("outputs/train/*/checkpoints/last.safetensors")
    assert checkpoint.load(last)[1]["progress"]["epoch"] >= 1


@pytest.mark.slow
def test_no_worker_outlives_a_killed_run(long_run: Any) -> None:
    process, _, _ = long_run
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    wait_for(lambda: not any(running(worker) for worker in workers))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
