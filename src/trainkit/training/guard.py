"""The guard against numbers that are not finite: no such gradient reaches a weight, and finding it costs no wait.

One fused kernel looks at all gradients of a step (torch's own, of GradScaler). On the CPU the answer is there at once.
On a GPU it stays on the device: the fused optimizers read it there and leave the weights alone, and the host learns of
it at the next log point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from trainkit.errors import ConfigError


class Guard:
    """Watches the loss and the gradients of every step; `scaled` steps are left to their GradScaler, which does so too.

    policy: `stop` at the first bad step, or `skip` it: weights, buffers and optimizer stay as they were. `bad` counts
    bad steps, `steps` all, and `first` is the 0-based number of the first bad one: int64 (1,) on the device.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        policy: str,
        *,
        scaled: bool = False,
    ) -> None:
        self.policy = policy
        self.on_host = device.type == "cpu"
        self._in_optimizer = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        if policy == "skip" and isinstance(optimizer, torch.optim.LBFGS):
            raise ConfigError("on_nonfinite=skip does not work with optim=lbfgs, whose step is many; use stop")
        if policy == "skip" and not (self.on_host or self._in_optimizer):
            name = type(optimizer).__name__
            raise ConfigError(f"on_nonfinite=skip does not work with {name} on a GPU; use sgd, adam or adamw, or stop")
        self.found = torch.zeros(1, device=device)  # 1 when this step is bad; float32, as the optimizers want it
        self.steps = torch.zeros(1, dtype=torch.int64, device=device)
        self.bad = torch.zeros(1, dtype=torch.int64, device=device)
        self.first = torch.full((1,), -1, dtype=torch.int64, device=device)
        self._one = torch.ones(1, device=device)
        self._buffers = [b for b in model.buffers() if policy == "skip"]
        self._remembered = [b.clone() for b in self._buffers]
        if not self.on_host and self._in_optimizer and not scaled:
            optimizer.found_inf = self.found  # type: ignore[attr-defined]

    @property
    def counted(self) -> torch.Tensor | None:
        """Whether the latest step was made, 0-dim bool on the device; None where steps are not skipped."""
        return self.found.squeeze(0) == 0 if self.policy == "skip" else None

    def remember(self) -> None:
        """Before a forward pass: keep the buffers, which batch normalization changes in it."""
        for kept, buffer in zip(self._remembered, self._buffers, strict=True):
            kept.copy_(buffer)

    def passes(self, loss: torch.Tensor, parameters: Sequence[nn.Parameter]) -> bool:
        """Whether the optimizer's step shall be made, after the backward pass.

        loss: 0-dim. Always true on a GPU, where the optimizer itself decides, or finds gradients of 0.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.steps.add_(1)
        self.found.zero_()
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, self.found, self._one)
        if self.on_host:
            if self.found.item() == 0 and math.isfinite(loss.item()):
                return True
            self.found.fill_(1)
        else:
            self.found.logical_or_(~torch.isfinite(loss))
        bad = self.found.bool().squeeze(0)  # 0-dim, as some buffers are
        self.first.copy_(torch.where(bad & (self.bad == 0), self.steps - 1, self.first))
        self.bad.add_(bad)
        for kept, buffer in zip(self._remembered, self._buffers, strict=True):
            buffer.copy_(torch.where(bad, kept, buffer))
        if not self.on_host and not self._in_optimizer:
            for gradient in gradients:
                gradient.masked_fill_(bad, 0)
        return not self.on_host


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether every number of a tensor of any type is finite. Waits for the device.

    Its smallest and its largest tell, which are not-a-number where one is; `torch.isfinite` takes 1.75 times that.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))
