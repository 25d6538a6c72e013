"""LPIPS, a distance of images by features of AlexNet (Zhang et al. 2018, arXiv:1801.03924), version 0.1.

The weights are not part of this package: the file holds the state dictionary of `lpips.LPIPS(net="alex")`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan.errors import UserError
from sdfgan.training.weights import load_weights

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
# Name in the file, inputs, outputs, size, stride, padding; a pooling goes before the second and the third.
_LAYERS = (
    ("net.slice1.0", 3, 64, 11, 4, 2),
    ("net.slice2.3", 64, 192, 5, 1, 2),
    ("net.slice3.6", 192, 384, 3, 1, 1),
    ("net.slice4.8", 384, 256, 3, 1, 1),
    ("net.slice5.10", 256, 256, 3, 1, 1),
)
_POOLED = (1, 2)
MIN_SIDE = 35  # pixels that all layers need


class Lpips(nn.Module):
    """The distance of two images [3, H, W] in [0, 1], at least 35 pixels wide and high."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(i, o, size, stride, pad) for _, i, o, size, stride, pad in _LAYERS)
        self.weights = nn.ParameterList(torch.zeros(1, outputs, 1, 1) for _, _, outputs, *_ in _LAYERS)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor, known: Tensor | None = None) -> float:
        """0 for equal images. Raises ValueError for other shapes.

        With `known` [H, W] bool the other pixels are the same grey in both, and in each layer a place counts by the
        share of known pixels in its part of the image; 0 where none is known.
        """
        if a.shape != b.shape or a.ndim != 3 or a.shape[0] != 3 or min(a.shape[1:]) < MIN_SIDE:
            raise ValueError(f"lpips: both must be [3, H, W], H and W >= 35, got {list(a.shape)}, {list(b.shape)}")
        if known is not None:
            a, b = (torch.where(known, image, 0.5) for image in (a, b))
        x = torch.stack((a, b)) * 2 - 1
        x = (x - x.new_tensor(_SHIFT)[:, None, None]) / x.new_tensor(_SCALE)[:, None, None]
        total = x.new_zeros(())
        for index, (layer, weight) in enumerate(zip(self.layers, self.weights, strict=True)):
            if index in _POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(layer(x))
            unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
            apart = ((unit[0] - unit[1]).square() * weight[0]).sum(0)  # [h, w]
            if known is None:
                total += apart.mean()
            else:
                shares = F.adaptive_avg_pool2d(known.to(apart)[None], apart.shape)[0]
                total += (apart * shares).sum() / shares.sum().clamp(min=1e-12)
        return total.item()


def load_lpips(path: Path) -> Lpips:
    """The network with the weights in a file (.safetensors, .pth). Raises UserError if it does not hold them."""
    tensors, network = load_weights(path), Lpips()
    with torch.no_grad():
        for index, (name, *_) in enumerate(_LAYERS):
            layer = network.layers[index]
            wanted = {
                f"{name}.weight": layer.get_parameter("weight"),
                f"{name}.bias": layer.get_parameter("bias"),
                f"lin{index}.model.1.weight": network.weights[index],
            }
            for key, parameter in wanted.items():
                found = tensors.get(key)
                if found is None or found.shape != parameter.shape:
                    got = "none" if found is None else list(found.shape)
                    raise UserError(f"{path}: tensor {key} must be {list(parameter.shape)}, got {got}")
                parameter.copy_(found)
    return network.requires_grad_(False)
