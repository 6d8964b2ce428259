"""Put weights into a freshly built model, name by name, and say what fitted."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainkit.data.spec import DataSpec, InputSpec
from trainkit.errors import ConfigError, DataError
from trainkit.init.weights import PREFIXES, Weights
from trainkit.randomness import reseed

COUNTER = ".num_batches_tracked"  # of batch norm, which files of older versions do not have


@dataclasses.dataclass(frozen=True)
class Fitted:
    """matched: how many tensors were taken over. new: names that keep their fresh weights. unused: names of the file.

    adapted: names of first convolutions whose input channels are others.
    """

    matched: int
    new: list[str]
    unused: list[str]
    adapted: list[str]

    def __str__(self) -> str:
        adapted = f"{len(self.adapted)} adapted ({shortened(self.adapted)}), " if self.adapted else ""
        return f"{self.matched} matched, {adapted}{_counted(self.new, 'new')}, {_counted(self.unused, 'unused')}"


def fit(model: nn.Module, weights: Weights, classes: Sequence[str] | None, seed: int) -> Fitted:
    """Take over what fits, by name and shape; the head is taken over only if it is of the same classes.

    classes: of the data, where its task has some. A new head begins near 0, see `begin_small`. Float types are
    converted. A first convolution for other input channels gets the sum of its kernels, or repeats them.

    Raises DataError when tensors beyond the head would stay new, or unused, that `weights.allow` does not name;
    ConfigError for a pattern there that names nothing.
    """
    expected = model.state_dict()
    given = _without_prefix(weights.tensors, expected)
    head = weights.head if weights.head is not None else head_of(model)
    taken: dict[str, Tensor] = {}
    new: list[str] = []
    adapted: list[str] = []
    strange: list[str] = []
    keep_head = _same_classes(weights.spec, classes)
    for name, ours in expected.items():
        theirs = given.get(name)
        in_head = name.startswith(f"{head}.") or head == ""
        if theirs is not None and _alike(ours, theirs) and (keep_head or not in_head):
            taken[name] = theirs.to(ours.dtype)
        elif in_head or (theirs is None and name.endswith(COUNTER)):
            new += [name] if in_head else []
        elif theirs is not None and (converted := _other_channels(ours, theirs)) is not None:
            taken[name] = converted
            adapted.append(name)
        else:
            new.append(name)
            strange.append(name if theirs is None else f"{name} is {_shape(theirs)} there and {_shape(ours)} here")
    unused = [name for name in given if name not in expected and not _any_match(name, weights.extra)]
    _refuse_strange(weights, new, unused, strange, len(taken), len(expected))
    model.load_state_dict(taken, strict=False)
    begin_small(model, new, head, seed)
    return Fitted(len(taken) - len(adapted), new, unused, adapted)


@torch.no_grad()
def begin_small(model: nn.Module, new: Sequence[str], head: str, seed: int) -> None:
    """Draw the new weights of a head from a normal distribution of deviation 0.01, and have its biases 0.

    So all classes are about equally likely at first, whatever the library draws: timm's heads for few classes begin
    with logits of several units, which a linear probe takes dozens of epochs to forget.
    """
    reseed(torch.device("cpu"), seed, "head")
    for name, parameter in model.named_parameters():
        if name in new and name.startswith(f"{head}."):
            start = torch.randn(parameter.shape) * 0.01 if parameter.ndim > 1 else torch.zeros(parameter.shape)
            parameter.copy_(start)


def head_of(model: nn.Module) -> str:
    """The name of the module that gives the outputs: the last one, as they were registered, that has parameters."""
    own = [name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None]
    return str(own[-1])


def _without_prefix(tensors: dict[str, Tensor], expected: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors without the prefix that a wrapper has put before all names, where that makes them the model's."""
    for prefix in PREFIXES:
        shorter = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        if all(name.startswith(prefix) for name in tensors) and len(shorter.keys() & expected.keys()) > len(
            tensors.keys() & expected.keys()
        ):
            return shorter
    return tensors


def _same_classes(spec: DataSpec | None, classes: Sequence[str] | None) -> bool:
    return spec is None or spec.target.classes is None or spec.target.classes == list(classes or [])


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    kinds = (ours.is_floating_point(), theirs.is_floating_point())
    return ours.shape == theirs.shape and (kinds == (True, True) or ours.dtype == theirs.dtype)


