"""timm's models by name; timm is imported when one is chosen."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from trainkit.errors import ConfigError, DataError, first_line
from trainkit.models._published import Published, fitted, registered
from trainkit.registry import register
from trainkit.schema import Names

if TYPE_CHECKING:
    from torch import nn

LISTING = "trainkit ls model.arch --model timm"
Arch = Annotated[str, Names("model of timm", LISTING, functools.partial(registered, "timm"))]


@register("model")
def timm(in_shape: tuple[int, ...], num_outputs: int, *, arch: Arch = "tf_efficientnet_lite0") -> nn.Module:
    """A model of timm, with a head for the data.

    Maps (N, C, H, W) to (N, num_outputs). Names of parameters and initial weights are timm's. The weights that timm
    publishes are taken by init=pretrained, or as a file by init=FILE.

    Raises ConfigError where timm is not installed, for a table, and for images that the model cannot take, with a size
    that it can.
    """
    if importlib.util.find_spec("timm") is None:
        raise ConfigError("model=timm needs the package timm: pip install 'trainkit[timm]'")
    model = fitted("timm", arch, in_shape, lambda shape: _build(arch, shape, num_outputs))
    model.published = _published(arch, model)  # type: ignore[assignment]
    return model


def _build(arch: str, in_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    import timm as library

    channels, height, width = in_shape
    sized = library.get_pretrained_cfg(arch, allow_unregistered=False)
    options: dict[str, Any] = {"img_size": (height, width)} if sized is not None and sized.fixed_input_size else {}
    model: nn.Module = library.create_model(
        arch, pretrained=False, num_classes=num_outputs, in_chans=channels, **options
    )
    return model


def _published(arch: str, model: Any) -> Published:
    known = model.pretrained_cfg
    head = next((name for name, module in model.named_modules() if module is model.get_classifier()), "")
    return Published(list(known["mean"]), list(known["std"]), head, functools.partial(_fetch, arch, known))


def _fetch(arch: str, known: dict[str, Any]) -> Path:
    if not (repository := known.get("hf_hub_id")):
        raise DataError(f"init=pretrained: timm publishes no weights of {arch} on its hub; use init=FILE")
    from huggingface_hub import hf_hub_download

    name = known.get("hf_hub_filename") or "model.safetensors"
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # no network, HF_HUB_OFFLINE=1, a proxy's page instead of the file, a full disk
        raise DataError(
            f"init=pretrained: {name} of {repository} is not in the cache of huggingface_hub and cannot be downloaded "
            f"({first_line(error)}); on a machine with a network: hf download {repository} {name}, and use init=FILE"
        ) from error
