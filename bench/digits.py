"""scikit-learn's digits as every contestant but trainkit splits them."""

from __future__ import annotations

import numpy as np


def digits() -> list[np.ndarray]:
    """Train images and labels, test images and labels, 80 to 20, stratified: uint8 (N, 1, 8, 8) and int64 (N,)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        pixels, labels.astype(np.int64), test_size=0.2, stratify=labels, random_state=0
    )
    return [train, train_labels, test, test_labels]
