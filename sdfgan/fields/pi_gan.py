"""The radiance field of pi-GAN (Chan et al. 2021, arXiv:2012.00926) as a surface: for weights trained elsewhere.

A layer is sin(f (W x + b) + p) with f = 15 raw + 30. Density minus a level, divided by its typical slope, takes the
place of a signed distance; colours are those seen from the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdfgan.fields.base import Field

_FRONT = (0.0, 0.0, -1.0)  # direction of a ray that looks from +z
_SLOPE_POINTS, _SLOPE_QUANTILE, _SLOPE_SHAPES = 4096, 0.99, 4


@dataclass(frozen=True)
class PiGanCondition:
    """Layer i is sin(scales[:, i] * (W_i x) + shifts[:, i]); both [B, layers, width], the last for colour."""

    scales: Tensor
    shifts: Tensor

    def detach(self) -> PiGanCondition:
        """The same numbers without a graph."""
        return PiGanCondition(self.scales.detach(), self.shifts.detach())

    def __len__(self) -> int:
        return len(self.scales)


class PiGanField(Field):
    """latent [latent_size] -> the surface where the density is `level`, and its colours.

    Args:
        layers: sine layers before the density.
        level, scale: buffers; density of the surface, and the network's coordinates per world unit.
    """

    level: Tensor
    scale: Tensor
    slope: Tensor

    def __init__(
        self,
        width: int = 256,
        layers: int = 8,
        latent_size: int = 256,
        mapping_width: int = 256,
        level: float = 10.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.latent_size, self.width = latent_size, width
        modules: list[nn.Module] = []
        inputs = latent_size
        for _ in range(3):
            modules += [nn.Linear(inputs, mapping_width), nn.LeakyReLU(0.2)]
            inputs = mapping_width
        self.mapping = nn.Sequential(*modules, nn.Linear(inputs, 2 * width * (layers + 1)))
        self.layers = nn.ModuleList([nn.Linear(3 if i == 0 else width, width) for i in range(layers)])
        self.density = nn.Linear(width, 1)
        self.color_layer = nn.Linear(width + 3, width)
        self.color_head = nn.Linear(width, 3)
        for name, value in (("level", level), ("scale", scale), ("slope", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    def condition(self, latents: Tensor | None) -> PiGanCondition:
        """FiLM of latents [B, latent_size], biases folded in."""
        if latents is None or latents.ndim != 2 or latents.shape[1] != self.latent_size:
            got = "None" if latents is None else list(latents.shape)
            raise ValueError(f"PiGanField.condition: latents must be [B, {self.latent_size}], got {got}")
        frequencies, phases = self.mapping(latents).view(len(latents), 2, -1, self.width).unbind(1)
        biases = torch.stack([layer.get_parameter("bias") for layer in (*self.layers, self.color_layer)])
        scales = 15 * frequencies + 30
        return PiGanCondition(scales, scales * biases + phases)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """(level - density) / slope [N]; no true distance. See `Field.sdf`."""
        return (self.level - self.density(self._features(points, condition, image))[:, 0]) / self.slope

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Colours [N, 3] as seen from the front."""
        features = self._features(points, condition, image)
        front = points.new_tensor(_FRONT).expand(len(points), 3)
        x = self._layer(self.color_layer, torch.cat([front, features], 1), condition, len(self.layers), image)
        return self.color_head(x).sigmoid()

    def _features(self, points: Tensor, condition: PiGanCondition, image: Tensor | None) -> Tensor:
        x = points * self.scale
        for index, layer in enumerate(self.layers):
            x = self._layer(layer, x, condition, index, image)
        return x

    def _layer(
        self, layer: nn.Module, x: Tensor, condition: PiGanCondition, index: int, image: Tensor | None
    ) -> Tensor:
        scale, shift = condition.scales[:, index], condition.shifts[:, index]
        if image is not None:
            scale, shift = scale[image], shift[image]
        elif len(scale) != 1:
            raise ValueError(f"PiGanField: image indices are needed to choose among {len(scale)} latents")
        return torch.sin(scale * (x @ layer.get_parameter("weight").T) + shift)

    def measure_slope(self) -> None:
        """Set `slope` from the gradients at random points of random shapes, so that marches take safe steps."""
        random = torch.Generator().manual_seed(0)
        latents = torch.randn(_SLOPE_SHAPES, self.latent_size, generator=random)
        points = 2 * torch.rand(_SLOPE_SHAPES * _SLOPE_POINTS, 3, generator=random) - 1
        image = torch.arange(_SLOPE_SHAPES).repeat_interleave(_SLOPE_POINTS)
        self.slope.fill_(1.0)
        with torch.no_grad():
            condition = self.condition(latents)
        _, gradient = self.sdf_and_gradient(points, condition, image)
        self.slope.copy_(gradient.detach().norm(dim=1).quantile(_SLOPE_QUANTILE).clamp(min=1e-6))
