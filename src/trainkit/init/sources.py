"""The sources of initial weights, as config chooses them. A builder may ask for the `model`, freshly built.

All of them take: allow, patterns of names that may stay new, or unused, beyond the head; mean and std, of the input's
channels as value / 255, instead of those that are known of the weights; sha256, of the file, which is then insisted on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from trainkit.errors import ConfigError
from trainkit.init.weights import Weights, read_file, read_run
from trainkit.registry import register
from trainkit.schema import Form, Positive

if TYPE_CHECKING:
    from torch import nn

Digest = Annotated[str, Form("[0-9a-f]{64}", "the 64 hexadecimal digits of `sha256sum FILE`")]


@register("init")
def none() -> None:
    """Fresh weights, a function of the seed."""


@register("init")
def file(
    model: nn.Module,
    *,
    file: Path,
    allow: list[str] = [],
    mean: list[float] | None = None,
    std: list[Positive] | None = None,
    sha256: Digest | None = None,
) -> Weights:
    """Weights of a file, or of another run: init=PATH.

    file: a .safetensors file, a file that torch.save has written (of tensors alone: no code in it is run), a checkpoint
    of trainkit, or a run folder, of which the best epoch counts. What the input is normalized by is known of a run, and
    of the files of models that a library publishes weights for.

    Raises DataError for a file that is missing, damaged or holds something else, CheckpointError for such a run.
    """
    found = read_run(file) if file.is_dir() else read_file(file)
    return found.checked(getattr(model, "published", None), allow, mean, std, sha256)


@register("init")
def pretrained(
    model: nn.Module,
    *,
    allow: list[str] = [],
    mean: list[float] | None = None,
    std: list[Positive] | None = None,
    sha256: Digest | None = None,
) -> Weights:
    """The weights that the model's library publishes, downloaded into its usual cache.

    Raises ConfigError for a model of no such library, DataError when they are not there and cannot be downloaded.
    """
    published = getattr(model, "published", None)
    if published is None:
        raise ConfigError("init=pretrained is for model=torchvision and model=timm; others take init=FILE or init=RUN")
    return read_file(published.fetch()).checked(published, allow, mean, std, sha256)
