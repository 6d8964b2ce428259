"""A batch of samples: inputs for the model, targets for the loss, and which samples they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

Tree = torch.Tensor | dict[str, torch.Tensor]  # of one input or target, or of several by name


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """inputs, targets: as the model and the loss take them, (N, …) each. rows: int64 (N,), positions in the split."""

    inputs: Tree
    targets: Tree
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def chunk(self, parts: int) -> list[Batch]:
        """The batch in at most so many parts, as `torch.chunk` cuts them."""
        rows = self.rows.chunk(parts)
        pairs = zip(_chunk(self.inputs, parts), _chunk(self.targets, parts), rows, strict=True)
        return [Batch(*part) for part in pairs]

    def first(self, count: int) -> Batch:
        """Its first samples."""
        inputs, targets = (map_tree(lambda tensor: tensor[:count], tree) for tree in (self.inputs, self.targets))
        return Batch(inputs, targets, self.rows[:count])

    def clone(self) -> Batch:
        return Batch(map_tree(torch.clone, self.inputs), map_tree(torch.clone, self.targets), self.rows.clone())

    def copy_(self, other: Batch) -> None:
        """Take over the numbers of a batch of the same shapes, in place, as a CUDA graph reads them."""
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(theirs)

    def tensors(self) -> list[torch.Tensor]:
        """All tensors, in a fixed order."""
        return [*leaves(self.inputs), *leaves(self.targets), self.rows]


def leaves(tree: Tree) -> list[torch.Tensor]:
    """The tensors of a tree."""
    return list(tree.values()) if isinstance(tree, dict) else [tree]


def map_tree(change: Callable[[torch.Tensor], torch.Tensor], tree: Tree) -> Tree:
    """A tree with every tensor changed."""
    return {name: change(tensor) for name, tensor in tree.items()} if isinstance(tree, dict) else change(tree)


def _chunk(tree: Tree, parts: int) -> list[Tree]:
    if not isinstance(tree, dict):
        return list(tree.chunk(parts))
    pieces = {name: tensor.chunk(parts) for name, tensor in tree.items()}
    return [{name: piece[i] for name, piece in pieces.items()} for i in range(len(next(iter(pieces.values()))))]
