"""The benchmark is honest (the bare loop computes what trainkit computes), and its tables say what was read.

Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import __main__ as command
from bench import record, tables
from bench.contestants import bare
from bench.options import OPTIONS, PRODUCT, options_section, product
from bench.processes import ROOT, Failed, run
from bench.sections import Section, interleave, wrong
from bench.speedrun import speedrun_section
from bench.steady import build_both
from bench.works import BY_NAME, CONTESTANTS, WORKS
from trainkit.loop import train_step
from trainkit.randomness import key, permutation
from trainkit.tasks.meter import sum_terms

pytestmark = pytest.mark.slow

TRAIN, TEST = 400, 100


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """A data folder with a few made-up images in MNIST's files."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("t10k", TEST)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        images = (random.integers(0, 60, (count, 28, 28)) + 15 * labels[:, None, None]).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (raw / f"{split}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


@pytest.mark.parametrize("name", ["mnist_mlp", "mnist_cnn", "mnist_cnn_bf16"])
def test_the_bare_loop_has_the_losses_of_trainkit_bit_for_bit(name: str, mnist: Path, tmp_path: Path) -> None:
    work = dataclasses.replace(BY_NAME[name], loop_samples=TRAIN)
    ours, _, hand = build_both(work, mnist, tmp_path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(0, "init"))
        hand = bare.prepare(work, ours.device)
    images, labels, *_ = (tensor.to(ours.device) for tensor in bare.load(work, mnist))
    expected: list[float] = []
    found: list[float] = []
    for epoch in range(2):
        for batch in ours.train.epoch(epoch):
            expected.append(sum_terms(train_step(ours, batch)[0]).item())
            ours.step += 1
        order = permutation(len(labels), 0, epoch).to(ours.device)
        found += [loss.item() for loss in bare.train_epoch(hand, images, labels, order, None)]
    assert len(found) == 8 and found == expected
    assert found[-1] < found[0]


def test_flip_crop_of_the_bare_loop_shows_a_part_of_the_padded_image_or_its_mirror() -> None:
    image = torch.arange(1, 3 * 8 * 8 + 1, dtype=torch.uint8).view(1, 3, 8, 8)
    padded = [torch.nn.functional.pad(each, (4,) * 4) for each in (image, image.flip(3))]
    windows = {
        whole[0, :, y : y + 8, x : x + 8].numpy().tobytes(): (mirrored, y, x)
        for mirrored, whole in enumerate(padded)
        for y in range(9)
        for x in range(9)
    }
    changed = bare.flip_crop(image.repeat(500, 1, 1, 1))
    seen = {windows[crop.numpy().tobytes()] for crop in changed}
    assert len(seen) > 100  # of 162, in 500 draws


