"""The same training step under options of the config: samples per second, and how much of the hardware that is.

`python -m bench.options NAME ROW DATA_DIR` prints one JSON line {step_ms, samples_per_s, tflops}: the fastest of some
epochs of trainkit's own loop after one that warms up. Each row has a process of its own, because a CUDA graph or a
compiled model leaves things behind. The row `PRODUCT` is one large matrix product instead, in bf16: what the hardware
can be brought to do.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.processes import Reading, last_line, succeed
from bench.sections import Say, Section, interleave

PRODUCT = "a matrix product in bf16"
EPOCHS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """One model and data set. words: overrides of every row; rows: what each adds; product: whether to compare."""

    name: str
    title: str
    data: str
    words: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]
    product: bool = False


BF16 = ("precision=bf16", "channels_last=true")
OPTIONS = [
    Options(
        name="options_mlp",
        title="MNIST, mlp 784-64-128-64-10, batch 128: options",
        data="mnist",
        words=("dataset=mnist", "data_dir={data}", "model=mlp", "model.hidden=[64,128,64]", "optim=adam"),
        rows={
            "eager": (),
            "compile": ("compile=default",),
            "cuda_graph": ("cuda_graph=true",),
            "compile + cuda_graph": ("compile=default", "cuda_graph=true"),
        },
    ),
    Options(
        name="options_resnet18",
        title="CIFAR-10, ResNet-18, flip and crop, batch 1024: options",
        data="cifar10",
        words=(
            *("dataset=folder", "dataset.root={data}/cifar10", "model=resnet18", "augment=flip_crop"),
            *("optim=sgd", "batch_size=1024"),
        ),
        rows={
            "fp32": (),
            "tf32": ("precision=tf32",),
            "bf16 + channels_last": BF16,
            "the same, compile": (*BF16, "compile=default"),
            "the same, compile + cuda_graph": (*BF16, "compile=default", "cuda_graph=true"),
        },
        product=True,
    ),
]
BY_NAME = {options.name: options for options in OPTIONS}


def options_section(options: Options, data_dir: Path, repeats: int, say: Say) -> Section:
    """Every row in a process of its own; one that the device cannot do is left out with the reason."""

    def measure(row: str) -> Reading:
        return last_line(succeed([sys.executable, "-m", "bench.options", options.name, row, str(data_dir)]))

    rows = [*options.rows, *([PRODUCT] if options.product else [])]
    section = Section(options.name, "options", options.title)
    interleave(section, {row: (lambda _, row=row: measure(row)) for row in rows}, repeats, say)
    return section


def steps(words: list[str], samples: int | None = None) -> Reading:
    """Epochs of trainkit's loop with these overrides, over all of train or its first `samples`."""
    from bench.steady import compose
    from trainkit import loop
    from trainkit.building import components
    from trainkit.building.run import build_checkpoints, build_run
    from trainkit.loggers.sinks import Files, Report
    from trainkit.planning.layers import measure_work
    from trainkit.training.signals import Stop

    config = compose(words)
    device = components.build_device(config)
    data = components.build_data(config, device)
    train = data.splits["train"]
    train.inputs, train.targets = train.inputs[:samples], train.targets[:samples]
    training = build_run(config, data, device, Stop())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        checkpoints = build_checkpoints(config, data, training, Path(folder))
        report = Report([Files(Path(folder))])

        def epoch() -> None:
            loop.train_epoch(training, report, checkpoints)
            training.epoch, training.sums = training.epoch + 1, None

        seconds = fastest(epoch, device.type)
    batch = next(iter(training.train.epoch(0)))
    work = measure_work(training.model, training.loss_fn, batch.first(2))
    rate = training.train.num_samples / seconds
    return {
        "step_ms": 1000 * seconds / training.train.steps_per_epoch,
        "samples_per_s": rate,
        "tflops": rate * (work.forward_flops + work.backward_flops) / 1e12,
    }


def product(size: int) -> Reading:
    """Products of two square matrices of bf16 numbers."""
    import torch

    from bench.network import best_device

    device, times = best_device(), 10
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def work() -> None:
        for _ in range(times):
            torch.mm(a, b)

    return {"tflops": 2 * size**3 * times / fastest(work, device.type) / 1e12}


def fastest(work: Callable[[], None], device: str) -> float:
    """Seconds of the fastest of `EPOCHS` times, after one that does not count."""
    import torch

    times = []
    for _ in range(1 + EPOCHS):
        begin = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def main() -> None:
    name, row, data_dir = sys.argv[1:]
    options = BY_NAME[name]
    if row == PRODUCT:
        reading = product(8192)
    else:
        reading = steps([word.format(data=data_dir) for word in (*options.words, *options.rows[row], "val_fraction=0")])
    print(json.dumps(reading))


if __name__ == "__main__":
    main()
