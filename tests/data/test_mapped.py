"""A torch Dataset as a split: the same bits for any number of workers, whatever its transforms draw from."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, get_worker_info

from trainkit.data.adopt import adopt
from trainkit.data.batch import Batch
from trainkit.data.checks import finish
from trainkit.data.dataset import Data, hold_out, limit
from trainkit.data.loaders import Normalize, StreamingLoader, make_loader
from trainkit.data.mapped import Mapped
from trainkit.data.placement import place
from trainkit.data.samplers import shuffled
from trainkit.data.spec import TargetSpec
from trainkit.data.splits import Split
from trainkit.errors import CheckpointError, ConfigError, DataError, ResourceError

CPU = torch.device("cpu")
AB = TargetSpec("classification", ["a", "b"])
GOOD: list[Any] = [(torch.zeros(2), 1)]


class Noisy(Dataset[Any]):
    """Images with noise from all three global generators, as transforms draw it; counts what is asked of it."""

    def __init__(self, count: int = 23) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(3, 4, 4) + float(np.random.rand()) + random.random()  # noqa: NPY002
        return noise + 10 * row, row % 2


class Given(Dataset[Any]):
    """These samples."""

    def __init__(self, *samples: Any) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> Any:
        return self.samples[row]


def data(workers: int = 0, **splits: Any) -> Data:
    made = Data("made", splits or {"train": Noisy()}, AB)  # type: ignore[arg-type]
    return finish(place(made, "auto", workers, CPU))


def loader(found: Data, batch_size: int = 5, seed: int = 0, split: str = "train") -> StreamingLoader:
    made = make_loader(found, split, batch_size, Normalize(found.spec, CPU), CPU, seed=seed)
    assert isinstance(made, StreamingLoader)
    return made


def equal(left: list[Batch], right: list[Batch]) -> bool:
    pairs = [zip(a.tensors(), b.tensors(), strict=True) for a, b in zip(left, right, strict=True)]
    return all(torch.equal(x, y) for pair in pairs for x, y in pair)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_no_bit(workers: int) -> None:
    alone, helped = loader(data()), loader(data(workers))
    assert equal(list(alone.epoch(0)), list(helped.epoch(0)))
    assert equal(list(alone.epoch(3)), list(helped.epoch(3)))
    assert equal(list(alone), list(helped))


def test_samples_are_a_function_of_seed_epoch_and_row() -> None:
    first = {
        row: x for batch in loader(data()).epoch(0) for row, x in zip(batch.rows.tolist(), batch.inputs, strict=True)
    }
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    other = loader(data(), batch_size=7)  # in other batches, and after other draws
    again = {row: x for batch in other.epoch(0) for row, x in zip(batch.rows.tolist(), batch.inputs, strict=True)}
    assert all(torch.equal(first[row], again[row]) for row in range(23))
    later = {row: x for batch in other.epoch(1) for row, x in zip(batch.rows.tolist(), batch.inputs, strict=True)}
    seeded = loader(data(), seed=1).epoch(0)
    seeds = {row: x for batch in seeded for row, x in zip(batch.rows.tolist(), batch.inputs, strict=True)}
    noise = {row: x - 10 * row for row, x in first.items()}
    for row in range(23):
        assert not torch.equal(first[row], later[row]) and not torch.equal(first[row], seeds[row])
        assert float(noise[row].min()) >= 0 and float(noise[row].max()) < 3
    assert len({float(x[0, 0, 0]) for x in noise.values()}) == 23  # no two rows draw alike


def test_the_global_generators_are_left_alone() -> None:
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    mapped = Mapped(Noisy())
    list(mapped.batches([np.arange(9)], 0, 0))
    found = [float(np.random.rand()), random.random()]  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    assert found == [float(np.random.rand()), random.random()]  # noqa: NPY002


def test_an_evaluation_draws_the_same_each_time() -> None:
    found = loader(data())
    first = list(found)
    list(found.epoch(4))
    assert equal(first, list(found))
    assert torch.equal(torch.cat([batch.rows for batch in first]), torch.arange(23))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("skip", [1, 3])
def test_it_goes_on_within_an_epoch(workers: int, skip: int) -> None:
    whole = list(loader(data()).epoch(2))
    assert equal(list(loader(data(workers)).epoch(2, skip)), whole[skip:])
    assert len(list(loader(data(workers)).epoch(2, len(whole)))) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_that_is_broken_off_does_not_disturb_the_next(workers: int) -> None:
    whole, found = list(loader(data()).epoch(1)), loader(data(workers))
    for broken in (found.epoch(1), iter(found)):
        next(broken)
        del broken
    assert equal(list(found.epoch(1)), whole)


def test_it_follows_the_order_of_the_sampler() -> None:
    found = loader(data())
    rows = torch.cat([batch.rows for batch in found.epoch(0)])
    assert torch.equal(rows, shuffled(23, 0)(0))
    assert torch.equal(torch.cat([batch.targets for batch in found.epoch(0)]), rows % 2)


def test_it_is_held_out_and_cut_like_other_splits() -> None:
    found = place(Data("made", {"train": Noisy(100)}, AB), "auto", 0, CPU)  # type: ignore[dict-item]
    hold_out(found, "val", 0.1, 0)
    assert {name: len(split) for name, split in found.splits.items()} == {"train": 90, "val": 10}
    rows = [split.rows for split in found.splits.values() if isinstance(split, Mapped)]
    assert np.array_equal(np.sort(np.concatenate(rows)), np.arange(100))
    limit(found, 4, 0)
    assert [len(split) for split in found.splits.values()] == [4, 4]
    finish(found)
    (batch,) = loader(found, split="val")
    assert isinstance(batch.inputs, torch.Tensor) and isinstance(found.splits["val"], Mapped)
    kept = torch.from_numpy(found.splits["val"].rows)
    assert torch.equal(batch.targets, kept % 2) and torch.equal(batch.inputs.mean(dim=(1, 2, 3)).div(10).floor(), kept)


def test_samples_come_as_they_are_given() -> None:
    """Whoever writes transforms has normalized there."""
    spec = data().spec
    assert (spec.input.kind, spec.in_shape, spec.input.dtype, spec.input.normalize) == (
        "image",
        (3, 4, 4),
        "float32",
        False,
    )
    (batch,) = loader(data(train=Given((torch.tensor([1.5, -2.0]), 1), ([0.25, 8.0], np.int64(0)))), split="train")
    assert torch.equal(batch.inputs, torch.tensor([[1.5, -2.0], [0.25, 8.0]]))  # type: ignore[arg-type]
    assert torch.equal(batch.targets, torch.tensor([1, 0]))  # type: ignore[arg-type]


def test_beside_a_split_of_arrays() -> None:
    found = data(train=Noisy(), test=Split(np.zeros((2, 3, 4, 4), np.float32), np.array([0, 1])))
    assert [len(batch) for batch in loader(found, split="test")] == [2]


def test_several_inputs_by_name() -> None:
    samples = [({"a": torch.full((2,), i, dtype=torch.float32), "b": torch.tensor([i, i])}, i % 2) for i in range(6)]
    found = data(2, train=Given(*samples))
    assert {name: (one.kind, one.dtype) for name, one in found.spec.inputs.items()} == {
        "a": ("features", "float32"),
        "b": ("tokens", "int64"),
    }
    for batch in loader(found, 4).epoch(0):
        assert isinstance(batch.inputs, dict) and list(batch.inputs) == ["a", "b"]
        assert torch.equal(batch.inputs["a"][:, 0].long(), batch.rows)
        assert torch.equal(batch.inputs["b"], batch.rows[:, None].expand(-1, 2))


@pytest.mark.parametrize("name", ["x", "tokens"])
@pytest.mark.parametrize("read", ["in memory", "while training"])
def test_a_dict_of_one_is_that_one(name: str, read: str) -> None:
    """The specification could not tell it from a bare array, and so a model out of a checkpoint would get another."""
    x, y = np.ones((2, 3), np.float32), np.arange(2)
    rows = Given(*[({name: one}, {"label": label}) for one, label in zip(x, y, strict=True)])
    split: Any = Split({name: x}, {"label": y}) if read == "in memory" else rows
    found = finish(place(Data("made", {"train": split}, {"label": AB}), "auto", 0, CPU))
    (batch,) = make_loader(found, "train", 2, Normalize(found.spec, CPU), CPU)
    assert (list(found.spec.inputs), list(found.spec.targets)) == (["x"], ["y"])
    assert isinstance(batch.inputs, torch.Tensor) and isinstance(batch.targets, torch.Tensor)


def test_digests_tell_data_sets_apart() -> None:
    assert Mapped(Noisy()).digest() == Mapped(Noisy(), workers=2).digest()
    others = [Noisy(22), Given(*[(torch.zeros(3, 4, 4), 0)] * 23), Given(*[(torch.zeros(3, 4, 4), 1)] * 23)]
    found = [Mapped(Noisy()), *map(Mapped, others), Mapped(Noisy(), np.arange(22, -1, -1))]
    assert len({split.digest() for split in found}) == 5


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([torch.zeros(2)], "dataset Given: a sample is a Tensor; it must be a pair"),
        ([(torch.zeros(2), 1, 2)], "dataset Given: a sample is a tuple of 3; it must be a pair"),
        ([("text", 1)], "dataset Given: the input is a str; it must be a tensor, an array or a number"),
        ([(torch.zeros(2), None)], "dataset Given: the target is a NoneType; it must be"),
        ([({"a": torch.zeros(2), "b": object()}, 1)], "dataset Given: the input 'b' is a object; it must be"),
        ([], "Given: it holds no sample"),
        ([(torch.zeros(2), 1), (torch.zeros(3), 1)], r"samples of x have different shapes, \(2,\) and \(3,\): pad"),
        ([(torch.zeros(2), 1), torch.zeros(2)], "dataset Given: a sample is a Tensor; it must be a pair"),
        ([(torch.zeros(2, dtype=torch.float64), 1)], r"inputs are float64 \(2,\); they must be"),
        ([(torch.zeros(2), 1.5), (torch.zeros(2), 0.5)], "labels are float32"),
        ([(torch.zeros(2), 7), (torch.zeros(2), 0)], r"the label in row 0 is 7, outside 0\.\.1"),
        (GOOD * 20 + [(torch.zeros(2), 7)], r"^dataset made, train split: the label in row 20 is 7, outside 0\.\.1"),
        (GOOD * 20 + [(torch.zeros(2), -1)], r"^dataset made, train split: the label in row 20 is -1, outside 0"),
        (GOOD * 20 + [(torch.zeros(2), 0.5)], "^dataset made, train split: labels are float32"),
        ([({"a": 1, "b": 2}, 1), ({"a": 1, "c": 2}, 1)], "samples of x have different names, a, b and a, c: give"),
        ([({"a": 1, "b": 2}, 1), (1, 1)], "samples of x have different names, a, b and none: give"),
        ([({}, 1), (1, 1)], "samples of x have different names,  and none: give"),
    ],
)
def test_samples_that_are_none(samples: list[Any], message: str, workers: int) -> None:
    with pytest.raises(DataError, match=message) as error:
        list(loader(data(workers, train=Given(*samples))))
    assert "\n" not in str(error.value)


def test_a_label_is_named_by_its_row_of_the_data_set() -> None:
    """Whatever order it is read in, whatever part of the data set was held out."""
    found = data(train=Given(*GOOD * 70, (torch.zeros(2), 7), *GOOD * 29))
    hold_out(found, "val", 0.5, 0)
    with pytest.raises(DataError, match=r"^dataset made, train split: the label in row 70 is 7, outside 0\.\.1"):
        [list(loader(found, split=split).epoch(0)) for split in found.splits]


class Failing(Noisy):
    """Cannot give its last sample."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        if row == self.count - 1:
            raise RuntimeError("no such file")
        return super().__getitem__(row)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_data_set_raises_is_its_own(workers: int) -> None:
    with pytest.raises(RuntimeError, match="no such file") as error:
        list(loader(data(workers, train=Failing())))
    assert error.value.__notes__ == ["dataset Failing, asked for sample 22,"]


