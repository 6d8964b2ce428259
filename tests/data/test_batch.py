"""A batch is cut, copied and overwritten as a whole: inputs, targets and rows, one tensor or several by name."""

from __future__ import annotations

import pytest
import torch

from trainkit.data.batch import Batch, Tree, leaves, map_tree


def tree(count: int, names: tuple[str, ...], offset: float = 0.0) -> Tree:
    one = torch.arange(count * 2, dtype=torch.float32).view(count, 2) + offset
    return {name: one + i for i, name in enumerate(names)} if names else one


def batch(count: int, inputs: tuple[str, ...] = (), targets: tuple[str, ...] = (), offset: float = 0.0) -> Batch:
    return Batch(tree(count, inputs, offset), tree(count, targets, offset), torch.arange(count) + int(offset))


KINDS = pytest.mark.parametrize(
    ("inputs", "targets"), [((), ()), (("a", "b"), ()), ((), ("c",)), (("a", "b"), ("c", "d"))]
)


def equal(left: Batch, right: Batch) -> bool:
    pairs = list(zip(left.tensors(), right.tensors(), strict=True))
    return type(left.inputs) is type(right.inputs) and all(torch.equal(a, b) for a, b in pairs)


@KINDS
@pytest.mark.parametrize(
    ("count", "parts", "sizes"), [(8, 2, [4, 4]), (7, 3, [3, 3, 1]), (5, 4, [2, 2, 1]), (2, 5, [1, 1])]
)
def test_chunks_are_those_of_torch_and_hold_everything_once(
    count: int, parts: int, sizes: list[int], inputs: tuple[str, ...], targets: tuple[str, ...]
) -> None:
    whole = batch(count, inputs, targets)
    pieces = whole.chunk(parts)
    assert [len(piece) for piece in pieces] == sizes == [len(rows) for rows in whole.rows.chunk(parts)]
    for place, tensor in enumerate(whole.tensors()):
        assert torch.equal(torch.cat([piece.tensors()[place] for piece in pieces]), tensor)
        assert torch.equal(pieces[-1].tensors()[place], tensor.chunk(parts)[-1])
    for piece in pieces:
        assert type(piece.inputs) is type(whole.inputs) and type(piece.targets) is type(whole.targets)
        if isinstance(piece.inputs, dict):
            assert list(piece.inputs) == list(inputs)


@KINDS
def test_the_first_samples(inputs: tuple[str, ...], targets: tuple[str, ...]) -> None:
    whole = batch(6, inputs, targets)
    assert equal(whole.first(2), whole.chunk(3)[0])
    assert equal(whole.first(9), whole)


@KINDS
def test_copying_takes_over_every_number_in_place(inputs: tuple[str, ...], targets: tuple[str, ...]) -> None:
    kept, other = batch(4, inputs, targets), batch(4, inputs, targets, offset=100)
    places = [tensor.data_ptr() for tensor in kept.tensors()]
    assert not equal(kept, other)
    kept.copy_(other)
    assert equal(kept, other)
    assert [tensor.data_ptr() for tensor in kept.tensors()] == places
    other.rows.zero_()
    leaves(other.inputs)[0].zero_()
    assert not equal(kept, other)


@KINDS
def test_a_clone_shares_nothing(inputs: tuple[str, ...], targets: tuple[str, ...]) -> None:
    whole = batch(4, inputs, targets)
    clone = whole.clone()
    assert equal(clone, whole)
    for tensor in clone.tensors():
        tensor.add_(1)
    assert equal(whole, batch(4, inputs, targets))


def test_every_tensor_of_a_tree_is_changed() -> None:
    assert [int(t.sum()) for t in leaves(map_tree(lambda t: t * 0 + 1, tree(3, ("a", "b"))))] == [6, 6]
    assert torch.equal(leaves(map_tree(lambda t: t[:1], tree(3, ())))[0], tree(1, ()))
