"""Optimizers: torch's own classes, with their hyperparameters as config.

Builders take (name, parameter) pairs, which torch keeps as `param_names` in the groups. Defaults are torch's except
where a docstring says otherwise. All state of a parameter is in `optimizer.state[parameter]` as tensors and numbers,
and may be put back there in a fresh optimizer; lbfgs alone differs, see its docstring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from trainkit.errors import ConfigError
from trainkit.registry import register
from trainkit.schema import Count, Fraction, NonNegative, Positive, Probability

if TYPE_CHECKING:
    import torch
    from torch import nn


@register("optim")
def sgd(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 0.1,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    dampening: Probability = 0.0,
    weight_decay: NonNegative = 0.0,
    bias_lr: Positive = 1.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum.

    The defaults lr=0.1 and momentum=0.9 are the customary ones for networks (He et al. 2016, arXiv:1512.03385);
    torch's are 0.001 and 0. bias_lr: factor on the lr of the parameters named `bias`, whose decay per step stays the
    same (Jordan 2024, arXiv:2404.00498, trains the biases of norms at 64 times the lr). Raises ConfigError for
    nesterov without momentum or with dampening.
    """
    import torch

    if nesterov and (momentum == 0 or dampening > 0):
        raise ConfigError("optim.nesterov=true needs optim.momentum > 0 and optim.dampening=0")
    biases = [pair for pair in named_params if bias_lr != 1 and pair[0].rpartition(".")[2] == "bias"]
    rest = [pair for pair in named_params if all(pair[0] != name for name, _ in biases)]
    groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
    if biases:
        groups.append({"params": biases, "lr": lr * bias_lr, "weight_decay": weight_decay / bias_lr})
    return torch.optim.SGD(
        groups,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        dampening=dampening,
        weight_decay=weight_decay,
        fused=True,
    )


@register("optim")
def adam(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 1e-3,
    betas: list[Fraction] = [0.9, 0.999],
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980)."""
    import torch

    return torch.optim.Adam(
        named_params, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True
    )


@register("optim")
def adamw(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 1e-3,
    betas: list[Fraction] = [0.9, 0.999],
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.01,
    amsgrad: bool = False,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    import torch

    return torch.optim.AdamW(
        named_params, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, fused=True
    )


@register("optim")
def adagrad(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 0.01,
    lr_decay: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
    eps: NonNegative = 1e-10,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Adagrad (Duchi et al. 2011)."""
    import torch

    return torch.optim.Adagrad(
        named_params,
        lr=lr,
        lr_decay=lr_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
        weight_decay=weight_decay,
        fused=all(param.device.type == "cpu" for _, param in named_params) or None,
    )


@register("optim")
def rmsprop(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 0.01,
    alpha: Probability = 0.99,
    eps: NonNegative = 1e-8,
    momentum: Fraction = 0.0,
    centered: bool = False,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """RMSprop (Tieleman & Hinton 2012)."""
    import torch

    return torch.optim.RMSprop(
        named_params, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, weight_decay=weight_decay
    )


@register("optim")
def adadelta(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 1.0,
    rho: Probability = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Adadelta (Zeiler 2012, arXiv:1212.5701)."""
    import torch

    return torch.optim.Adadelta(named_params, lr=lr, rho=rho, eps=eps, weight_decay=weight_decay)


@register("optim")
def nadam(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 2e-3,
    betas: list[Fraction] = [0.9, 0.999],
    eps: NonNegative = 1e-8,
    momentum_decay: NonNegative = 4e-3,
    weight_decay: NonNegative = 0.0,
    decoupled_weight_decay: bool = False,
) -> torch.optim.Optimizer:
    """Adam with Nesterov momentum (Dozat 2016)."""
    import torch

    return torch.optim.NAdam(
        named_params,
        lr=lr,
        betas=_pair(betas),
        eps=eps,
        momentum_decay=momentum_decay,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
    )


@register("optim")
def radam(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 1e-3,
    betas: list[Fraction] = [0.9, 0.999],
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
    decoupled_weight_decay: bool = False,
) -> torch.optim.Optimizer:
    """Rectified Adam (Liu et al. 2020, arXiv:1908.03265)."""
    import torch

    return torch.optim.RAdam(
        named_params,
        lr=lr,
        betas=_pair(betas),
        eps=eps,
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
    )


@register("optim")
def adamax(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 2e-3,
    betas: list[Fraction] = [0.9, 0.999],
    eps: NonNegative = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """Adam with the infinity norm (Kingma & Ba 2015, section 7.1)."""
    import torch

    return torch.optim.Adamax(named_params, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay)


@register("optim")
def lbfgs(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 1.0,
    max_iter: Count = 20,
    max_eval: Count | None = None,
    tolerance_grad: NonNegative = 1e-7,
    tolerance_change: NonNegative = 1e-9,
    history_size: Count = 100,
    line_search: Literal["none", "strong_wolfe"] = "none",
) -> torch.optim.Optimizer:
    """Limited-memory BFGS, for small data and full batches.

    `step` needs a closure, which it calls up to max_eval times (None means max_iter * 5 // 4). All state is under the
    first parameter: numbers, flat tensors over all parameters, None, and lists of up to history_size such tensors
    (`old_dirs`, `old_stps`, `ro`, `al`), which is 2 * history_size times the size of the model.
    """
    import torch

    return torch.optim.LBFGS(
        named_params,
        lr=lr,
        max_iter=max_iter,
        max_eval=max_eval,
        tolerance_grad=tolerance_grad,
        tolerance_change=tolerance_change,
        history_size=history_size,
        line_search_fn=None if line_search == "none" else line_search,
    )


@register("optim")
def muon(
    named_params: list[tuple[str, nn.Parameter]],
    *,
    lr: Positive = 0.02,
    momentum: Fraction = 0.95,
    nesterov: bool = True,
    weight_decay: NonNegative = 0.01,
    ns_steps: Count = 5,
    adjust_lr: Literal["original", "match_rms_adamw"] = "original",
    adamw_lr: Positive = 3e-4,
    adamw_betas: list[Fraction] = [0.9, 0.95],
    adamw_eps: NonNegative = 1e-8,
    adamw_weight_decay: NonNegative = 0.01,
) -> torch.optim.Optimizer:
    """Muon on hidden weights, AdamW on the rest (Jordan 2024).

    See `trainkit.optim.muon`. The learning rates, weight decays and adamw_betas are those of the author's example
    (github.com/KellerJordan/Muon); torch's Muon has lr=0.001 and weight_decay=0.1. adjust_lr: how the lr of a matrix
    depends on its shape; match_rms_adamw is Liu et al. 2025 (arXiv:2502.16982) and takes AdamW's learning rates.
    """
    from trainkit.optim.muon import MuonWithAdamW

    matrices = {
        "lr": lr,
        "momentum": momentum,
        "nesterov": nesterov,
        "weight_decay": weight_decay,
        "ns_steps": ns_steps,
        "adjust_lr_fn": adjust_lr,
    }
    betas = _pair(adamw_betas, "adamw_betas")
    rest = {"lr": adamw_lr, "betas": betas, "eps": adamw_eps, "weight_decay": adamw_weight_decay}
    return MuonWithAdamW(named_params, matrices, rest)


def _pair(values: list[float], key: str = "betas") -> tuple[float, float]:
    if len(values) != 2:
        raise ConfigError(f"optim.{key}: expected 2 numbers, as in [0.9, 0.999], got {len(values)}")
    return values[0], values[1]
