"""torch's optimizers without the wrappers that only torch.compile needs.

Making an optimizer, and its first `step` and `zero_grad`, import `torch._dynamo`: 1.2 to 1.6 s on two cores, as long
as a small training run. The wrappers mark the methods as not to be traced; trainkit never traces an optimizer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

Closure = Callable[[], torch.Tensor]


def leave_untraced() -> None:
    """Let the methods of torch's optimizers that are marked as untraced run as they are.

    `torch._disable_dynamo` looks for this attribute before it imports anything; where a version of torch does not,
    nothing changes but the time it takes.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = inspect.unwrap(getattr(torch.optim.Optimizer, name))
        setattr(method, "__dynamo_disable", method)  # in a class body the name would be mangled


def bare_step(optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
    """`optimizer.step` itself, in `no_grad`, without profiler and hook wrappers: the same update, the same bits."""
    step = inspect.unwrap(type(optimizer).step)

    @torch.no_grad()
    def update(*closure: Closure) -> Any:
        return step(optimizer, *closure)

    return update