def _other_channels(ours: Tensor, theirs: Tensor) -> Tensor | None:
    """The kernels of a convolution over colors for other channels: their sum, shared out, for one or two.

    More channels take red, green and blue in turn, and share a color's kernel. So an image that is the same in all
    channels gives what a gray one gave. None for any other difference.
    """
    if ours.ndim < 4 or theirs.ndim < 4 or theirs.shape[1] != 3 or not theirs.is_floating_point():
        return None
    channels = ours.shape[1]
    if (ours.shape[0], ours.shape[2:]) != (theirs.shape[0], theirs.shape[2:]):
        return None
    kernels = theirs.to(ours.dtype)
    if channels < 3:
        return kernels.sum(dim=1, keepdim=True).repeat_interleave(channels, dim=1) / channels
    colors = torch.arange(channels) % 3
    return kernels[:, colors] / torch.bincount(colors)[colors].view(1, -1, *[1] * (kernels.ndim - 2))


def _refuse_strange(
    weights: Weights, new: list[str], unused: list[str], strange: list[str], taken: int, expected: int
) -> None:
    for pattern in weights.allow:
        if not any(_any_match(name, [pattern]) for name in [*new, *unused]):
            raise ConfigError(f"init.allow: '{pattern}' names nothing that is new or unused; leave it out")
    missing = [text for text in strange if not _any_match(text.partition(" ")[0], weights.allow)]
    left = [f"{name} is not in the model" for name in unused if not _any_match(name, weights.allow)]
    if not missing and not left:
        return
    told = [text if " " in text else f"{text} is not in the file" for text in missing] + left
    more = f" (and {len(told) - 2} more)" if len(told) > 2 else ""
    raise DataError(
        f"init: {weights.source} does not fit the model beyond its head: {taken} of {expected} tensors match; "
        f"{'; '.join(told[:2])}{more}; init.allow=[PATTERN] lets names stay new or unused"
    )


def _any_match(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _counted(names: list[str], what: str) -> str:
    return f"{len(names)} {what}" + (f" ({shortened(names)})" if names else "")


def shortened(names: Sequence[str]) -> str:
    """Names in few words: `classifier.1.*` for all of one module, else the first one and how many more."""
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
    if len(names) == 1:
        return names[0]
    if len(modules) > 2:
        return f"{modules[0]}.* and {len(modules) - 1} modules more"
    return ", ".join(f"{module}.*" for module in modules)


def normalized(spec: DataSpec, weights: Weights) -> DataSpec:
    """The data's specification with the first input normalized by what the weights were trained with, where known.

    Raises ConfigError when there is not one number for each channel.
    """
    name, known = next(iter(spec.inputs.items()))
    if weights.mean is None or weights.std is None or not known.normalize:
        return spec
    mean, std = (_for_channels(values, known) for values in (weights.mean, weights.std))
    return dataclasses.replace(spec, inputs={**spec.inputs, name: dataclasses.replace(known, mean=mean, std=std)})


def _for_channels(values: list[float], known: InputSpec) -> list[float]:
    channels = known.shape[0]
    if len(values) == channels:
        return values
    if known.is_image and len(values) == 3:  # as `_other_channels` does with the kernels
        return [sum(values) / 3] * channels if channels < 3 else [values[i % 3] for i in range(channels)]
    raise ConfigError(f"init.mean and init.std have {len(values)} numbers; the input has {channels} channels")


def facts(weights: Weights, fitted: Fitted, spec: DataSpec) -> dict[str, Any]:
    """What a checkpoint and env.json keep of where the weights came from."""
    known = spec.input
    return {
        "source": weights.source,
        "sha256": weights.sha256,
        "bytes": weights.nbytes,
        "matched": fitted.matched,
        "new": fitted.new,
        "unused": fitted.unused,
        "mean": known.mean,
        "std": known.std,
    }


def sentence(found: dict[str, Any], fitted: Fitted, known: bool) -> str:
    """One line for the user: where the weights came from, what fitted, how the input is normalized."""
    size = f"{found['bytes'] / 1e6:,.1f} MB"
    by = ""
    if found["mean"] is not None:
        numbers = [" ".join(f"{value:.4g}" for value in found[key]) for key in ("mean", "std")]
        by = f"; input by {'its' if known else 'the data' + chr(39) + 's'} mean {numbers[0]}, std {numbers[1]}"
    return f"init {found['source']} (sha256 {found['sha256'][:12]}, {size}): {fitted}{by}"
