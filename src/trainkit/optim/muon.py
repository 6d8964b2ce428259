"""Muon for the hidden weights of a model and AdamW for the rest, as one optimizer.

Method: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks",
https://kellerjordan.github.io/posts/muon/ (code: github.com/KellerJordan/Muon). The steps themselves are
`torch.optim.Muon` and `torch.optim.AdamW`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainkit.optim.step import bare_step

NamedParams = list[tuple[str, nn.Parameter]]


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on hidden weight matrices and convolution kernels, AdamW on biases, norms and the output layer.

    A kernel (out, in, h, w) counts as the matrix (out, in * h * w). The output layer is the last weight in the order
    of `named_params`. There is a parameter group for each of the two (only AdamW's when no weight is hidden), each
    with its own `lr`. The state lies under the model's own parameters: `momentum_buffer` (out, rest) for Muon, and
    `step`, `exp_avg` and `exp_avg_sq` for AdamW.

    muon, adamw: settings for the two torch classes.
    """

    def __init__(self, named_params: NamedParams, muon: dict[str, Any], adamw: dict[str, Any]) -> None:
        weights = [name for name, param in named_params if param.ndim >= 2]
        hidden = [(name, param) for name, param in named_params if name in weights[:-1]]
        rest = [(name, param) for name, param in named_params if name not in weights[:-1]]
        # The inner optimizers get their parameters at each step; torch wants one to build them with.
        inner = [
            (torch.optim.Muon([torch.zeros(1, 1)], **muon), hidden),
            (torch.optim.AdamW([torch.zeros(1)], **adamw), rest),
        ]
        used = [(optimizer, params) for optimizer, params in inner if params]
        self._muon, self._adamw = (optimizer for optimizer, _ in inner)
        super().__init__([{"params": params, **optimizer.defaults} for optimizer, params in used], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both; returns what `closure` returns, None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if "ns_steps" in group:
                self._step_matrices(self._muon, group)
            else:
                self._adamw.param_groups, self._adamw.state = [group], self.state
                bare_step(self._adamw)()
        return loss

    def _step_matrices(self, optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> None:
        matrices: dict[nn.Parameter, torch.Tensor] = {}
        for param in group["params"]:
            if param.grad is not None:
                matrices[param] = param.detach().flatten(1)
                matrices[param].grad = param.grad.flatten(1)
        optimizer.param_groups = [{**group, "params": list(matrices.values())}]
        # The matrices share the dicts of the parameters, so what Muon puts there is our state.
        optimizer.state = defaultdict(dict, {matrix: self.state[param] for param, matrix in matrices.items()})
        bare_step(optimizer)()
        for param, matrix in matrices.items():
            if matrix.data_ptr() != param.data_ptr():  # channels_last kernels flatten to a copy, not to a view
                param.copy_(matrix.view_as(param))
