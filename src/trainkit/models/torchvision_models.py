"""torchvision's classification models by name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from trainkit.errors import DataError, first_line
from trainkit.models._published import Published, adapt_channels, fitted, registered
from trainkit.registry import register
from trainkit.schema import Names

if TYPE_CHECKING:
    from torch import nn

LISTING = "trainkit ls model.arch --model torchvision"
Arch = Annotated[str, Names("model of torchvision", LISTING, functools.partial(registered, "torchvision"))]
# What a model is given, by the beginning of its name: its size, and no second output while it is trained.
SIZED = {"vit_": "image_size", "maxvit_": "input_size"}
AUXILIARY = ("inception_v3", "googlenet")


@register("model")
def torchvision(in_shape: tuple[int, ...], num_outputs: int, *, arch: Arch = "mobilenet_v2") -> nn.Module:
    """A classification model of torchvision, with a head for the data.

    Maps (N, C, H, W) to (N, num_outputs). Names of parameters and initial weights are torchvision's; with other than 3
    channels the first convolution is a fresh one. The second outputs of inception_v3 and googlenet are left out. The
    weights that torchvision publishes are taken by init=pretrained, or as a file by init=FILE.

    Raises ConfigError for a table, and for images that the model cannot take, with a size that it can.
    """
    model = fitted("torchvision", arch, in_shape, lambda shape: _build(arch, shape, num_outputs))
    model.published = _published(arch, model)  # type: ignore[assignment]
    return model


def _build(arch: str, in_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    from torchvision.models import get_model

    channels, height, width = in_shape
    options: dict[str, Any] = {"weights": None, "num_classes": num_outputs}
    key = next((key for start, key in SIZED.items() if arch.startswith(start)), None)
    if key is not None and height != width:
        raise ValueError("it takes square images")
    options |= {} if key is None else {key: height if key == "image_size" else (height, width)}
    options |= {"aux_logits": False, "init_weights": True} if arch in AUXILIARY else {}
    model: nn.Module = get_model(arch, **options)
    adapt_channels(model, channels)
    return model


def _published(arch: str, model: nn.Module) -> Published:
    from torchvision.models import get_model_weights

    weights: Any = get_model_weights(arch).DEFAULT
    transforms = weights.transforms()
    head = [name for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None]
    extra = ("AuxLogits.*", "aux1.*", "aux2.*") if arch in AUXILIARY else ()
    return Published(
        list(transforms.mean), list(transforms.std), head[-1], functools.partial(_fetch, arch, weights.url), extra
    )


def _fetch(arch: str, url: str) -> Path:
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / url.rpartition("/")[2]
    if not file.exists():
        digest = file.stem.rpartition("-")[2]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(file), hash_prefix=digest, progress=True)
        except Exception as error:  # no network, a proxy's page instead of the file, a full disk
            raise DataError(
                f"init=pretrained: {file.name} of {arch} is not in {folder} and cannot be downloaded "
                f"({first_line(error)}); put it there, or elsewhere and use init=FILE: curl -LO {url}"
            ) from error
    return file
