"""The limit: a loop written by hand for this one model, over uint8 tensors that are already on the device.

Nothing is logged, saved, checked or measured but the losses and, at the end, the accuracy. It imports nothing of
trainkit. `bench/steady.py` times its `train_epoch` against trainkit's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from bench.digits import digits
from bench.network import best_device, network
from bench.stopwatch import Stopwatch, arguments
from bench.works import STATS, Work

Arrays = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclasses.dataclass
class Bare:
    """What the loop needs. scale and shift turn uint8 pixels into standardized floats: (C, 1, 1) each."""

    work: Work
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scale: torch.Tensor
    shift: torch.Tensor

    def batch(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) to what the model takes."""
        inputs = torch.mul(pixels, self.scale).add_(self.shift)
        return inputs.contiguous(memory_format=torch.channels_last) if self.work.bf16 else inputs

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (N, C, H, W) to float32 logits (N, 10)."""
        inputs = self.batch(pixels)
        if not self.work.bf16:
            return self.model(inputs)
        with torch.autocast(self.device.type, torch.bfloat16):
            outputs = self.model(inputs)
        return outputs.float()


def prepare(work: Work, device: torch.device) -> Bare:
    """Model, optimizer and constants; the weights come from torch's default generator."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in STATS[work.data])
    model = network(work).to(device)
    if work.bf16:
        model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=work.lr, fused=True)
    return Bare(work, device, model, optimizer, (1 / (std * 255)).to(device), (-mean / std).to(device))


def train_epoch(
    bare: Bare, images: torch.Tensor, labels: torch.Tensor, order: torch.Tensor, stepped: Callable[[], object] | None
) -> list[torch.Tensor]:
    """One epoch over uint8 images (N, C, H, W) in this order; returns the loss of every step, left on the device."""
    bare.model.train()
    losses = []
    for index in order.split(bare.work.batch_size):
        pixels = images.index_select(0, index)
        if bare.work.flip_crop:
            pixels = flip_crop(pixels)
        loss = functional.cross_entropy(bare.forward(pixels), labels.index_select(0, index))
        bare.optimizer.zero_grad()
        loss.backward()
        bare.optimizer.step()
        losses.append(loss.detach())
        if stepped is not None:
            stepped()
    return losses


def flip_crop(pixels: torch.Tensor, padding: int = 4) -> torch.Tensor:
    """Mirror half of the images, then crop each at a random place after padding: one gather for the batch."""
    n, channels, height, width = pixels.shape
    rows = torch.arange(height, device=pixels.device) + torch.randint(0, 2 * padding + 1, (n, 1), device=pixels.device)
    columns = torch.arange(width, device=pixels.device).expand(n, width)
    columns = torch.where(torch.rand(n, 1, device=pixels.device) < 0.5, width - 1 - columns, columns)
    columns = columns + torch.randint(0, 2 * padding + 1, (n, 1), device=pixels.device)
    padded = functional.pad(pixels, (padding,) * 4).flatten(2)
    index = (rows.unsqueeze(2) * (width + 2 * padding) + columns.unsqueeze(1)).view(n, 1, -1)
    return padded.gather(2, index.expand(n, channels, -1)).view_as(pixels)


@torch.inference_mode()
def accuracy(bare: Bare, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of right answers."""
    bare.model.eval()
    batches = zip(images.split(bare.work.batch_size), labels.split(bare.work.batch_size), strict=True)
    return float(sum((bare.forward(x).argmax(1) == y).sum() for x, y in batches)) / len(labels)


def load(work: Work, data_dir: Path) -> Arrays:
    """Train images and labels, test images and labels: uint8 (N, C, H, W) and int64 (N,), read once."""
    if work.data == "mnist":
        raw = data_dir / "MNIST" / "raw"
        arrays = [*idx(raw, "train"), *idx(raw, "t10k")]
    elif work.data == "cifar10":
        arrays = [*jpegs(data_dir / "cifar10" / "train"), *jpegs(data_dir / "cifar10" / "test")]
    else:
        arrays = digits()
    train_images, train_labels, test_images, test_labels = map(torch.from_numpy, arrays)
    return train_images, train_labels, test_images, test_labels


def idx(raw: Path, split: str) -> list[np.ndarray]:
    """Images and labels of a split of MNIST."""
    images = np.fromfile(raw / f"{split}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return [images, np.fromfile(raw / f"{split}-labels-idx1-ubyte", np.uint8, offset=8).astype(np.int64)]


def jpegs(folder: Path) -> list[np.ndarray]:
    """Images and labels of class folders; classes and files in the order of their names."""
    from PIL import Image

    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    files = [(path, label) for label, place in enumerate(classes) for path in sorted(place.iterdir())]
    images = np.stack([np.asarray(Image.open(path)) for path, _ in files]).transpose(0, 3, 1, 2)
    return [np.ascontiguousarray(images), np.array([label for _, label in files])]


def main() -> None:
    watch = Stopwatch()
    work, seed, data_dir = arguments()
    watch.imported()
    torch.manual_seed(seed)
    device = best_device()
    if device.type == "cuda":
        watch.wait = torch.cuda.synchronize
    images, labels, test_images, test_labels = (tensor.to(device) for tensor in load(work, data_dir))
    bare = prepare(work, device)
    for _ in range(work.epochs):
        with watch.epoch():
            order = torch.randperm(len(labels)).to(device)
            train_epoch(bare, images, labels, order, watch.stepped)
    with watch.evaluation():
        share = accuracy(bare, test_images, test_labels)
    watch.finish(share)


if __name__ == "__main__":
    main()
