"""Which samples of the train split judge the training: the ways to hold out `val`, as config chooses them.

A builder may ask for `val_fraction` and `split_seed`, and returns a `Holdout`, which chooses the rows. All are
functions of the data and the seed alone: `eval` finds the same samples again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from trainkit.data.dataset import Data, set_apart, strata_of
from trainkit.data.splits import Split, split_indices
from trainkit.errors import ConfigError, DataError
from trainkit.randomness import numpy_generator
from trainkit.registry import register
from trainkit.schema import NonNegativeInt, Range

if TYPE_CHECKING:
    from trainkit.data.splits import Array

Folds = Annotated[int, Range(ge=2)]


@dataclasses.dataclass(frozen=True)
class Holdout:
    """choose: of the train split and its strata (N,) or None, the rows that are held out; None: leave it as it is.

    given: whether a val split that the data set has by itself is taken instead. fold: the number of the fold, where
    each sample is held out once.
    """

    choose: Callable[[Split, Array | None], Array] | None
    given: bool = True
    fold: int | None = None


def hold_out_val(data: Data, holdout: Holdout) -> None:
    """Move what is held out of the train split to a new split, `val`.

    Raises DataError when the data set has a val split where none may be, or either part would be empty.
    """
    import numpy as np

    if "val" in data.splits:
        if holdout.given:
            return
        raise DataError(
            f"dataset {data.name} has a val split of its own: use holdout=given, or put its samples into train"
        )
    if holdout.choose is None:
        return
    train = data.splits["train"]
    held = np.sort(holdout.choose(train, strata_of(train, data.spec)))
    set_apart(data, "val", held, "some")
    if holdout.fold is not None:
        data.fold, data.held = holdout.fold, held


@register("holdout")
def random(val_fraction: float, split_seed: int) -> Holdout:
    """A random share, `val_fraction`, of each class."""

    def choose(train: Split, strata: Array | None) -> Array:
        return split_indices(strata, len(train), val_fraction, split_seed, "val")[1]

    return Holdout(choose if val_fraction else None)


@register("holdout")
def given() -> Holdout:
    """The val split that the data set has by itself, or none."""
    return Holdout(None)


@register("holdout")
def kfold(split_seed: int, *, folds: Folds = 5, fold: NonNegativeInt = 0) -> Holdout:
    """One of several folds, each sample in exactly one.

    The sizes of the folds, and their shares of each class, differ by one sample at most. Raises ConfigError for a fold
    that is not there, DataError for fewer samples than folds, and for a class of a single sample.
    """
    _refuse_fold(fold, folds)

    def choose(train: Split, strata: Array | None) -> Array:
        import numpy as np

        if len(train) < folds:
            raise DataError(f"holdout.folds={folds}: there are only {len(train)} samples")
        rows = numpy_generator(split_seed, "folds").permutation(len(train))
        if strata is not None:
            _, counts = np.unique(strata, return_counts=True)
            if counts.min() < 2:
                single = int((counts < 2).sum())
                many = "1 class has" if single == 1 else f"{single} classes have"
                raise DataError(f"holdout=kfold: {many} a single sample, which a fold would hold out; add some")
            rows = rows[np.argsort(strata[rows], kind="stable")]
        chosen: Array = rows[fold::folds]  # in order of their class, so that each fold gets its share
        return chosen

    return Holdout(choose, given=False, fold=fold)


@register("holdout")
def grouped(
    val_fraction: float, split_seed: int, *, pattern: str, folds: Folds | None = None, fold: NonNegativeInt = 0
) -> Holdout:
    """Groups that stay together: all photos of a patient, a site, a video.

    pattern: a regular expression that finds the group in `<folder>/<name>` of a file, its first part in parentheses
    where it has one. folds: so many folds of whole groups, about equally large; null: `val_fraction` of the samples,
    as near as whole groups come to it. Raises ConfigError for a pattern that is none, DataError where it does not find
    something in every name, or finds fewer groups than are needed.
    """
    if folds is not None:
        _refuse_fold(fold, folds)
    expression = _compiled(pattern)

    def choose(train: Split, strata: Array | None) -> Array:
        import numpy as np

        names, group_of = np.unique(_marks(train, expression), return_inverse=True)
        least = folds or 2
        if len(names) < least:
            raise DataError(f"holdout=grouped: the pattern finds {len(names)} groups ({names[0]}), {least} are needed")
        sizes = np.bincount(group_of)
        order = numpy_generator(split_seed, "groups").permutation(len(names))
        if folds is None:
            held = _nearest(order, sizes, val_fraction * len(train))
        else:
            held = [group for group, place in _balanced(order, sizes, folds).items() if place == fold]
        return np.flatnonzero(np.isin(group_of, held))

    return Holdout(choose, given=False, fold=fold if folds is not None else None)


def _nearest(order: Array, sizes: Array, wanted: float) -> list[int]:
    """Groups in this order, as long as they bring the number of samples nearer to what is wanted; at least one."""
    held: list[int] = []
    count = 0
    for group in order[:-1].tolist():
        if not held or abs(count + sizes[group] - wanted) < abs(count - wanted):
            held.append(group)
            count += int(sizes[group])
    return held


def _balanced(order: Array, sizes: Array, folds: int) -> dict[int, int]:
    """The fold of each group: the largest groups first, each into the fold that is smallest by then."""
    filled = [0] * folds
    places = {}
    for group in sorted(order.tolist(), key=lambda group: -sizes[group]):
        places[group] = min(range(folds), key=filled.__getitem__)
        filled[places[group]] += int(sizes[group])
    return places


@register("holdout")
def time(val_fraction: float, *, pattern: str) -> Holdout:
    """The latest samples.

    pattern: a regular expression that finds the time in `<folder>/<name>` of a file, its first part in parentheses
    where it has one; it is compared as a number where all are, else as text, as in 2024-05-01. About `val_fraction` of
    the samples are held out, and samples of one time stay together. Raises as `grouped`.
    """
    expression = _compiled(pattern)

    def choose(train: Split, strata: Array | None) -> Array:
        import numpy as np

        marks = _marks(train, expression)
        with contextlib.suppress(ValueError):
            marks = marks.astype(np.float64)
        times, counts = np.unique(marks, return_counts=True)
        if len(times) < 2:
            raise DataError(f"holdout=time: all samples are of one time, {times[0]}")
        after = len(train) - np.cumsum(counts)[:-1]  # how many samples are later than each time but the last
        first = int(np.argmin(np.abs(after - val_fraction * len(train))))
        return np.flatnonzero(marks > times[first])

    return Holdout(choose if val_fraction else None, given=False)


def _refuse_fold(fold: int, folds: int) -> None:
    if fold >= folds:
        raise ConfigError(f"holdout.fold={fold}: of holdout.folds={folds} the last one is {folds - 1}")


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"holdout.pattern={pattern}: not a regular expression ({error})") from error


def _marks(train: Split, expression: re.Pattern[str]) -> Any:
    """What the pattern finds in the name of each sample: text (N,). Raises DataError where it finds nothing."""
    import numpy as np

    if train.names is None:
        raise DataError("holdout.pattern looks into the names of files, and these samples have none")
    found = []
    for name in map(str, train.names):
        shown = os.path.join(os.path.basename(os.path.dirname(name)), os.path.basename(name))
        match = expression.search(shown)
        if match is None:
            raise DataError(f"holdout.pattern={expression.pattern} finds nothing in {shown}")
        found.append(match[1] if expression.groups else match[0])
    return np.array(found)
