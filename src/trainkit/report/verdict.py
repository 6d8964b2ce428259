"""What a run came to, in sentences: the number, against what it must be judged, and whether it overfitted."""

from __future__ import annotations

import dataclasses
import math

from trainkit.report.facts import Facts, number
from trainkit.tasks.base import Metric
from trainkit.text import written

RISE = 0.10  # a val loss that ends so much above its lowest, while the train loss fell, is overfitting
JUDGED = 4  # epochs from which on the curves are judged


@dataclasses.dataclass(frozen=True)
class Verdict:
    """mood: `good`, `warn` or `bad`, shown as a word and a color. sentences: plain text, the most telling first."""

    headline: str
    mood: str
    sentences: list[str]


def verdict(facts: Facts) -> Verdict:
    """The verdict on a run in any state."""
    fit, worry = judge_fit(facts)
    sentences = [_result(facts), *_answers(facts), *fit]
    if facts.predictions is not None:
        sentences += facts.task.calibration(facts.predictions.kept)
    if facts.state != "completed":
        return Verdict(_ending(facts), "warn" if facts.state == "running" else "bad", sentences)
    return Verdict(_headline(facts), "warn" if worry else "good", sentences)


def shown(metric: Metric, value: float | None) -> str:
    """A metric's value as a person reads it: shares as percent."""
    if value is None:
        return "–"
    return f"{value:.2%}" if metric.unit == "share" else written(value)


def label(metric: Metric) -> str:
    """A metric's name as a person writes it."""
    return metric.title or metric.name.replace("_", " ")


def _headline(facts: Facts) -> str:
    metric, value = facts.described(facts.headline), facts.metric(facts.headline)
    return f"{label(metric)} {shown(metric, value)} on {facts.split}" if value is not None else "completed"


def _ending(facts: Facts) -> str:
    done = f"after {int(facts.epochs[-1]['epoch'])} epochs" if facts.epochs else "before its first epoch was done"
    if facts.state == "failed":
        return f"failed {done}: {facts.status.get('error', 'no reason is recorded')}"
    if facts.state == "killed":
        return f"killed {done}: its status still says running, but no process holds the folder"
    return {
        "running": f"still running, {done}",
        "interrupted": f"interrupted {done}",
        "unknown": "status.json is missing or damaged: how the run ended is not known",
    }.get(facts.state, f"{facts.state}, {done}")


def _result(facts: Facts) -> str:
    """What was measured, on how much, and which epoch it is."""
    split = facts.split
    if split is None:
        return "Nothing was measured on held-out data."
    data = facts.data if facts.config else "the data"
    samples = len(facts.predictions) if facts.predictions is not None else None
    text = f"Measured on the {split} split of {data}" + (f", {samples:,} samples" if samples else "")
    if facts.best_epoch is not None:
        last = int(facts.epochs[-1]["epoch"])
        value = best_value(facts)
        chosen = f", chosen by {facts.monitor}" + (
            f" ({shown(facts.described(facts.monitor), value)})" if value is not None else ""
        )
        text += f", with the weights of epoch {facts.best_epoch} of {last}{chosen}"
    return f"{text}."


def _answers(facts: Facts) -> list[str]:
    """What the task says of the result."""
    if facts.target is None or facts.split is None:
        return []
    measured = {
        name: value
        for name in facts.measured[facts.split]
        if (value := facts.metric(f"{facts.split}/{name}")) is not None
    }
    kept = {} if facts.predictions is None else facts.predictions.kept
    return facts.task.sentences(measured, kept, facts.target)


def best_value(facts: Facts) -> float | None:
    """The monitored metric in the best epoch."""
    for row in facts.epochs:
        if row["epoch"] == facts.best_epoch:
            return number(row.get(facts.monitor))
    return None


def judge_fit(facts: Facts) -> tuple[list[str], bool]:
    """Whether the curves show overfitting or an early end: (sentences, whether one of them is a warning)."""
    val = {int(row["epoch"]): value for row in facts.epochs if (value := number(row.get("val/loss"))) is not None}
    train = {int(row["epoch"]): value for row in facts.epochs if (value := number(row.get("train/loss"))) is not None}
    if len(val) < JUDGED:
        return (["Too few epochs to tell overfitting from the curves."] if val else []), False
    lowest = min(val, key=lambda epoch: val[epoch])
    last = max(val)
    rise = val[last] / val[lowest] - 1 if val[lowest] > 0 else math.inf
    fell = last in train and lowest in train and train[last] < train[lowest]
    if fell and rise > RISE:
        kept = f" The kept weights are those of epoch {facts.best_epoch}." if facts.best_epoch else ""
        return [
            f"Overfitting after epoch {lowest}: the val loss was lowest there and ends {rise:.0%} higher, "
            f"while the train loss went on falling.{kept}"
        ], True
    if facts.best_epoch == last:
        return [f"No overfitting. {facts.monitor} was best in the last epoch: more epochs may bring more."], False
    return [f"No overfitting: the val loss ends within {RISE:.0%} of its lowest, which is in epoch {lowest}."], False
