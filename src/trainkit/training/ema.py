"""Exponential moving average of the weights (Polyak & Juditsky 1992), which is what is evaluated when it is kept."""

from __future__ import annotations

import copy

import torch
from torch import nn

from trainkit.checkpoints.checkpoint import repeated


class Ema:
    """A copy of the model whose parameters and floating-point buffers follow the model's: e += (1 - decay) * (m - e).

    While fewer than about 10 / (1 - decay) steps are done, the decay is (1 + step) / (10 + step) instead, so that the
    initial weights are soon forgotten (as in TensorFlow's ExponentialMovingAverage). Integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False)
        mine, theirs = self.model.state_dict(), model.state_dict()
        again = repeated(mine)  # what has two names would move twice in a step
        pairs = [(mine[name], theirs[name]) for name in mine if name not in again]
        self._averages = [mine for mine, _ in pairs if mine.is_floating_point()]
        self._sources = [theirs for mine, theirs in pairs if mine.is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After the optimizer's step of this 0-based number."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, weight)
        for mine, theirs in self._copied:
            mine.copy_(theirs)
