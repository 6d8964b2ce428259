"""Whether two groups of runs can be told apart: by their seeds, or by their predictions on the same samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from trainkit.run_folders.groups import Group, best
from trainkit.run_folders.records import Record
from trainkit.statistics import LEVEL, Difference, bootstrap_rmse, holm, mcnemar, welch


class Predictions(Protocol):
    """What a run answered on a split, as NumPy arrays; see `report.answers`."""

    @property
    def split(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def targets(self) -> Any: ...
    @property
    def predicted(self) -> Any: ...
    @property
    def outputs(self) -> Any: ...


class Read(Protocol):
    """Reads a run folder's predictions: None where there are none, ValueError where the file is damaged."""

    def __call__(self, folder: Path, /) -> Predictions | None: ...


class NotComparable(Exception):
    """Why two groups were not tested; the message is for the user."""


@dataclasses.dataclass
class Comparison:
    """The best group against another one: the difference other - best, and p as it is and adjusted for how many tests.

    test: what was done. reason: why nothing was, if so; then there is no p.
    """

    best: Group
    other: Group
    test: str = ""
    difference: Difference | None = None
    adjusted_p: float | None = None
    reason: str = ""

    @property
    def distinguishable(self) -> bool | None:
        return None if self.adjusted_p is None else self.adjusted_p < 1 - LEVEL


def compare(groups: Sequence[Group], metric: str, read: Read) -> list[Comparison]:
    """The group that is best in a metric (the first, if several are) against each other one."""
    first = (best(groups, metric) or list(groups))[0]
    found = [Comparison(first, other) for other in groups if other is not first]
    for one in found:
        try:
            one.test, one.difference = _test(one.best, one.other, metric, read)
        except NotComparable as reason:
            one.reason = str(reason)
    tested = [one for one in found if one.difference is not None]
    p_values = [one.difference.p for one in tested if one.difference is not None]
    for one, adjusted in zip(tested, holm(p_values), strict=True):
        one.adjusted_p = adjusted
    return found


def _test(a: Group, b: Group, metric: str, read: Read) -> tuple[str, Difference]:
    if metric.endswith("/loss"):
        keys = [key for key in a.config if key.split(".")[0] == "loss"]
        _refuse_difference(a.config, b.config, keys, "different losses are different units")
    counts = [len(group.values(metric)) for group in (a, b)]
    if min(counts) >= 2:
        difference = welch(a.values(metric), b.values(metric))
        if difference is None:
            raise NotComparable("every seed gave the same number, so there is no spread to judge by")
        return f"Welch's t-test on {counts[0]} and {counts[1]} seeds", difference
    if max(counts) > 1:
        lone = a if counts[0] == 1 else b
        raise NotComparable(f"{lone.name} is a single run: give two or more seeds of both, or one run of each")
    return paired(a, b, metric, read)


def paired(a: Group, b: Group, metric: str, read: Read) -> tuple[str, Difference]:
    """A test on the predictions of two single runs for the same samples. Raises NotComparable when there is none."""
    split, _, name = metric.partition("/")
    ours, theirs = _same_samples(a.records[0], b.records[0], split, read)
    if ours.task == "regression" and name == "rmse":
        errors = [(found.outputs.astype("float64") - found.targets) ** 2 for found in (ours, theirs)]
        return f"paired bootstrap on {len(ours.targets):,} samples", bootstrap_rmse(*errors)
    if name != "accuracy":
        raise NotComparable(f"there is no paired test of {metric}; give two or more seeds of both")
    right, also = _right(ours), _right(theirs)
    only_a, only_b = int((right & ~also).sum()), int((also & ~right).sum())
    difference = Difference((only_b - only_a) / len(right), mcnemar(only_a, only_b))
    test = f"McNemar's test: of {len(right):,} samples {only_a} are right in {a.name} only, {only_b} in {b.name} only"
    return test, difference


def _same_samples(a: Record, b: Record, split: str, read: Read) -> tuple[Predictions, Predictions]:
    """The predictions of both runs, certain to be for the same samples in the same order."""
    keys = [key for key in {**a.config, **b.config} if key == "dataset" or key.startswith("dataset.")]
    keys += ["split_seed", *(["val_fraction"] if split != "test" else [])]
    _refuse_difference(a.config, b.config, keys, "predictions of different data cannot be paired")
    found = [_predictions(record, split, read) for record in (a, b)]
    targets = [one.targets for one in found]
    if found[0].task != found[1].task or targets[0].shape != targets[1].shape:
        raise NotComparable("the predictions cannot be paired: they are for different numbers of samples or targets")
    # in regression the targets come back from standardised ones, which rounds
    tolerance = 1e-5 * (abs(targets[0]).max() if found[0].task == "regression" else 0)
    if abs(targets[0] - targets[1]).max() > tolerance:
        raise NotComparable("the predictions cannot be paired: the targets of the samples differ")
    return found[0], found[1]


def _refuse_difference(a: dict[str, Any], b: dict[str, Any], keys: Sequence[str], why: str) -> None:
    for key in keys:
        if a.get(key) != b.get(key):
            raise NotComparable(f"{why}: {key} differs")


def _predictions(record: Record, split: str, read: Read) -> Predictions:
    try:
        found = read(record.path)
    except ValueError as error:
        raise NotComparable(f"the predictions.npz of {record.id} is damaged ({error})") from error
    if found is None:
        hint = f"trainkit eval ckpt={record.path} writes one" if record.verb == "train" else "evaluate it again"
        raise NotComparable(f"{record.id} has no predictions.npz: {hint}")
    if found.split != split:
        raise NotComparable(f"the predictions of {record.id} are for {found.split}, not for {split}")
    return found


def _right(found: Predictions) -> Any:
    """Which samples are predicted rightly, all labels of them where there are several: (N,)."""
    if found.task == "multilabel":
        return ((found.outputs > 0) == (found.targets > 0.5)).all(axis=1)
    return found.predicted == found.targets
