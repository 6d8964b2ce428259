"""Keras on torch: `fit` and `evaluate` over arrays in memory, Keras's own way where the data are arrays.

Image files go through the tutorial's DataLoader, which `fit` takes: Keras's own reader of image folders needs
TensorFlow. Channels come first, as the torch backend computes them, which spares Keras two copies a layer.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy as np
import torch
from keras import layers

from bench.contestants.bare import load
from bench.stopwatch import Stopwatch, arguments
from bench.works import STATS, Work


def network(work: Work) -> Any:
    """The work's model in Keras's layers, compiled."""
    keras.config.set_image_data_format("channels_first")
    parts: list[Any] = [keras.Input(work.in_shape)]
    for channels in work.channels:
        parts += [layers.Conv2D(channels, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)]
    parts.append(layers.Flatten())
    parts += [layers.Dense(width, activation="relu") for width in work.hidden]
    model = keras.Sequential([*parts, layers.Dense(10)])
    model.compile(
        optimizer=keras.optimizers.Adam(work.lr, epsilon=1e-8),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class Clock(keras.callbacks.Callback):
    """Hands Keras's events to the stopwatch."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch
        self.begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.watch.stepped()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.watch.wait()
        self.watch.epoch_s.append(time.perf_counter() - self.begin)


def feeds(work: Work, data_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `fit` and `evaluate` are given: standardized float32 arrays and labels, or DataLoaders."""
    if work.data == "cifar10":
        from bench.tutorial_data import loaders

        train_loader, test_loader = loaders(work, data_dir)
        return {"x": train_loader}, {"x": test_loader}
    mean, std = (np.float32(values).reshape(-1, 1, 1) for values in STATS[work.data])
    arrays = [tensor.numpy() for tensor in load(work, data_dir)]
    train, test = ((images.astype(np.float32) / 255 - mean) / std for images in arrays[::2])
    size = {"batch_size": work.batch_size}
    return {"x": train, "y": arrays[1], **size}, {"x": test, "y": arrays[3], **size}


def main() -> None:
    watch = Stopwatch()
    work, seed, data_dir = arguments()
    watch.imported()
    keras.utils.set_random_seed(seed)
    if torch.cuda.is_available():
        watch.wait = torch.cuda.synchronize
    for_train, for_test = feeds(work, data_dir)
    model = network(work)
    model.fit(**for_train, epochs=work.epochs, verbose=0, callbacks=[Clock(watch)])
    with watch.evaluation():
        _, accuracy = model.evaluate(**for_test, verbose=0)
    watch.finish(float(accuracy))


if __name__ == "__main__":
    main()
