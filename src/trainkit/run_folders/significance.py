"""Whether two groups of runs can be told apart: by their seeds, or by their predictions on the same samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainkit.run_folders.groups import Group, best
from trainkit.run_folders.records import Record
from trainkit.statistics import LEVEL, Difference, holm, mcnemar, welch

if TYPE_CHECKING:
    from trainkit.run_folders.predictions import Predictions


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


def compare(groups: Sequence[Group], metric: str) -> list[Comparison]:
    """The group that is best in a metric (the first, if several are) against each other one."""
    first = (best(groups, metric) or list(groups))[0]
    found = [Comparison(first, other) for other in groups if other is not first]
    for one in found:
        try:
            one.test, one.difference = _test(one.best, one.other, metric)
        except NotComparable as reason:
            one.reason = str(reason)
    tested = [one for one in found if one.difference is not None]
    p_values = [one.difference.p for one in tested if one.difference is not None]
    for one, adjusted in zip(tested, holm(p_values), strict=True):
        one.adjusted_p = adjusted
    return found


def _test(a: Group, b: Group, metric: str) -> tuple[str, Difference]:
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
    return paired(a, b, metric)


def paired(a: Group, b: Group, metric: str) -> tuple[str, Difference]:
    """A test on the predictions of two single runs for the same samples. Raises NotComparable when there is none."""
    split, _, name = metric.partition("/")
    ours, theirs = _same_samples(a.records[0], b.records[0], split)
    right, also = (ours.task.right(one.kept, name) for one in (ours, theirs))
    if right is None or also is None:
        found = ours.task.difference(ours.kept, theirs.kept, name)
        if found is None:
            raise NotComparable(f"there is no paired test of {metric}; give two or more seeds of both")
        return found
    only_a, only_b = int((right & ~also).sum()), int((also & ~right).sum())
    difference = Difference((only_b - only_a) / len(right), mcnemar(only_a, only_b))
    test = f"McNemar's test: of {len(right):,} samples {only_a} are right in {a.name} only, {only_b} in {b.name} only"
    return test, difference


def _same_samples(a: Record, b: Record, split: str) -> tuple[Predictions, Predictions]:
    """The predictions of both runs, certain to be for the same samples in the same order."""
    keys = [key for key in {**a.config, **b.config} if key == "dataset" or key.startswith("dataset.")]
    keys += ["split_seed", *(["val_fraction"] if split != "test" else [])]
    _refuse_difference(a.config, b.config, keys, "predictions of different data cannot be paired")
    found = [_predictions(record, split) for record in (a, b)]
    a_targets, b_targets = (one.kept["targets"] for one in found)
    if found[0].target.task != found[1].target.task or a_targets.shape != b_targets.shape:
        raise NotComparable("the predictions cannot be paired: they are for different numbers of samples or targets")
    # real numbers may come back from standardized ones, which rounds
    tolerance = 1e-5 * abs(a_targets).max() if a_targets.dtype.kind == "f" else 0
    if abs(a_targets.astype("float64") - b_targets).max() > tolerance:
        raise NotComparable("the predictions cannot be paired: the targets of the samples differ")
    return found[0], found[1]


def _refuse_difference(a: dict[str, Any], b: dict[str, Any], keys: Sequence[str], why: str) -> None:
    for key in keys:
        if a.get(key) != b.get(key):
            raise NotComparable(f"{why}: {key} differs")


def _predictions(record: Record, split: str) -> Predictions:
    from trainkit.run_folders.predictions import read  # which imports NumPy

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
