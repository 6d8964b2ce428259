"""Where in an image a model looked for what it answered: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainkit.data.loaders import Normalize

PART = 16  # images in a pass


class Saliency:
    """Heat maps of a model's answers for raw images, in fp32 and without changing the model."""

    def __init__(self, model: nn.Module, normalize: Normalize, device: torch.device) -> None:
        self.model, self.normalize, self.device = model, normalize, device
        self._last: list[nn.Module] | None = None  # not looked for yet

    def __call__(self, images: NDArray[Any], classes: NDArray[np.int64]) -> NDArray[np.uint8] | None:
        """Maps (n, H, W), 255 where it looked most, of stored images (n, C, H, W) for the classes (n,) answered.

        None for a model that has no map of features: of an mlp, and of a transformer that keeps tokens.
        """
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            parts = []
            for start in range(0, len(images), PART):
                raw = torch.from_numpy(np.ascontiguousarray(images[start : start + PART])).to(self.device)
                inputs: Any = self.normalize.inputs(raw)
                if self._last is None:
                    self._last = [last] if (last := last_map(self.model, inputs)) is not None else []
                if not self._last:
                    return None
                labels = torch.from_numpy(classes[start : start + PART]).to(self.device)
                found = grad_cam(self.model, self._last[0], inputs, labels)
                parts.append((found * 255).round().byte().cpu().numpy())
            return np.concatenate(parts) if parts else None
        finally:
            for module, mode in modes:
                module.training = mode


def grad_cam(model: nn.Module, last: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    """Heat maps (n, H, W) in 0..1 for normalized images (n, C, H, W): of the map of features that `last` gives.

    Each channel counts by the mean gradient of the class's output; what speaks against the class is cut off.
    """
    maps: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        maps[:] = [output.detach().requires_grad_()]  # frozen weights before it need no gradient
        return maps[0].clone()  # what follows may work in place

    handle = last.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            outputs = model(inputs)
            score = outputs[torch.arange(len(outputs), device=outputs.device), classes].sum()
            (gradient,) = torch.autograd.grad(score, maps)
    finally:
        handle.remove()
    heat = (gradient.mean(dim=(2, 3), keepdim=True) * maps[0].detach()).sum(dim=1, keepdim=True).relu()
    heat = functional.interpolate(heat, inputs.shape[2:], mode="bilinear").squeeze(1)
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)


@torch.no_grad()
def last_map(model: nn.Module, inputs: Tensor) -> nn.Module | None:
    """The last module to give a map of features (n, C, h, w) of more than a pixel, by a pass of one image; or None."""
    found: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        is_map = isinstance(output, Tensor) and len(output.shape) > 3 and output.shape[2:].numel() > 1
        if is_map and output.is_floating_point():
            found.append(module)

    handles = [module.register_forward_hook(note) for module in model.modules() if module is not model]
    try:
        model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found[-1] if found else None
