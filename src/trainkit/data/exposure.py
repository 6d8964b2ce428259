"""Images that show nothing, and pixels that use a small part of 0..255: what `check` says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DARK = 16  # of 255: an image without a brighter pixel is nearly black
FLAT = 4  # levels: an image whose channels all vary by no more is constant but for what JPEG makes of it
NARROW = 64  # levels: a whole split that uses fewer is hardly photographs, or drawings
EXAMPLES = 5

Ranges = NDArray[np.uint8]  # (N, 3): of each image the darkest and the brightest value, and the most a channel varies


def ranges(images: NDArray[np.uint8]) -> Ranges:
    """What uint8 images (N, C, H, W) span."""
    pixels = images.reshape(*images.shape[:2], -1)
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    return np.stack([low.min(axis=1), high.max(axis=1), (high - low).max(axis=1)], axis=1)


def judge(found: Mapping[str, Ranges], name: Callable[[str, int], str]) -> tuple[dict[str, Any], list[str]]:
    """The facts of each split as JSON data, and warnings. name: what to call an image, by split and row."""
    facts: dict[str, Any] = {}
    warnings: list[str] = []
    for split, spans in found.items():
        if not len(spans):
            continue
        low, high = int(spans[:, 0].min()), int(spans[:, 1].max())
        dark = np.flatnonzero(spans[:, 1] <= DARK)
        flat = np.flatnonzero((spans[:, 2] <= FLAT) & (spans[:, 1] > DARK))
        facts[split] = {"min": low, "max": high, "nearly_black": len(dark), "constant": len(flat)}
        if high - low < NARROW:
            warnings.append(_narrow(split, low, high))
            continue  # each of its images would be told, too
        for what, rows in ((f"nearly black (no pixel above {DARK} of 255)", dark), ("constant, or nearly so", flat)):
            if len(rows):
                called = ", ".join(name(split, int(row)) for row in rows[:EXAMPLES])
                plural = "s are" if len(rows) > 1 else " is"
                more = ", …" if len(rows) > EXAMPLES else ""
                warnings.append(f"{len(rows):,} image{plural} {what} in {split}: {called}{more}")
    return facts, warnings


def _narrow(split: str, low: int, high: int) -> str:
    if high <= 1:
        return f"pixels are only 0 and 1 in {split}, in uint8, which counts as 0..255: were they divided by 255?"
    return (
        f"pixels are only {low}..{high} of 0..255 in {split}: were they divided, or shrunk from 16 bits (of which the "
        "upper 8 are read)?"
    )
