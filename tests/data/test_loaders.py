"""Batches: every sample once, in the order of (seed, epoch), normalized; augmentation a function of (seed, step)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trainkit import registry
from trainkit.data.checks import complete, finish
from trainkit.data.dataset import Data, hold_out
from trainkit.data.loaders import Normalize, ResidentLoader
from trainkit.data.spec import DataSpec, TargetSpec
from trainkit.data.splits import Split, input_stats, split_indices
from trainkit.errors import DataError

CPU = torch.device("cpu")


def images(count: int = 21, size: int = 6) -> Data:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    labels = np.arange(count) % 3
    return finish(Data("made", {"train": Split(pixels, labels)}, TargetSpec("classification", ["a", "b", "c"])))


def loader(data: Data, batch_size: int, **options: object) -> ResidentLoader:
    return ResidentLoader(data.splits["train"], batch_size, Normalize(data.spec, CPU), CPU, **options)  # type: ignore[arg-type]


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    data = images()
    index = torch.arange(21)
    data.splits["train"].targets = index.numpy()
    first = torch.cat([batch.targets for batch in loader(data, 4).epoch(0)])
    assert sorted(first.tolist()) == index.tolist()
    other_batches = torch.cat([batch.targets for batch in loader(data, 5).epoch(0)])
    assert torch.equal(first, other_batches)
    assert not torch.equal(first, torch.cat([batch.targets for batch in loader(data, 4).epoch(1)]))
    assert not torch.equal(first, torch.cat([batch.targets for batch in loader(data, 4, seed=1).epoch(0)]))


@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(4, [4, 4, 4, 4, 5]), (5, [5, 5, 5, 6]), (6, [6, 6, 6, 3]), (21, [21]), (50, [21])]
)
def test_a_lone_last_sample_joins_the_batch_before_it(batch_size: int, sizes: list[int]) -> None:
    batches = loader(images(), batch_size)
    assert [len(batch) for batch in batches.epoch(0)] == sizes
    assert batches.steps_per_epoch == len(sizes)
    assert sum(len(batch) for batch in batches) == 21


def test_batches_of_one_stay_batches_of_one() -> None:
    assert [len(batch) for batch in loader(images(3), 1).epoch(0)] == [1, 1, 1]


def test_normalized_training_inputs_have_mean_0_and_std_1() -> None:
    batch, *rest = loader(images(), 50)
    assert not rest
    inputs = batch.inputs
    assert isinstance(inputs, torch.Tensor)
    assert inputs.dtype == torch.float32
    assert torch.allclose(inputs.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(inputs.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_augmentation_is_a_function_of_seed_and_step() -> None:
    augment = registry.get("augment", "image").build((3, 6, 6), 3, flip=0.5, padding=4)
    batches = loader(images(), 4, augment=augment)
    first = [batch.inputs for batch in batches.epoch(0)]
    again = [batch.inputs for batch in batches.epoch(0)]
    rest = [batch.inputs for batch in batches.epoch(0, 3)]
    later = [batch.inputs for batch in batches.epoch(1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[3:], rest, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, later, strict=True))


def test_split_indices_are_stratified_disjoint_and_fixed() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 50, 9, 1])
    kept, held = split_indices(labels, 160, 0.1, 0, "val")
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(160))
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 5, 1, 0]
    assert np.array_equal(held, split_indices(labels, 160, 0.1, 0, "val")[1])
    assert not np.array_equal(held, split_indices(labels, 160, 0.1, 1, "val")[1])
    assert not np.array_equal(held, split_indices(labels, 160, 0.1, 0, "test")[1])


def test_too_few_samples_to_hold_out() -> None:
    with pytest.raises(DataError, match=r"3 samples are too few to hold out 0\.1 as val"):
        hold_out(images(3), "val", 0.1, 0)


def test_targets_that_are_no_rows_have_no_statistics() -> None:
    """A checkpoint holds lists of numbers, and could not be read with any other."""
    split = Split(np.zeros((4, 3), np.float32), np.ones((4, 2, 2), np.float32))
    data = Data("made", {"train": split}, TargetSpec("regression"))
    complete(data)
    assert DataSpec.from_json(json.loads(json.dumps(data.spec.to_json())), Path("x")) == data.spec
    with pytest.raises(DataError, match=r"targets \(4, 2, 2\) are no rows"):
        complete(Data("made", {"train": split}, TargetSpec("regression", standardize=True)))


def test_input_stats_of_pixels_are_exact() -> None:
    pixels = images(500, 20).splits["train"].inputs
    mean, std = input_stats(pixels)
    assert np.allclose(mean, (pixels / 255).mean(axis=(0, 2, 3)), rtol=1e-6)
    assert np.allclose(std, (pixels / 255).std(axis=(0, 2, 3)), rtol=1e-6)
