"""`trainkit train`: build, fit, evaluate the best epoch on the test split."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trainkit import loop, storage
from trainkit.building import components
from trainkit.building.run import build_checkpoints, build_run, notes
from trainkit.checkpoints import checkpoint
from trainkit.checkpoints.state import Checkpoints, Restored
from trainkit.config.compose import assignment
from trainkit.config.frame import Train, to_plain
from trainkit.console.console import Console, table
from trainkit.console.ending import summary
from trainkit.data.dataset import Data
from trainkit.data.loaders import Loader, Normalize, make_loader
from trainkit.data.spec import describe
from trainkit.errors import CheckpointError, Interrupted
from trainkit.loggers.choose import make_loggers
from trainkit.loggers.facts import Plan
from trainkit.loggers.sinks import Files, Report, finite
from trainkit.report.keepsakes import draw_plots, keep, keep_fold
from trainkit.run_folders import rundir
from trainkit.run_folders.predictions import Collector
from trainkit.run_folders.rundir import RunDir
from trainkit.runtime import environment
from trainkit.tasks.meter import Metrics
from trainkit.tasks.metrics import describe_metrics, of_split
from trainkit.training import debug
from trainkit.training.run import Run
from trainkit.training.saliency import Saliency
from trainkit.training.signals import Stop
from trainkit.training.speed import mirrored


def train(config: Train, folder: RunDir, console: Console, *, allow: Sequence[str] = ()) -> dict[str, Any]:
    """Train as the config says, from the start or from what the folder holds; evaluate the best epoch.

    allow: keys (and `data`) that may differ from those of the checkpoint that the run goes on from. Returns the best
    epoch, its metrics and the monitored value (`objective`). Raises Interrupted when a signal came.
    """
    started = time.monotonic()
    stop = Stop()
    loggers = make_loggers(config.loggers, folder.path, to_plain(config))
    report = Report([console, Files(folder.path)], loggers)
    run: Run | None = None
    lines: list[str] = []  # the answer, when `overfit` or `profile` asks a question instead of training
    try:
        with stop.catching():
            device = components.build_device(config)
            around = environment(device)
            folder.write_json("env.json", around)
            data = components.build_data(config, device)
            mirror = components.mirrors(config, data.spec, data.name)
            around |= {"loader": dataclasses.asdict(data.loading)}
            folder.write_json("env.json", around)
            run = build_run(config, data, device, stop)
            if run.origin is not None:
                folder.write_json("env.json", around | {"init": run.origin})
            checkpoints = build_checkpoints(config, data, run, folder.path)
            restored = checkpoints.restore(run, allow)
            announce(config, data, run, report, console)
            folder.begin(run.step)
            if restored is not None:
                say_resumed(restored, run, report)
            report.begin(plan_of(run))
            with stop.deferred(), debug.naming_nan(run) if config.anomaly else contextlib.nullcontext():
                if config.overfit:
                    result, lines = debug.overfit(run, report)
                elif config.profile is not None:
                    result, lines = debug.profile(run, folder.path, config.profile)
                else:
                    loop.fit(run, report, checkpoints)
                    storage.flush(checkpoints.folder)  # the links, before the status says that the run is complete
            if not lines:
                result, answers = conclude(run, data, checkpoints, mirror)
                keep_answers(folder.path, run, data, answers, report.note)
            report.end({name: value for name, value in result.items() if name != "objective"})
    except Interrupted as error:
        if config.overfit or config.profile is not None:
            raise
        command = resume_command(folder.path, config.plugins)
        done = f" after step {run.step}; it is saved" if run is not None and run.step else ""
        raise Interrupted(f"{error}{done}; go on with: {command}", error.signum) from error
    finally:
        report.close()
    looks = [logger.look() for logger in report.loggers]
    if lines:
        show_answer(lines, result, folder.path, console)
    else:
        show_result(result, folder.path, console, config.plugins, looks)
        draw_plots(config.plots, folder.path, started, console.say)
    found: dict[str, Any] = finite(result)
    return found


def plan_of(run: Run) -> Plan:
    """What sinks are told at the start."""
    return Plan(
        epochs=run.epochs,
        steps_per_epoch=run.train.steps_per_epoch,
        batch_size=run.train.batch_size,
        step=run.step,
        judged_by=run.judged_by,
        monitor=run.monitor.metric,
        metrics=run.metrics,
        hint=run.train.hint,
    )


def say_resumed(restored: Restored, run: Run, report: Report) -> None:
    """Where the run goes on, and whether the bits will be those of a run that had not stopped."""
    for text in restored.passed:
        report.note(f"{text}; the checkpoint before it is used")
    for text in restored.lost:
        report.note(f"{text}; the checkpoint is whole")
    exact = f"not bit-exact: {', '.join(restored.changes)}" if restored.changes else "bit-exact"
    report.note(f"goes on after epoch {run.epoch}, step {run.step}: {exact}")


def keep_answers(path: Path, run: Run, data: Data, answers: dict[str, Collector], note: Callable[[str], None]) -> None:
    """Keep what a report shows of the run, and what was answered on a fold."""
    saliency = Saliency(run.model, Normalize(data.spec, run.device), run.device)
    keep(path, data, answers.get(judging_split(run)), note, shown_samples(run, data), saliency)
    keep_fold(path, data, answers.get("val"), note)


def shown_samples(run: Run, data: Data) -> Loader:
    """The training samples as the model sees them, of which a report shows some."""
    if run.data is data:
        return run.train
    normalize = Normalize(data.spec, run.device)
    return make_loader(data, "train", run.train.batch_size, normalize, run.device, seed=run.seed)


def resume_command(path: Path, plugins: list[str]) -> str:
    """What to type to go on with a run."""
    return " ".join(["trainkit resume", shlex.quote(rundir.shown(path)), *_naming(plugins)])


def _naming(plugins: list[str]) -> list[str]:
    # a checkpoint never names plugins: they run code
    return [shlex.quote(f"plugins=[{','.join(plugins)}]")] if plugins else []


def announce(config: Train, data: Data, run: Run, report: Report, console: Console) -> None:
    """The first lines: what is trained on what."""
    parameters = sum(p.numel() for p in run.model.parameters())
    sizes = ", ".join(f"{name} {len(data.splits[name]):,}" for name in ("train", "val", "test") if name in data.splits)
    console.say(f"{data.name} {describe(data.spec)}: {sizes} samples")
    console.say(
        f"{config.model.name} {parameters:,} parameters, {config.optim.name} lr {run.base_lr:g}, "
        f"{run.epochs} x {run.train.steps_per_epoch} steps of {config.batch_size} on {run.device}"
    )
    for text in notes(config, data, run):
        report.note(text)


def judging_split(run: Run) -> str:
    """The split whose answers are kept and shown: test, else val."""
    return "test" if "test" in run.data.splits else "val"


def conclude(
    run: Run, data: Data, checkpoints: Checkpoints, mirror: bool
) -> tuple[dict[str, Any], dict[str, Collector]]:
    """Put the best epoch's weights back and evaluate them, as `tta` says, on the splits that were not trained on.

    Returns the result, and the answers on the splits that are told of later: test, else val, and val where it is a
    fold. Raises CheckpointError when the weights are lost.
    """
    if (best := checkpoints.best) is None and run.monitor.best_epoch:
        last = checkpoints.folder / "last.safetensors"
        raise CheckpointError(
            f"the checkpoint of the best epoch, {run.monitor.best_epoch}, is lost; the last one: "
            f"trainkit eval ckpt={shlex.quote(rundir.shown(last))}"
        )
    if best is not None:
        tensors, _ = checkpoint.load(best)
        checkpoint.load_model(run.model, tensors, best)
    loaders = {} if run.val is None else {"val": run.val}
    if "test" in data.splits:
        loaders["test"] = make_loader(
            run.data, "test", run.train.batch_size, run.train.normalize, run.device, seed=run.seed
        )
    told = {judging_split(run), *(["val"] if data.fold is not None else [])}
    answers = {split: Collector(split, data, run.train.normalize) for split in loaders if split in told}
    metrics: dict[str, Metrics] = {}
    forward = mirrored(run.forward) if mirror else run.forward
    for split, loader in loaders.items():
        collect = answers[split].add if split in answers else None
        measured = loop.evaluate(run.model, forward, run.loss_fn, loader, run.meter(True), run.seed, collect=collect)
        metrics[split] = of_split(measured, run.metrics, split)
    result = {
        "objective": run.monitor.best,
        "monitor": f"{run.judged_by}/{run.monitor.metric}",
        "mode": run.monitor.mode,
        "best_epoch": run.monitor.best_epoch,
        "epochs": run.epoch,
        "steps": run.step,
        "skipped": int(run.guard.bad),
        "metrics": metrics,
        "measured": describe_metrics(run.metrics),
    }
    return result, answers


def show_answer(lines: list[str], result: dict[str, Any], path: Path, console: Console) -> None:
    """The last lines of a run that was only asked something."""
    if console.as_json:
        console.say_json({"run": str(path), **result})
    for line in lines:
        console.say(line)
    console.say(f"run folder: {rundir.shown(path)}")


def show_result(result: dict[str, Any], path: Path, console: Console, plugins: list[str], looks: Sequence[str]) -> None:
    """The last lines: the result, the run folder, what to type next; of a job of a sweep one line.

    looks: the commands that show what loggers have written.
    """
    if console.as_json:
        console.say_json({"run": str(path), **result})
    if console.prefix:
        name = result["monitor"].partition("/")[2]
        values = [f"{split}/{name} {m[name]:.4f}" for split, m in result["metrics"].items() if name in m]
        console.say(f"done, best epoch {result['best_epoch']}: {', '.join(values)}")
        return
    console.say("")
    show_metrics(result, path, console)
    ckpt = shlex.quote(assignment("ckpt", rundir.shown(path)))
    command = " ".join([f"trainkit eval {ckpt}", *_naming(plugins)])
    console.say(f"run folder: {rundir.shown(path)}")
    report = f"trainkit report {shlex.quote(rundir.shown(path))}"
    predict = " ".join([f"trainkit predict {ckpt} input=FILE", *_naming(plugins)])
    also = [f"{command} split=val"] if "val" in result["metrics"] else []
    console.say("\n  ".join(["next:", command, *also, predict, report, *looks]))


def show_metrics(result: dict[str, Any], path: Path, console: Console) -> None:
    """The metrics of the best epoch: in a frame beside those of the last one, or as plain lines."""
    best, monitor = f"best epoch {result['best_epoch']}", result["monitor"]
    columns = dict(result["metrics"])
    if console.last is not None and console.last[0] != result["best_epoch"]:
        epoch, split, metrics = console.last
        columns[f"{split} of epoch {epoch}"] = metrics
    title = f"{best} of {result['epochs']} by {monitor}"
    if columns and console.frame(title, summary(columns, monitor.partition("/")[2], path)):
        return
    for split, metrics in result["metrics"].items():
        for line in table(f"{split}, {best} by {monitor}", metrics):
            console.say(line)
