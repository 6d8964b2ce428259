"""What a run came to, in sentences: the number, against what it must be judged, and whether it overfitted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from trainkit.report.analysis import interval, reliability
from trainkit.report.facts import Facts, number

RISE = 0.10  # a val loss that ends so much above its lowest, while the train loss fell, is overfitting
JUDGED = 4  # epochs from which on the curves are judged
PERCENT = ("accuracy", "f1", "precision", "recall")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """mood: `good`, `warn` or `bad`, shown as a word and a colour. sentences: plain text, the most telling first."""

    headline: str
    mood: str
    sentences: list[str]


def verdict(facts: Facts) -> Verdict:
    """The verdict on a run in any state."""
    sentences = [*_result(facts), *_baseline(facts)]
    fit, worry = judge_fit(facts)
    sentences += [*fit, *_calibration(facts)]
    if facts.state != "completed":
        return Verdict(_ending(facts), "warn" if facts.state == "running" else "bad", sentences)
    return Verdict(_headline(facts), "warn" if worry else "good", sentences)


def shown(name: str, value: float | None) -> str:
    """A metric's value as a person reads it: shares as percent, everything else with four digits."""
    if value is None:
        return "–"
    return f"{value:.2%}" if any(word in name for word in PERCENT) else f"{value:.4g}"


def label(metric: str) -> str:
    """A metric's name as a person writes it."""
    words = {"r2": "R²", "mae": "MAE", "rmse": "RMSE", "f1": "F1"}
    return " ".join(words.get(part, part) for part in metric.split("_"))


def _headline(facts: Facts) -> str:
    name = headline_metric(facts)
    split, _, metric = name.partition("/")
    value = facts.metric(name)
    return f"{label(metric)} {shown(metric, value)} on {split}" if value is not None else "completed"


def headline_metric(facts: Facts) -> str:
    """The metric that says how good the run is: the accuracy, R² or loss on `facts.split`."""
    measured = facts.measured.get(facts.split or "", {})
    metric = next((name for name in ("accuracy", "r2") if name in measured), "loss")
    return f"{facts.split}/{metric}"


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


def _result(facts: Facts) -> list[str]:
    """What was measured, on how much, and which epoch it is."""
    split = facts.split
    if split is None:
        return ["Nothing was measured on held-out data."]
    data = (facts.config.get("dataset") or {}).get("name", "the data") if facts.config else "the data"
    samples = len(facts.predictions) if facts.predictions is not None else _total(facts)
    text = f"Measured on the {split} split of {data}" + (f", {samples:,} samples" if samples else "")
    if facts.best_epoch is not None:
        last = int(facts.epochs[-1]["epoch"])
        value = best_value(facts)
        chosen = f", chosen by {facts.monitor}" + (f" ({shown(facts.monitor, value)})" if value is not None else "")
        text += f", with the weights of epoch {facts.best_epoch} of {last}{chosen}"
    sentences = [f"{text}."]
    accuracy = facts.metric(f"{split}/accuracy")
    if accuracy is not None and samples:
        low, high = interval(round(accuracy * samples), samples)
        wrong = samples - round(accuracy * samples)
        sentences.append(
            f"{wrong:,} of {samples:,} samples are wrong; the 95% interval of the accuracy is {low:.1%} to {high:.1%}."
        )
    return sentences


def best_value(facts: Facts) -> float | None:
    """The monitored metric in the best epoch."""
    for row in facts.epochs:
        if row["epoch"] == facts.best_epoch:
            return number(row.get(facts.monitor))
    return None


def _total(facts: Facts) -> int | None:
    return None if facts.confusion is None else int(facts.confusion.sum())


def _baseline(facts: Facts) -> list[str]:
    """The same number for who looks at no input."""
    split = facts.split
    accuracy = facts.metric(f"{split}/accuracy")
    if facts.confusion is not None and accuracy is not None:
        counts = facts.confusion.sum(axis=1)
        share = counts.max() / counts.sum()
        name = facts.classes[int(counts.argmax())]
        low, high = interval(round(accuracy * counts.sum()), int(counts.sum()))
        judged = "better than" if low > share else "worse than" if high < share else "not distinguishable from"
        return [f"Always answering the most frequent class, {name}, would get {share:.1%}: the model is {judged} that."]
    r2 = facts.metric(f"{split}/r2")
    if r2 is not None:
        if r2 <= 0:
            return [f"R² is {r2:.3f}: the model is no better than always answering the mean."]
        return [f"It explains {r2:.1%} of the targets' variance; always answering the mean would explain none."]
    return []


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


def _calibration(facts: Facts) -> list[str]:
    found = reliability(facts.predictions) if facts.predictions is not None else None
    if found is None:
        return []
    filled = found.count > 0
    weight = found.count[filled] / found.count.sum()
    gap = float(np.sum(weight * (found.confidence - found.accuracy)[filled]))
    if found.error < 0.02:
        lean = "its probabilities can be taken at their word"
    elif abs(gap) < found.error / 2:
        lean = "too sure in places, too careful in others"
    else:
        lean = "on the whole too sure" if gap > 0 else "on the whole too careful"
    return [f"Expected calibration error {found.error:.1%}: {lean}."]
