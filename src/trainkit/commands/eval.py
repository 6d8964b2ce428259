"""`trainkit eval`: rebuild data and model from a checkpoint, and measure a split."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from trainkit import loop
from trainkit.building import components
from trainkit.checkpoints import checkpoint
from trainkit.config.frame import Eval
from trainkit.console.columns import lines_of, terminal_width
from trainkit.console.console import Console, table
from trainkit.console.ending import summary
from trainkit.data.adopt import adopt
from trainkit.data.dataset import Data
from trainkit.data.loaders import Normalize, make_loader
from trainkit.data.spec import DataSpec
from trainkit.errors import ConfigError
from trainkit.loggers.sinks import finite
from trainkit.report.keepsakes import draw_plots, keep
from trainkit.run_folders import rundir
from trainkit.run_folders.predictions import Collector
from trainkit.run_folders.rundir import RunDir
from trainkit.runtime import environment
from trainkit.tasks.metrics import describe_metrics, of_split
from trainkit.training.saliency import Saliency
from trainkit.training.speed import mirrored


def evaluate(config: Eval, folder: RunDir, console: Console) -> dict[str, Any]:
    """Evaluate the checkpoint as the config says; returns the metrics and the loss as `objective`."""
    started = time.monotonic()
    device = components.build_device(config)
    around = environment(device)
    folder.write_json("env.json", around)
    tensors, meta = checkpoint.load(config.ckpt)
    data = components.build_data(config, device)
    folder.write_json("env.json", around | {"loader": dataclasses.asdict(data.loading)})
    for text in data.notes:
        console.note(text)
    adopt(data, DataSpec.from_json(meta.get("spec"), config.ckpt), config.ckpt)
    split = choose_split(config, data)
    mirror = components.mirrors(config, data.spec, data.name)
    model = components.build_model(config, data.spec, device)
    checkpoint.load_model(model, tensors, config.ckpt)
    forward = components.build_forward(config, model, data.spec, device)
    normalize = Normalize(data.spec, device)
    loader = make_loader(data, split, config.batch_size, normalize, device, seed=config.seed)
    loss_fn = components.build_loss(config, data.spec, device, model)
    meter = components.build_meter(config, data.spec, device, full=True)
    answers = Collector(split, data, normalize)
    forward = mirrored(forward) if mirror else forward
    metrics = loop.evaluate(model, forward, loss_fn, loader, meter, config.seed, collect=answers.add)
    metrics = of_split(metrics, meter.metrics, split)
    keep(folder.path, data, answers, console.note, saliency=Saliency(model, normalize, device))
    best = {"objective": metrics["loss"], "monitor": f"{split}/loss", "mode": "min"}
    result: dict[str, Any] = finite(
        {**best, "split": split, "metrics": {split: metrics}, "measured": describe_metrics(meter.metrics)}
    )
    folder.write_json("metrics.json", result)
    if console.as_json:
        console.say_json({"run": str(folder.path), "ckpt": str(config.ckpt), **result})
    title = f"{split} of {data.name}, {len(data.splits[split]):,} samples, epoch {meta['progress']['epoch']}"
    if not console.frame(title, summary({split: metrics}, "", folder.path)):
        for line in table(title, metrics):
            console.say(line)
    show_details(answers, console)
    console.say(f"run folder: {rundir.shown(folder.path)}")
    draw_plots(config.plots, folder.path, started, console.say)
    return result


def show_details(answers: Collector, console: Console) -> None:
    """What the task shows of the answers beside the metrics: of classes a row each."""
    found = answers.predictions
    table = None if found is None else found.task.details(found.kept, found.target)
    if table is not None:
        cells = [table.heads, *([str(cell) for cell in row] for row in table.rows)]
        for line in lines_of(cells, [True] + [False] * (len(table.heads) - 2) + [True], terminal_width()):
            console.say(f"  {line}")


def choose_split(config: Eval, data: Data) -> str:
    """The split asked for, else test, else val. Raises ConfigError when the data has no such split."""
    split = config.split or ("test" if "test" in data.splits else "val")
    if split not in data.splits:
        raise ConfigError(f"split={split}: dataset {data.name} has only these splits: {', '.join(data.splits)}")
    return split
