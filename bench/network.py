"""The work's model in plain PyTorch, for the contestants that take one."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from bench.works import Work


def network(work: Work) -> nn.Module:
    """The mlp or cnn of the work: (N, C, H, W) to (N, 10) logits."""
    depth, height, width = work.in_shape
    layers: list[nn.Module] = []
    for channels in work.channels:
        layers += [nn.Conv2d(depth, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        depth, height, width = channels, height // 2, width // 2
    layers.append(nn.Flatten())
    widths = [math.prod((depth, height, width)), *work.hidden]
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def best_device() -> torch.device:
    """CUDA when there is one, else the CPU: what trainkit's device=auto does."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
