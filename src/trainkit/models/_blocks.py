"""Parts of the convolutional families in `models/`, which read no torch until they build."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.body(x)
        return result


class GlobalMax(nn.Module):
    """The largest value of each channel: (N, C, H, W) to (N, C). Unlike torch's pooling, deterministic on CUDA.

    By index: the gradient of `amax` asks which values equal the largest, and a compiled backward pass in bf16 computes
    them again with other rounding, finds none, and divides by zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).max(dim=2).values


class Cool(nn.Module):
    """Logits divided by a temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.factor = 1 / temperature

    def forward(self, logits: Tensor) -> Tensor:
        return logits * self.factor


class BasicBlock(nn.Module):
    """The residual block of ResNet-18: two 3x3 convolutions around a shortcut (He et al. 2015, arXiv:1512.03385).

    Named as torchvision's. The shortcut is a 1x1 convolution where the shape changes (the paper's option B).
    """

    def __init__(self, in_depth: int, depth: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_depth, depth, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(depth)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(depth, depth, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(depth)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_depth != depth:
            self.downsample = nn.Sequential(nn.Conv2d(in_depth, depth, 1, stride, bias=False), nn.BatchNorm2d(depth))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(x)) + shortcut)
        return result


class GlobalMean(nn.Module):
    """The mean of each channel: (N, C, H, W) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Whitening(nn.Module):
    """A frozen convolution whose outputs are uncorrelated and of variance 1 on the training images, and a trained bias.

    Maps (N, C, H, W) to (N, 2 * C * side**2, H - side + 1, W - side + 1): every principal component of the patches, and
    its negative, because an activation follows. The bias is called `offset`, so that an optimizer's settings for
    biases leave it alone, as the author's code does.
    """

    def __init__(self, channels: int, side: int = 2) -> None:
        super().__init__()
        size = channels * side**2
        self.weight = nn.Parameter(torch.randn(2 * size, channels, side, side) / size**0.5, requires_grad=False)
        self.offset = nn.Parameter(torch.zeros(2 * size))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.offset)

    @torch.no_grad()
    def whiten(self, images: Tensor, eps: float = 5e-4) -> None:
        """Take the weights from normalized images (N, C, H, W).

        eps is added to the variances, in units of the normalized pixels, so that noise is not blown up.
        """
        size = self.weight[0].numel()
        covariance = torch.zeros(size, size, dtype=torch.float64)
        patches = 0
        for part in torch.split(images, 500):  # all patches of 5,000 CIFAR images at once would be 230 MB
            columns = functional.unfold(part, self.weight.shape[2:]).transpose(0, 1).flatten(1)
            covariance += columns @ columns.T
            patches += columns.shape[1]
        variances, components = torch.linalg.eigh(covariance / patches)
        scaled = (
            (components / (variances + eps).sqrt()).T.flip(0).to(self.weight.dtype).view(size, *self.weight.shape[1:])
        )
        self.weight.copy_(torch.cat([scaled, -scaled]))


def bias_norm(depth: int) -> nn.BatchNorm2d:
    """Batch normalization with a bias but no trained scale, and quick running statistics."""
    norm = nn.BatchNorm2d(depth, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


def dirac_conv(in_depth: int, depth: int) -> nn.Conv2d:
    """A 3x3 convolution without bias whose first filters pass their input on unchanged; the rest are random."""
    conv = nn.Conv2d(in_depth, depth, 3, padding="same", bias=False)
    nn.init.dirac_(conv.weight[:in_depth])
    return conv


class Airbench(nn.Sequential):
    """The layers of `models/airbench.py`, with the first one to be taken from the training images."""

    def initialize(self, images: Tensor) -> None:
        """Whiten: images are normalized training images (N, C, H, W) on the CPU."""
        whitening = self[0]
        assert isinstance(whitening, Whitening)
        whitening.whiten(images)
