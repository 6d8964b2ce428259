"""Which parameters are trained, from which epoch on, at which lr and weight decay: parameter groups by pattern.

Patterns are those of file names (`features.1?.*`) against names of parameters; two words stand for parts of every
model: `head`, the module that gives the outputs, and `backbone`, all the rest.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainkit.errors import ConfigError, near
from trainkit.registry import register
from trainkit.schema import Count, NonNegative, Positive, Probability

if TYPE_CHECKING:
    from torch import nn

HEAD, BACKBONE = "head", "backbone"


@dataclasses.dataclass(frozen=True)
class Finetune:
    """As the builder below describes it."""

    freeze: Sequence[str]
    unfreeze: Mapping[str, int]
    lr_factors: Mapping[str, float]
    layer_decay: float
    weight_decays: Mapping[str, float]
    decay_norms: bool


@register("finetune")
def none() -> None:
    """Every parameter alike."""


@register("finetune")
def groups(
    *,
    freeze: list[str] = [],
    unfreeze: dict[str, Count] = {},
    lr_factors: dict[str, Positive] = {},
    layer_decay: Probability = 1.0,
    weight_decays: dict[str, NonNegative] = {},
    decay_norms: bool = False,
) -> Finetune:
    """Any of: frozen parts, an lr for each part, layer-wise lr decay.

    freeze: patterns of parameters that are not trained. unfreeze: {pattern: epochs}, of frozen ones that are trained
    after so many epochs. lr_factors: {pattern: factor on optim.lr}; factors of several patterns multiply. layer_decay:
    each block's lr is so many times that of the block after it, the head's being optim.lr (Howard & Ruder 2018,
    arXiv:1801.06146, who divide by 2.6). weight_decays: {pattern: value instead of optim.weight_decay}. decay_norms:
    whether norms and biases, all parameters of one axis, are decayed too.

    A module whose parameters are all frozen stays in evaluation mode, with all modules in it: the running statistics of
    batch norm do not move, and dropout is off.
    """
    if layer_decay == 0:
        raise ConfigError("finetune.layer_decay=0 gives all but the head an lr of 0: use finetune=linear")
    return Finetune(freeze, unfreeze, lr_factors, layer_decay, weight_decays, decay_norms)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is said of one parameter: factor on the lr, weight decay (None: the optimizer's own), and the epochs done
    from which on it is trained (None: never)."""

    lr: float = 1.0
    weight_decay: float | None = None
    begin: int | None = 0


