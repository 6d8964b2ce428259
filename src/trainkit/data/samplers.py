"""The order of training samples: rows of the train split for each epoch, a function of (seed, epoch) alone.

A builder may ask for `num_samples`, for `strata`, an array (N,) of what each sample is counted as (its class), and for
the `seed`. It returns a function of the 0-based epoch that gives rows, int64 on the CPU, as many in every epoch. It
keeps no state: a resumed run asks for the same epoch again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError
from trainkit.randomness import numpy_generator, permutation
from trainkit.registry import register
from trainkit.schema import Probability

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Order = Callable[[int], Tensor]


@register("sampler")
def shuffled(num_samples: int, seed: int) -> Order:
    """Every sample once, in a new random order."""
    return lambda epoch: permutation(num_samples, seed, epoch)


@register("sampler")
def contiguous(num_samples: int) -> Order:
    """Every sample once, in the order of the data set, which is the same in every epoch."""
    import torch

    rows = torch.arange(num_samples)
    return lambda epoch: rows


@register("sampler")
def balanced(strata: NDArray[Any] | None, seed: int) -> Order:
    """As many draws as there are samples, each class equally often.

    Of a class all samples come before one comes again, in an order that is new in every epoch. Raises ConfigError for
    targets without classes.
    """
    import numpy as np
    import torch

    if strata is None:
        raise ConfigError("sampler=balanced needs classes, one for each sample: use sampler=shuffled")
    _, members = _members(strata)
    size = len(strata)
    share = [size // len(members) + (i < size % len(members)) for i in range(len(members))]

    def rows(epoch: int) -> Tensor:
        generator = numpy_generator(seed, "balanced", epoch)
        drawn = []
        for rows_of_class, count in zip(members, share, strict=True):
            rounds = -(-count // len(rows_of_class))
            drawn.append(np.concatenate([generator.permutation(rows_of_class) for _ in range(rounds)])[:count])
        return torch.from_numpy(generator.permutation(np.concatenate(drawn)))

    return rows


@register("sampler")
def pairs(strata: NDArray[Any] | None, seed: int, *, same: Probability = 0.5) -> Order:
    """Every sample once at an even place, in a new random order, with a partner at the odd place behind it.

    The partner is of the same class with the probability `same`, else of another one; batch_size should be even. Raises
    ConfigError for targets without two classes.
    """
    import numpy as np
    import torch

    which, members = _members(strata) if strata is not None else (np.empty(0), [])
    if len(members) < 2:
        raise ConfigError("sampler=pairs needs two classes or more, one for each sample: use sampler=shuffled")

    def rows(epoch: int) -> Tensor:
        generator = numpy_generator(seed, "pairs", epoch)
        first = generator.permutation(len(which))
        alike = generator.random(len(which)) < same
        other = (which[first] + generator.integers(1, len(members), len(which))) % len(members)
        kind = np.where(alike, which[first], other)
        places = generator.random(len(which))
        sizes = np.array([len(rows_of_class) for rows_of_class in members])
        starts = np.cumsum(sizes) - sizes
        partner = np.concatenate(members)[starts[kind] + (places * sizes[kind]).astype(np.int64)]
        return torch.from_numpy(np.stack([first, partner], axis=1).reshape(-1))

    return rows


def _members(strata: NDArray[Any]) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """The number of each sample's class, and the rows of each class."""
    import numpy as np

    _, which, counts = np.unique(strata, return_inverse=True, return_counts=True)
    order = np.argsort(which, kind="stable")
    return which, np.split(order, np.cumsum(counts)[:-1])
