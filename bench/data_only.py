"""Batches of CIFAR-10 with the model taken out: images per second of an epoch of flipped, cropped, normalized batches.

`python -m bench.data_only ROW DATA_DIR` prints one JSON line {prepare_s, images_per_s}: what is done once (decoding;
for a DataLoader listing the files), and the faster of two epochs after that. Each row has a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.processes import Reading, last_line, succeed
from bench.sections import Say, Section, interleave
from bench.works import BY_NAME

WORK = BY_NAME["cifar10_cnn"]
ROWS = ["trainkit, resident", "DataLoader + transforms, no workers", "DataLoader + transforms, 2 workers"]


def data_section(data_dir: Path, repeats: int, say: Say) -> Section:
    """Images per second of trainkit's resident path and of the tutorial's, each in a process of its own."""

    def measure(row: str) -> Reading:
        done = succeed([sys.executable, "-m", "bench.data_only", row, str(data_dir)])
        return {**last_line(done), "peak_rss_mb": done.peak_rss_mb}

    section = Section("data", "data", "CIFAR-10 from JPEG files, flip and crop, the model taken out")
    interleave(section, {row: (lambda _, row=row: measure(row)) for row in ROWS}, repeats, say)
    return section


Epoch = Callable[[int], Iterable[Any]]


def resident(data_dir: Path) -> tuple[float, Epoch]:
    """trainkit's loader over the decoded images: (seconds, epoch -> inputs of its batches)."""
    from bench.contestants.trainkit import overrides
    from bench.steady import compose
    from trainkit.building import components
    from trainkit.building.run import build_run
    from trainkit.training.signals import Stop

    begin = time.perf_counter()
    config = compose(overrides(WORK, 0, data_dir))
    device = components.build_device(config)
    run = build_run(config, components.build_data(config, device), device, Stop())
    return time.perf_counter() - begin, lambda epoch: (batch.inputs for batch in run.train.epoch(epoch))


def tutorial(data_dir: Path, num_workers: int) -> tuple[float, Epoch]:
    """A DataLoader over image files: (seconds, epoch number -> inputs)."""
    from torch.utils.data import DataLoader

    from bench.tutorial_data import datasets

    begin = time.perf_counter()
    train, _ = datasets(WORK, data_dir)
    loader = DataLoader(train, batch_size=WORK.batch_size, shuffle=True, num_workers=num_workers)
    return time.perf_counter() - begin, lambda epoch: (inputs for inputs, _ in loader)


def fastest(epoch: Epoch, epochs: int) -> float:
    """Images per second of the fastest of some epochs."""
    rates = []
    for number in range(epochs):
        begin, count = time.perf_counter(), 0
        for inputs in epoch(number):
            count += len(inputs)
        float(inputs.sum())  # waits for a GPU
        rates.append(count / (time.perf_counter() - begin))
    return max(rates)


def main() -> None:
    row, data_dir = sys.argv[1], Path(sys.argv[2])
    prepare_s, epoch = resident(data_dir) if row == ROWS[0] else tutorial(data_dir, 2 if row == ROWS[2] else 0)
    print(json.dumps({"prepare_s": prepare_s, "images_per_s": fastest(epoch, 2)}))


if __name__ == "__main__":
    main()
