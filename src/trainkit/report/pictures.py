"""Images that a report shows: training samples as the model saw them, the errors, and what is known best. Kept as
pictures.npz.

    train_images   uint8 (n, 1 or 3, h, w), after augmentation, no longer normalized
    train_targets  int64 (n,), or float32 (n, C) class probabilities where samples were mixed, or as the data has them
    error_images   uint8 (m, 1 or 3, h, w), as they are in the split of predictions.npz
    error_index    int64 (m,), their places in that split
    error_files    (m,), their files, where the data set still knows them
    error_heat     uint8 (m, h, w), where the model looked for its answer, 255 where it looked most; not of every model
    best_…         the same four of the right answers of highest confidence

At most COUNT of each, no side longer than SIDE pixels: tens of kilobytes, whatever the data set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainkit.data.spec import INPUT, TARGET, named
from trainkit.run_folders.predictions import Predictions, read_arrays

if TYPE_CHECKING:
    import torch

    from trainkit.data.dataset import Data
    from trainkit.data.loaders import Loader

FILE = "pictures.npz"
COUNT = 24
SIDE = 96

Arrays = dict[str, NDArray[Any]]
Heat = Callable[[NDArray[Any], NDArray[np.int64]], NDArray[np.uint8] | None]


def read(folder: Path) -> Arrays | None:
    """The arrays of a run folder, None where it has none. Raises ValueError for a damaged file."""
    arrays = read_arrays(folder / FILE)
    for kind, partner in (("train", "train_targets"), ("error", "error_index"), ("best", "best_index")):
        images = None if arrays is None else arrays.get(f"{kind}_images")
        if arrays is None or images is None:
            continue
        if images.dtype != np.uint8 or images.shape[1:2] not in ((1,), (3,)) or not _are_sides(images.shape[2:]):
            raise ValueError(f"its {kind}_images are no images")
        if max(images.shape[2:]) > SIDE or len(images) > 2 * COUNT:
            raise ValueError(f"its {kind}_images are larger than a report's")
        if partner not in arrays or len(arrays[partner]) != len(images):
            raise ValueError(f"its {partner} do not fit its images")
        heat = arrays.get(f"{kind}_heat")
        if heat is not None and (heat.dtype != np.uint8 or heat.shape != (len(images), *images.shape[2:])):
            raise ValueError(f"its {kind}_heat does not fit its images")
    return arrays


def _are_sides(lengths: tuple[int, ...]) -> bool:
    return len(lengths) == 2 and min(lengths) > 0


def worst_places(found: Predictions) -> NDArray[np.int64]:
    """Places of the samples that a report shows as errors, each once, the worst of each kind first."""
    kinds = found.task.worst(found.kept, COUNT // 2).values()
    return np.concatenate([np.empty(0, np.int64), *kinds])


def training_samples(data: Data, train: Loader) -> Arrays:
    """The first samples of the first epoch, as the model got them, with their targets."""
    batch = next(train.epoch(0)).first(COUNT)
    name = next(iter(data.spec.inputs))
    images = batch.inputs[name] if isinstance(batch.inputs, dict) else batch.inputs
    pixels = train.normalize.stored(images, name)
    targets = next(iter(named(batch.targets, TARGET).values()))
    return {"train_images": _shown(pixels, data), "train_targets": targets.cpu().numpy()}


def answered(data: Data, predictions: Predictions, saliency: Heat | None) -> Arrays:
    """The images of the worst errors, and of the best answers, of the split that was predicted.

    saliency: gives heat maps of images for the classes that were answered, or None.
    """
    best = predictions.task.best(predictions.kept, COUNT // 2)
    found = _answers("error", data, predictions, np.unique(worst_places(predictions)), saliency)
    return found | (_answers("best", data, predictions, best, saliency) if len(best) else {})


def _answers(
    kind: str, data: Data, predictions: Predictions, index: NDArray[np.int64], saliency: Heat | None
) -> Arrays:
    import torch

    split = data.splits[predictions.split]
    found: Arrays = {f"{kind}_index": index}
    if split.names is not None and len(index):
        found[f"{kind}_files"] = np.asarray([str(name) for name in split.names[index]], dtype=np.str_)
    if len(index):
        inputs, _ = next(split.batches([index]))
        images = np.array(next(iter(named(inputs, INPUT).values())))
    else:
        images = np.zeros((0, *data.spec.in_shape), np.uint8)
    answers = predictions.kept.get("predicted")
    if saliency is not None and answers is not None and len(index):
        heat = saliency(images, answers[index])
        if heat is not None:
            found[f"{kind}_heat"] = _shrunk(torch.from_numpy(heat).float().unsqueeze(1))[:, 0]
    return found | {f"{kind}_images": _shown(torch.from_numpy(images).float(), data)}


def overlaid(image: NDArray[np.uint8], heat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (1 or 3, h, w) in gray, under its heat map (h, w) in colors: (3, h, w)."""
    from matplotlib import colormaps

    gray = np.repeat(image.mean(axis=0, keepdims=True), 3, axis=0)
    colors = np.moveaxis(colormaps["inferno"](heat)[..., :3], 2, 0) * 255
    return (0.45 * gray + 0.55 * colors).round().astype(np.uint8)


def _shown(images: torch.Tensor, data: Data) -> NDArray[np.uint8]:
    """Images (n, C, H, W) as gray or color bytes of at most SIDE pixels a side.

    Floating-point pixels, which have no range of their own, are stretched from their least to their greatest value.
    """
    if data.spec.input.dtype != "uint8" and images.numel():
        low, high = images.min(), images.max()
        images = (images - low) * (255 / (high - low).clamp_min(1e-12))
    channels = images.shape[1]
    # of other channels than a screen's: without alpha, else their mean
    images = images[:, :3] if channels in (3, 4) else images.mean(dim=1, keepdim=True)
    if not len(images):
        return np.zeros((0, images.shape[1], 1, 1), np.uint8)
    return _shrunk(images)


def _shrunk(images: torch.Tensor) -> NDArray[np.uint8]:
    """Images (n, C, H, W) in 0..255 as bytes, of at most SIDE pixels a side."""
    from torch.nn import functional

    height, width = images.shape[2:]
    shrink = SIDE / max(height, width)
    if shrink < 1:
        size = max(1, round(height * shrink)), max(1, round(width * shrink))
        images = functional.interpolate(images, size, mode="area")
    return images.round().clamp(0, 255).byte().cpu().numpy()