def test_a_contestant_prints_its_readings(mnist: Path) -> None:
    done = run([sys.executable, "-m", "bench.contestants.tutorial", "mnist_mlp", "0", str(mnist)])
    assert done.code == 0, done.err
    reading = json.loads(done.out)
    assert reading["import_s"] < reading["first_step_s"] < done.total_s and len(reading["epoch_s"]) == 1
    assert 0 <= reading["accuracy"] <= 1 and done.peak_rss_mb > 50


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    env.pop("TRAINKIT_DATA", None)
    done = [sys.executable, "-m", "bench", *words]
    return subprocess.run(done, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_bench_loop_runs(mnist: Path) -> None:
    done = bench("loop", "--repeats", "1", "--work", "mnist_mlp,mnist_cnn", "--data-dir", str(mnist))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("one step, steady state") == 2 and "torch 2." in done.stdout
    for name in ("trainkit", "bare"):
        assert len(re.findall(rf"^{name} +\d", done.stdout, re.M)) == 2


def test_bench_runs_trainkits_command_and_reads_its_run_folder(mnist: Path) -> None:
    done = bench("--repeats", "1", "--only", "trainkit", "--work", "mnist_mlp,cifar10_cnn", "--data-dir", str(mnist))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^trainkit +\d", done.stdout, re.M)
    assert f"cifar10_cnn: left out: there is no folder {mnist / 'cifar10' / 'train'}" in done.stderr


def test_options_are_measured_each_in_a_process_of_its_own(mnist: Path) -> None:
    full = next(options for options in OPTIONS if options.data == "mnist")
    quick = dataclasses.replace(
        full, rows={row: full.rows[row] for row in ("eager", "cuda_graph")}
    )  # compiling is slow
    section = options_section(quick, mnist, 1, lambda text: None)
    assert "eager" in section.readings
    flops = 2 * (2 * 784 * 64 + 3 * (64 * 128 + 128 * 64 + 64 * 10))
    for reading, *_ in section.readings.values():
        assert reading["tflops"] == pytest.approx(reading["samples_per_s"] * flops / 1e12)
        assert reading["samples_per_s"] * reading["step_ms"] / 1000 == pytest.approx(TRAIN / -(-TRAIN // 128))
    if not torch.cuda.is_available():
        assert "cuda_graph=true needs a CUDA GPU" in section.skipped["cuda_graph"]
    assert product(64)["tflops"] > 0


def test_the_speed_record_is_run_by_the_command(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 6)):
        for name in ("a", "b"):
            place = tmp_path / "cifar10" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(place / f"{number}.png")
    tiny = ["epochs=2", "batch_size=12", "model.widths=[8,8,8]", "optim.lr=0.1"]
    section = speedrun_section(tmp_path, 1, lambda text: None, tiny)
    (reading,) = section.readings["bf16 + channels_last"]
    assert len(reading["epoch_s"]) == 2 and 0 <= reading["accuracy"] <= 1
    assert "± " not in tables.table(section)[1][0][-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_part_measures_nothing() -> None:
    done = bench("gpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "bench: error: torch sees no GPU here, and `gpu` measures nothing else\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lop"], "part 'lop' is not known; choose from: all, loop, gpu"),
        (["--only", "kears"], "--only: 'kears' is not known (did you mean keras?); choose from: trainkit, bare, "),
        (["--work", "mnist"], "--work: 'mnist' is not known (did you mean mnist_"),
        (["loop", "--work", "digits"], "--work: 'digits' is not known"),
        (["loop", "--only", "bare"], "--only does not go with loop"),
        (["gpu", "--work", "startup"], "--work: 'startup' is not known; choose from: mnist_mlp, "),
        (["--repeats", "0"], "--repeats: expected a number >= 1, got 0"),
        (["--repeats", "many"], "invalid int value: 'many'"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_wrong_words_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.parse(words)
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("bench: error: ") and err.count("\n") == 1 and message in err


def recorded() -> Section:
    """Three rounds of three contestants, as `bench/results.json` would hold them."""

    def reading(epoch: float, accuracy: float) -> dict[str, Any]:
        times = {"import_s": 1.5, "first_step_s": 1.75, "epoch_s": [epoch, epoch], "eval_s": 0.5, "total_s": 4 * epoch}
        return {**times, "accuracy": accuracy, "peak_rss_mb": 700.4}

    readings = {
        "trainkit": [reading(epoch, 0.95) for epoch in (1.0, 9.0, 0.75)],
        "bare": [reading(epoch, 0.955) for epoch in (1.0, 1.0, 1.0)],
        "tutorial": [reading(epoch, 0.90) for epoch in (4.0, 5.0, 4.5)],
    }
    text = json.dumps(dataclasses.asdict(Section("w", "work", "A work", "2026-01-02", "abc", readings, {}, 0.02)))
    return Section(**json.loads(text))


def test_table_of_a_work_shows_medians_and_ratios_of_medians() -> None:
    header, rows = tables.table(recorded())
    assert rows == [
        ["trainkit", "1.50", "1.75", "1.00", "0.50", "2.50", "1.00x", "4.00", "1.00x", "700", "0.9500"],
        ["bare", "1.50", "1.75", "1.00", "0.50", "2.50", "1.00x", "4.00", "1.00x", "700", "0.9550"],
        ["tutorial", "1.50", "1.75", "4.50", "0.50", "9.50", "3.80x", "18.0", "4.50x", "700", "0.9000 (differs)"],
    ]
    assert {len(row) for row in rows} == {len(header)}
    assert wrong(recorded()) == ["tutorial"]


@pytest.mark.parametrize(
    ("kind", "readings", "rows"),
    [
        ("options",
         {"a": [{"step_ms": 2.0, "samples_per_s": 500, "tflops": 0.2}],
          "b": [{"step_ms": 1.0, "samples_per_s": 1000, "tflops": 0.4}], PRODUCT: [{"tflops": 0.5}]},
         [["a", "2.000", "500", "1.00x", "0.2", "0.40"], ["b", "1.000", "1,000", "2.00x", "0.4", "0.80"],
          [PRODUCT, "–", "–", "–", "0.5", "1.00"]]),
        ("options", {"a": [{"step_ms": 2.0, "samples_per_s": 500, "tflops": 0.2}]},
         [["a", "2.000", "500", "1.00x", "0.2", "–"]]),
        ("recipe",
         {"a": [{"epoch_s": [1, 2], "eval_s": 0.5, "total_s": 8, "accuracy": share} for share in (0.9, 0.92)],
          "b": [{"epoch_s": [1], "eval_s": 0.5, "total_s": 20, "accuracy": 0.5}]},
         [["a", "2", "3.00", "3.50", "8.00", "0.9100 ± 0.0141"], ["b", "1", "1.00", "1.50", "20.0", "0.5000"]]),
        ("startup", {"a": [{"seconds": 2.0, "peak_rss_mb": 300}], "b": [{"seconds": 0.5, "peak_rss_mb": 20}]},
         [["a", "2.00", "+0.00", "300"], ["b", "0.50", "-1.50", "20"]]),
        ("data", {"a": [{"prepare_s": 9.5, "images_per_s": 6e4}], "b": [{"prepare_s": 0.0, "images_per_s": 4e3}]},
         [["a", "9.50", "60,000", "1.00x"], ["b", "0.00", "4,000", "15.0x"]]),
        ("loop", {"trainkit": [{"step_ms": 0.8}], "bare": [{"step_ms": 0.76}]},
         [["trainkit", "0.800", "0.950"], ["bare", "0.760", "1.000"]]),
    ],
)  # fmt: skip
def test_tables_of_the_other_parts(kind: str, readings: dict[str, Any], rows: list[list[str]]) -> None:
    assert tables.table(Section("s", kind, "title", readings=readings))[1] == rows


def test_rounds_are_interleaved_and_a_failed_row_is_left_out_with_its_reason() -> None:
    order: list[tuple[str, int]] = []

    def measure(row: str, repeat: int) -> dict[str, float]:
        order.append((row, repeat))
        if row == "b" and repeat == 1:
            raise Failed("no more")
        return {"step_ms": float(repeat)}

    section = Section("s", "loop", "title")
    interleave(section, {row: (lambda n, row=row: measure(row, n)) for row in "abc"}, 3, lambda text: None)
    assert [repeat for _, repeat in order] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert list(section.readings) == ["a", "c"] and section.skipped == {"b": "no more"}
    assert [reading["step_ms"] for reading in section.readings["c"]] == [0, 1, 2]


def test_writing_replaces_the_figures_between_the_markers_and_keeps_other_sections(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "bench").mkdir()
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "benchmarks.md"
    page.write_text(f"# Top\n\n{record.BEGIN}\nold\n{record.END}\n\nEnd\n")
    loop = Section("l", "loop", "A loop", readings={"trainkit": [{"step_ms": 2.0}], "bare": [{"step_ms": 1.0}]})
    record.write(tmp_path, [recorded()], "cpu", {"device": "a machine"})
    record.write(tmp_path, [loop], "cpu", {"device": "a machine"})
    text = page.read_text()
    assert text.startswith(f"# Top\n\n{record.BEGIN}\n## Figures: CPU\n\n![") and text.endswith(
        f"{record.END}\n\nEnd\n"
    )
    assert "old" not in text and "- device: a machine" in text and "| trainkit | 2.000 | 0.500 |" in text
    assert "Accuracies differ: tutorial (within 0.02 of the bare loop's)." in text
    assert (tmp_path / "docs/img/bench_cpu.png").read_bytes().startswith(b"\x89PNG")
    record.write(tmp_path, [loop], "cuda", {"device": "a GPU"})
    assert "A work" in page.read_text() and "- device: a GPU" in page.read_text()
    record.write(tmp_path, [loop], "cpu", {"device": "another machine"})
    assert "A work" not in page.read_text() and "- device: a GPU" in page.read_text()


def test_every_contestant_has_a_file_and_every_work_one_name() -> None:
    files = {path.stem for path in (ROOT / "bench" / "contestants").glob("*.py")} - {"__init__"}
    assert files == set(CONTESTANTS)
    assert len(BY_NAME) == len(WORKS) and all(set(work.contestants) <= files for work in WORKS)


def test_the_page_has_its_markers_once() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert text.count(record.BEGIN) == text.count(record.END) == 1
