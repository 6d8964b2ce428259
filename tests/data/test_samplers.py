"""The order of training samples: a function of (seed, epoch) alone, and what each sampler promises of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from trainkit import registry
from trainkit.data.checks import finish
from trainkit.data.dataset import Data
from trainkit.data.loaders import Normalize, ResidentLoader
from trainkit.data.samplers import balanced, contiguous, pairs, shuffled
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.errors import ConfigError
from trainkit.randomness import key

LABELS = np.repeat([0, 1, 2, 5], [500, 40, 7, 1])[np.random.default_rng(0).permutation(548)]
KNOWN = {"num_samples": len(LABELS), "strata": LABELS}


def order(name: str, seed: int = 0, **arguments: Any) -> Callable[[int], torch.Tensor]:
    found: Callable[[int], torch.Tensor] = registry.get("sampler", name).make({**KNOWN, "seed": seed}, arguments)
    return found


@pytest.mark.parametrize("name", registry.names("sampler"))
def test_a_function_of_seed_and_epoch(name: str) -> None:
    rows = order(name)
    later, first = rows(3), rows(0)  # whatever was asked before
    assert first.dtype == torch.int64 and first.device.type == "cpu" and first.ndim == 1
    assert int(first.min()) >= 0 and int(first.max()) < len(LABELS)
    assert len({len(rows(epoch)) for epoch in range(5)}) == 1
    again = order(name)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    assert torch.equal(again(0), first) and torch.equal(again(3), later)
    if name != "contiguous":
        assert not torch.equal(first, later)
        assert not torch.equal(first, order(name, seed=1)(0))


def test_shuffled_is_torchs_permutation_of_the_key() -> None:
    for seed, epoch in ((0, 0), (0, 3), (7, 1)):
        generator = torch.Generator().manual_seed(key(seed, "order", epoch))
        assert torch.equal(shuffled(1000, seed)(epoch), torch.randperm(1000, generator=generator))


def test_contiguous_is_the_order_of_the_data() -> None:
    assert torch.equal(contiguous(9)(0), torch.arange(9)) and torch.equal(contiguous(9)(4), torch.arange(9))


def test_balanced_draws_every_class_equally_often() -> None:
    rows = balanced(LABELS, 0)
    for epoch in range(3):
        drawn = rows(epoch).numpy()
        assert np.unique(LABELS[drawn], return_counts=True)[1].tolist() == [137] * 4
        assert len(drawn) == len(LABELS)
        assert np.bincount(drawn, minlength=len(LABELS))[LABELS == 5].tolist() == [137]
        for label in (0, 1, 2):  # all samples of a class before one comes again
            counts = np.bincount(drawn, minlength=len(LABELS))[label == LABELS]
            assert counts.max() - counts.min() <= 1
        assert np.abs(np.diff(np.flatnonzero(LABELS[drawn] == 1))).max() < 60  # mixed, not class by class
    seen = np.unique(np.concatenate([rows(epoch).numpy() for epoch in range(20)]))
    assert (LABELS[seen] == 0).sum() > 490  # of the many, every epoch draws others


def test_balanced_of_a_number_that_classes_do_not_divide() -> None:
    strata = np.array([0, 0, 0, 1, 1, 2, 2])
    assert np.bincount(strata[balanced(strata, 0)(0).numpy()]).tolist() == [3, 2, 2]


@pytest.mark.parametrize("same", [0.0, 0.5, 1.0])
def test_pairs(same: float) -> None:
    rows = pairs(LABELS, 0, same=same)
    first, partner = rows(0).numpy().reshape(-1, 2).T
    assert np.array_equal(np.sort(first), np.arange(len(LABELS)))
    alike = LABELS[first] == LABELS[partner]
    assert alike.mean() == same if same in (0.0, 1.0) else 0.4 < alike.mean() < 0.6
    if same < 1:  # the other class is any of the others, as often
        others = LABELS[partner[~alike & (LABELS[first] == 0)]]
        assert np.unique(others, return_counts=True)[1].min() > 0.2 * len(others)


@pytest.mark.parametrize(
    ("name", "strata"), [("balanced", None), ("pairs", None), ("pairs", np.zeros(9, dtype=np.int64))]
)
def test_samplers_that_need_classes(name: str, strata: Any) -> None:
    with pytest.raises(ConfigError, match=f"^sampler={name} needs .*: use sampler=shuffled$"):
        registry.get("sampler", name).make({"strata": strata, "seed": 0})


@pytest.mark.parametrize("name", registry.names("sampler"))
def test_a_loader_follows_it_and_goes_on_within_an_epoch(name: str) -> None:
    data = Data(
        "made", {"train": Split(np.zeros((548, 1), np.float32), LABELS)}, TargetSpec("classification", list("abcdef"))
    )
    finish(data)
    cpu, rows = torch.device("cpu"), order(name)
    loader = ResidentLoader(data.splits["train"], 60, Normalize(data.spec, cpu), cpu, order=rows)
    batches = list(loader.epoch(2))
    assert len(batches) == loader.steps_per_epoch
    assert torch.equal(torch.cat([batch.rows for batch in batches]), rows(2))
    assert torch.equal(torch.cat([batch.targets for batch in batches]), torch.from_numpy(LABELS)[rows(2)])  # type: ignore[misc]
    rest = list(loader.epoch(2, 4))
    assert [batch.rows.tolist() for batch in rest] == [batch.rows.tolist() for batch in batches[4:]]
    assert loader.samples(2, 5) == [str(row) for row in batches[5].rows.tolist()]


def test_the_command_chooses_one(trainkit_here: Callable[..., Any]) -> None:
    words = ["device=cpu", "device.threads=1", "epochs=1", "model=linear"]
    assert trainkit_here("train", "sampler=balanced", *words).code == 0
    refused = trainkit_here("train", "sampler=pairs", "dataset=diabetes", *words)
    assert refused.code == 2 and refused.err.startswith("trainkit: error: sampler=pairs needs two classes")
