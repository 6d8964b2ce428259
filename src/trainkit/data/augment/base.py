"""The contract of an augmentation: what happens to a training batch on its way to the model.

Nothing in it depends on what came before: a `Draw` holds all that a batch's changes may be a function of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from trainkit.data.batch import Batch, Tree

    Change = Callable[[Tensor, "Draw"], Tensor]
    Mix = Callable[[Tensor, Tensor, "Draw"], tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True)
class Draw:
    """What the changes of one batch may depend on.

    generator: on the batch's device, keyed by (seed, step). index: int64 (N,), the samples' positions in the split.
    """

    seed: int
    epoch: int
    index: Tensor
    generator: Generator


@dataclasses.dataclass(frozen=True)
class Augment:
    """The changes of a training batch, in their order.

    pixels: on images (N, C, H, W), uint8 or float32 in 0..255. normalized: on what `normalize` makes of them, where 0
    is the training mean; they may work in place. mix: last, on inputs and targets; it returns soft targets (N, C).
    input: the name of the images, where a sample has several inputs; None: the first.
    """

    pixels: tuple[Change, ...] = ()
    normalized: tuple[Change, ...] = ()
    mix: Mix | None = None
    input: str | None = None

    def __call__(self, batch: Batch, normalize: Callable[[Tree], Tree], draw: Draw) -> Batch:
        """The batch as the model and the loss take it."""
        inputs = normalize(self._changed(self.pixels, batch.inputs, draw))
        inputs = self._changed(self.normalized, inputs, draw)
        if self.mix is None:
            return dataclasses.replace(batch, inputs=inputs)
        images, targets = self.mix(self._images(inputs), batch.targets, draw)  # type: ignore[arg-type]
        return dataclasses.replace(batch, inputs=self._with(inputs, images), targets=targets)

    def _changed(self, changes: Sequence[Change], inputs: Tree, draw: Draw) -> Tree:
        images = self._images(inputs)
        for change in changes:
            images = change(images, draw)
        return self._with(inputs, images)

    def _images(self, inputs: Tree) -> Tensor:
        return inputs[self.input or next(iter(inputs))] if isinstance(inputs, dict) else inputs

    def _with(self, inputs: Tree, images: Tensor) -> Tree:
        return {**inputs, self.input or next(iter(inputs)): images} if isinstance(inputs, dict) else images
