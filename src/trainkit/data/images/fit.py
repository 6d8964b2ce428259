"""How a photo of any shape becomes an image of the model's: squashed, cropped or padded. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from PIL import Image

    from trainkit.data.spec import InputSpec

RESAMPLING = "bilinear"  # of Pillow, which averages over all pixels of a larger image
REDUCED = 2  # a large JPEG is decoded at 1/2, 1/4 or 1/8, as long as it stays so many times the size that is wanted

Size = tuple[int, int]  # width, height, as Pillow has it


class Rule(NamedTuple):
    """How a file becomes pixels.

    mode: `rgb` or `gray`. resize: `squash` stretches all of the photo; `crop` takes the largest rectangle of the wanted
    shape around its center, or that `crop_share` of its sides; `pad` fits all of it between black borders.
    """

    mode: str = "rgb"
    resize: str = "squash"
    crop_share: float = 1.0

    @classmethod
    def of(cls, spec: InputSpec) -> Rule:
        """The rule by which the images of a model's input were made."""
        return cls("gray" if spec.shape[0] == 1 else "rgb", spec.resize, spec.crop_share)


def preparation(spec: InputSpec) -> dict[str, Any]:
    """What is made of an image file for a model with this input, as JSON data for other programs."""
    channels, height, width = spec.shape
    return {
        "orientation": "exif",
        "mode": "L" if channels == 1 else "RGB",
        "gray16": "upper 8 bits",
        "transparency": "on white",
        "jpeg_reduced_to_at_least": REDUCED,
        "resize": {
            "height": height,
            "width": width,
            "filter": RESAMPLING,
            "antialias": True,
            "keep_aspect": spec.resize != "squash",
            "rule": spec.resize,
            **({"crop_share": spec.crop_share} if spec.resize == "crop" else {}),
        },
        "layout": "CHW",
        "range": [0, 255],
    }


def reduced(size: Size, wanted: Size, rule: Rule) -> Size:
    """How large a photo of this size must at least be decoded, so that what is shown of it is large enough."""
    if rule.resize == "pad":
        scale = REDUCED * min(wanted[0] / size[0], wanted[1] / size[1])
        return round(size[0] * scale), round(size[1] * scale)
    return round(REDUCED * wanted[0] / rule.crop_share), round(REDUCED * wanted[1] / rule.crop_share)


def fit(image: Image.Image, wanted: Size, rule: Rule) -> Image.Image:
    """A photo as an image of the wanted size."""
    from PIL import Image, ImageOps

    method = Image.Resampling[RESAMPLING.upper()]
    if rule.resize == "crop":  # in one step with the resizing: what is cut off is not computed
        return ImageOps.fit(image, wanted, method, bleed=(1 - rule.crop_share) / 2)
    if rule.resize == "pad":
        return ImageOps.pad(image, wanted, method)
    return image if image.size == wanted else image.resize(wanted, method)
