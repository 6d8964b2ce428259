"""What is common to the models of other libraries: their names, their fit to other images, their published weights."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.errors import ConfigError, first_line
from trainkit.models._layers import check_images

if TYPE_CHECKING:
    from torch import nn

SIZES = (32, 48, 64, 96, 128, 160, 192, 224, 256, 299, 320, 384)  # tried where an image does not fit


@dataclasses.dataclass(frozen=True)
class Published:
    """What a library says of the weights that it publishes for a model; a model's attribute `published`.

    mean, std: per channel, of the pixels as value / 255 that the weights were trained on. head: the name of the module
    that gives the outputs. extra: patterns of tensors in the file that a model built for training has no place for.
    fetch: the file of the weights, in the library's usual cache, downloaded where it is not there yet; raises DataError
    when that cannot be done.
    """

    mean: list[float]
    std: list[float]
    head: str
    fetch: Callable[[], Path]
    extra: tuple[str, ...] = ()


@functools.cache
def registered(library: str) -> list[str]:
    """The models that a library registers for classification, sorted; none where it is not installed.

    Read from its sources, `models/*.py`: importing it takes seconds.
    """
    spec = importlib.util.find_spec(library)
    marked = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    files = [
        file for place in (spec and spec.submodule_search_locations) or [] for file in Path(place).glob("models/*.py")
    ]
    return sorted({name for file in files for name in marked.findall(file.read_text(encoding="utf-8"))})


def fitted(
    library: str, arch: str, in_shape: tuple[int, ...], build: Callable[[tuple[int, ...]], nn.Module]
) -> nn.Module:
    """A library's model for samples of this shape. build: the model for a shape (C, H, W).

    Raises ConfigError for a table, and for images that the model cannot take, with a size that it can.
    """
    check_images(f"{library} {arch}", in_shape, 1)
    refuse_misfit(build, f"model {library} {arch}", in_shape)
    return build(in_shape)


def refuse_misfit(build: Callable[[tuple[int, ...]], nn.Module], what: str, in_shape: tuple[int, ...]) -> None:
    """Raise ConfigError unless a model passes two images of this shape (C, H, W) through; says which size does.

    build: the model for a shape. It is built without memory for its weights where it can be, on torch's meta device.
    """
    reason = _misfit(build, in_shape)
    if reason is None:
        return
    channels, height, width = in_shape
    sizes = sorted(SIZES, key=lambda size: abs(size - max(height, width)))
    fits = next((size for size in sizes if _misfit(build, (channels, size, size)) is None), None)
    advice = "images of no usual size fit" if fits is None else f"dataset.image_size={fits} fits"
    raise ConfigError(f"{what} cannot take images of {height}x{width} ({reason}); {advice}")


def _misfit(build: Callable[[tuple[int, ...]], nn.Module], in_shape: tuple[int, ...]) -> str | None:
    import torch

    try:
        with torch.no_grad():
            try:
                with torch.device("meta"):
                    model = build(in_shape)
            except NotImplementedError:  # its widths are computed with tensors, which must hold numbers
                model = build(in_shape).to("meta")
            model.eval()(torch.zeros(2, *in_shape, device="meta"))
    except ConfigError:
        raise
    except Exception as error:  # whatever a library's layers say of an image that is too small, or not a multiple
        return first_line(error)
    return None


def adapt_channels(model: nn.Module, channels: int) -> None:
    """Give a model's first convolution another number of input channels, with fresh weights of its own kind."""
    from torch import nn

    found = ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    name, old = next(found)
    if old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        dilation=old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, new)