def rules_of(model: nn.Module, tuning: Finetune, head: str) -> dict[str, Rule]:
    """The rule of every parameter, by name. head: the name of the module that gives the outputs.

    Raises ConfigError for a pattern that matches nothing, and when nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    select = _Patterns(names, head)
    frozen = {name for pattern in tuning.freeze for name in select(pattern, "freeze")}
    begin: dict[str, int | None] = dict.fromkeys(frozen)
    for pattern, epoch in tuning.unfreeze.items():
        chosen = select(pattern, "unfreeze")
        if not frozen.intersection(chosen):
            raise ConfigError(f"finetune.unfreeze: '{pattern}' matches no parameter that finetune.freeze has frozen")
        begin |= {name: epoch for name in chosen if name in frozen}
    factors, decays = _by_depth(model, names, head, tuning.layer_decay), _no_decay(model, tuning.decay_norms)
    for pattern, factor in tuning.lr_factors.items():
        factors |= {name: factor * factors[name] for name in select(pattern, "lr_factors")}
    for pattern, value in tuning.weight_decays.items():
        decays |= dict.fromkeys(select(pattern, "weight_decays"), value)
    rules = {name: Rule(factors[name], decays.get(name), begin.get(name, 0)) for name in names}
    if all(rule.begin is None for rule in rules.values()):
        raise ConfigError(f"finetune.freeze={list(tuning.freeze)} leaves no parameter to train")
    if all(rule.begin != 0 for rule in rules.values()):
        raise ConfigError("finetune: nothing is trained in the first epoch; leave the head out of finetune.freeze")
    return rules


class _Patterns:
    """The parameters that patterns match."""

    def __init__(self, names: Sequence[str], head: str) -> None:
        self.names = names
        self.head = [name for name in names if name.startswith(f"{head}.") or head == ""]

    def __call__(self, pattern: str, key: str) -> list[str]:
        """Raises ConfigError for one that matches nothing, with what is near to it."""
        if pattern == HEAD:
            return self.head
        if pattern == BACKBONE:
            found = [name for name in self.names if name not in self.head]
        else:
            found = [name for name in self.names if fnmatch.fnmatchcase(name, pattern)]
        if not found:
            modules = {name[:place] for name in self.names for place, sign in enumerate(name) if sign == "."}
            close = near(pattern.rstrip(".*"), [*modules, *self.names, HEAD, BACKBONE])[:3]
            hint = f" (did you mean {' or '.join(name + '.*' if name in modules else name for name in close)}?)"
            shown = ", ".join(self.names[:3])
            raise ConfigError(
                f"finetune.{key}: '{pattern}' matches no parameter{hint if close else ''}; they are called {shown}, …, "
                f"{self.names[-1]}"
            )
        return found


def _no_decay(model: nn.Module, decay_norms: bool) -> dict[str, float | None]:
    """No weight decay of parameters of one axis."""
    return {name: 0.0 for name, parameter in model.named_parameters() if parameter.ndim <= 1 and not decay_norms}


def _by_depth(model: nn.Module, names: Sequence[str], head: str, decay: float) -> dict[str, float]:
    """The factor of each parameter: `decay` to the power of how many blocks lie between it and the head."""
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    blocks = blocks_of(model)
    places = {name: max(i for i, block in enumerate(blocks) if _within(name, block)) for name in names}
    top = max((place for name, place in places.items() if not _within(name, head)), default=-1) + 1
    return {name: 1.0 if _within(name, head) else decay ** (top - place) for name, place in places.items()}


def _within(name: str, module: str) -> bool:
    return module == "" or name.startswith(f"{module}.") or name == module


def blocks_of(model: nn.Module) -> list[str]:
    """The blocks of a model, from input to output: names of modules, the first being the model itself ("").

    A block is a child of the model, of a chain or list of modules, or of a module that holds more than half of all
    parameters. The order is that in which they were registered.
    """
    from torch import nn

    whole = sum(parameter.numel() for parameter in model.parameters())
    blocks = [""]

    def visit(module: nn.Module, name: str) -> None:
        for key, child in module.named_children():
            size = sum(parameter.numel() for parameter in child.parameters())
            path = f"{name}.{key}" if name else key
            opens = isinstance(child, (nn.Sequential, nn.ModuleList)) or size > whole / 2
            if size:
                blocks.append(path)
            if opens and next(child.children(), None) is not None:
                visit(child, path)

    visit(model, "")
    return blocks


def regroup(optimizer: Any, rules: Mapping[str, Rule], parameters: Mapping[str, nn.Parameter]) -> None:
    """Cut an optimizer's parameter groups so that each has one lr, weight decay and begin, as the rules say.

    A group keeps the optimizer's own settings. Raises ConfigError for an optimizer that has one group only.
    """
    import torch

    if isinstance(optimizer, torch.optim.LBFGS):
        raise ConfigError("optim=lbfgs has one group of parameters, which all are trained: use finetune=none")
    named = {id(parameter): name for name, parameter in parameters.items()}
    made = []
    for group in optimizer.param_groups:
        cut: dict[Rule, list[Any]] = {}
        for parameter in group["params"]:
            cut.setdefault(rules[named[id(parameter)]], []).append(parameter)
        for rule, members in cut.items():
            decay = (
                {} if rule.weight_decay is None or "weight_decay" not in group else {"weight_decay": rule.weight_decay}
            )
            names = [named[id(parameter)] for parameter in members]
            lr = group["initial_lr"] * rule.lr
            on_device = isinstance(group["lr"], torch.Tensor)  # from where a CUDA graph reads it
            changed = {"lr": torch.full_like(group["lr"], lr) if on_device else lr, "initial_lr": lr}
            made.append({**group, "params": members, "param_names": names, **changed, **decay})
    optimizer.param_groups[:] = made


class Frozen:
    """The parameters that are not trained from the start, and the modules that stay in evaluation mode with them."""

    def __init__(self, model: nn.Module, rules: Mapping[str, Rule]) -> None:
        self.model = model
        self._begin = {name: rule.begin for name, rule in rules.items() if rule.begin != 0}
        self._parameters = dict(model.named_parameters())
        self._still: list[nn.Module] = []  # the outermost modules that are frozen as a whole
        self._frozen: set[str] | None = None
        self.enter(0)

    @property
    def for_good(self) -> bool:
        """Whether what is frozen stays so to the end."""
        return all(begin is None for begin in self._begin.values())

    @property
    def begins(self) -> dict[str, int]:
        """After how many epochs those parameters are trained that are not from the start, by name."""
        return {name: begin for name, begin in self._begin.items() if begin is not None}

    @property
    def names(self) -> list[str]:
        """The parameters that are never trained."""
        return [name for name, begin in self._begin.items() if begin is None]

    def enter(self, epoch: int) -> None:
        """Let what is trained after so many epochs be trained; to be called after `model.train()`."""
        frozen = {name for name, begin in self._begin.items() if begin is None or epoch < begin}
        if frozen != self._frozen:
            self._frozen = frozen
            for name in self._begin:
                self._parameters[name].requires_grad_(name not in frozen)
            self._still = _frozen_modules(self.model)
        for module in self._still:
            module.eval()


def _frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The outermost modules none of whose parameters is trained; those without parameters go with what they are in."""
    own = list(model.parameters())
    if own and not any(parameter.requires_grad for parameter in own):
        return [model]
    return [module for child in model.children() for module in _frozen_modules(child)]