def test_classes_in_another_order_than_those_of_a_checkpoint(tmp_path: Path) -> None:
    other = dataclasses.replace(data().spec, targets={"y": TargetSpec("classification", ["b", "a"])})
    with pytest.raises(CheckpointError, match="dataset made is read with its classes in another order than '.*': b, a"):
        adopt(data(), other, tmp_path)


def test_regression_needs_a_row_of_numbers() -> None:
    """(N,) against (N, 1) would broadcast to (N, N) in the loss, and train on nonsense."""
    made = Data("made", {"train": Given((torch.zeros(2), 1.5), (torch.ones(2), 0.5))}, TargetSpec("regression"))  # type: ignore[dict-item]
    with pytest.raises(
        DataError, match=r"train split: regression targets are float32 \(2,\); they must be float32 .*\(N, 1\)"
    ):
        finish(made)


def test_what_cannot_be_standardized_is_said() -> None:
    target = TargetSpec("regression", standardize=True)
    made = Data("made", {"train": Given((torch.zeros(2), torch.ones(1)))}, target)  # type: ignore[dict-item]
    with pytest.raises(
        DataError, match="dataset made: .* read while training: give mean and std, or standardize=False"
    ):
        finish(made)
    pixels = Data("made", {"train": Given((torch.zeros(3, 4, 4, dtype=torch.uint8), 1))}, AB)  # type: ignore[dict-item]
    with pytest.raises(DataError, match="dataset made: .* read while training: give mean and std, or normalize=False"):
        finish(pixels)


class Deadly(Noisy):
    """Kills the worker that reads the last sample."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        if row == self.count - 1 and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


def test_a_killed_worker_is_one_error() -> None:
    with pytest.raises(
        ResourceError, match=r"^a worker that reads samples has ended \(.*\); if memory ran out, lower"
    ) as error:
        list(loader(data(1, train=Deadly())))
    assert "\n" not in str(error.value)


def test_it_cannot_be_resident() -> None:
    with pytest.raises(ConfigError, match="loader=resident: the data set is read while training"):
        place(Data("made", {"train": Noisy()}, AB), "resident", 0, CPU)  # type: ignore[dict-item]


@pytest.mark.parametrize("split", [([1], [2]), [(1, 2)], {"a": 1}, 5, iter([])])
def test_what_is_no_split(split: Any) -> None:
    with pytest.raises(
        DataError, match=r"its train split is a \w+; it must be a trainkit.data.splits.Split, or a torch Dataset with a"
    ):
        Data("made", {"train": split}, AB)
