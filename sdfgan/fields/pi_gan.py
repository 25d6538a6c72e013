"""The radiance field of pi-GAN (Chan et al. 2021, arXiv:2012.00926): a volume, and a surface for what needs one.

A layer is sin(f (W x + b) + p) with f = 15 raw + 30. As a surface, a level of the density minus it, divided by its
typical slope, takes the place of a signed distance, and colours are those seen from the front.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sdfgan.checks import check_whole
from sdfgan.conditions import Condition
from sdfgan.fields.base import Field, linear_layers
from sdfgan.fields.volume import Radiance, RaySamples

_FRONT = (0.0, 0.0, -1.0)  # direction of a ray that looks from +z
_FREQUENCY = 25.0  # of SIREN's initialisation
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "softplus": F.softplus}
_PRIOR_RADIUS, _PRIOR_SOFTNESS = 0.5, 0.01
_SLOPE_POINTS, _SLOPE_QUANTILE, _SLOPE_SHAPES = 4096, 0.99, 4


@dataclass(frozen=True)
class PiGanCondition(Condition):
    """Layer i is sin(scales[:, i] * (W_i x) + shifts[:, i]); both [B, layers, width], the last for colour."""

    scales: Tensor
    shifts: Tensor


class PiGanField(Field):
    """latent [latent_size] -> the surface where the density is `level`, and its colours.

    Args:
        layers: sine layers before the density.
        level, scale, gain: buffers; the raw density of the surface, the network's coordinates per world unit, and the
            density per world unit of a raw density of 1.
        prior: buffer; a ball of radius 1/2 that raw densities begin with, by how fast they fall with the distance from
            the origin. 0, as in pi-GAN, begins with fog, from which training finds shapes more slowly.
        activation: what makes raw densities positive, "relu" or "softplus".
        extent: nothing is farther from the origin.
        near_far: range in which rays sample the volume, in units of the camera's distance from the origin, or None.
    """

    view_locked = False  # whether a volume's colours are those seen from the front (pi-GAN's lock_view_dependence)

    level: Tensor
    mixed_precision = True
    scale: Tensor
    slope: Tensor
    gain: Tensor
    prior: Tensor

    def __init__(
        self,
        width: int = 256,
        layers: int = 8,
        latent_size: int = 256,
        mapping_width: int = 256,
        level: float = 10.0,
        scale: float = 1.0,
        gain: float = 1.0,
        prior: float = 0.0,
        activation: str = "relu",
        extent: float = math.sqrt(3),
        near_far: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "layers": layers, "latent_size": latent_size, "mapping_width": mapping_width}
        check_whole("PiGanField", 1, **sizes)
        if activation not in _ACTIVATIONS:
            raise ValueError(f"PiGanField: activation must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
        self.latent_size, self.width, self.near_far = latent_size, width, near_far
        self.activation, self._extent = _ACTIVATIONS[activation], extent
        films = 2 * width * (layers + 1)
        self.mapping = linear_layers(latent_size, mapping_width, 3, films, lambda: nn.LeakyReLU(0.2))
        self.layers = nn.ModuleList([nn.Linear(3 if i == 0 else width, width) for i in range(layers)])
        self.density_head = nn.Linear(width, 1)
        self.color_layer = nn.Linear(width + 3, width)
        self.color_head = nn.Linear(width, 3)
        for name, value in (("level", level), ("scale", scale), ("slope", 1.0), ("gain", gain), ("prior", prior)):
            self.register_buffer(name, torch.tensor(value))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """As pi-GAN: SIREN's (Sitzmann et al. 2020) for sine layers, Kaiming's for the mapping network."""
        for index in range(0, len(self.mapping), 2):
            nn.init.kaiming_normal_(self.mapping[index].get_parameter("weight"), 0.2)
            nn.init.zeros_(self.mapping[index].get_parameter("bias"))
        self.mapping[-1].get_parameter("weight").mul_(0.25)
        for layer in (*self.layers, self.density_head, self.color_layer, self.color_head):
            weight = layer.get_parameter("weight")
            bound = 1 / 3 if weight.shape[1] == 3 else math.sqrt(6 / weight.shape[1]) / _FREQUENCY
            weight.uniform_(-bound, bound)

    @property
    def extent(self) -> float:
        """See `Field.extent`."""
        return self._extent

    def condition(self, latents: Tensor | None) -> PiGanCondition:
        """FiLM of latents [B, latent_size], biases folded in."""
        self._check_latents(latents)
        assert latents is not None
        frequencies, phases = self.mapping(latents).view(len(latents), 2, len(self.layers) + 1, self.width).unbind(1)
        biases = torch.stack([layer.get_parameter("bias") for layer in (*self.layers, self.color_layer)])
        scales = 15 * frequencies + 30
        return PiGanCondition(scales, scales * biases + phases)

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """[N] per world unit; see `sdfgan.volume.VolumeField`."""
        return self._density(places.points, self._features(places.points, condition, places.image))

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """Density and colours as seen along the directions, or as `view_locked`; see `sdfgan.volume.VolumeField`."""
        features = self._features(places.points, condition, places.image)
        directions = self._front(places.points) if self.view_locked else places.directions
        return Radiance(
            self._density(places.points, features), self._color(features, directions, condition, places.image)
        )

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """(level - raw density) / slope [N]; no true distance. See `Field.sdf`."""
        return (self.level - self._raw(points, self._features(points, condition, image))) / self.slope

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Colours [N, 3] as seen from the front."""
        return self._color(self._features(points, condition, image), self._front(points), condition, image)

    def _front(self, points: Tensor) -> Tensor:
        return points.new_tensor(_FRONT).expand(len(points), 3)

    def _raw(self, points: Tensor, features: Tensor) -> Tensor:
        distance = (points.square().sum(1) + _PRIOR_SOFTNESS).sqrt()
        return self.density_head(features)[:, 0] + self.prior * (_PRIOR_RADIUS - distance)

    def _density(self, points: Tensor, features: Tensor) -> Tensor:
        return self.gain * self.activation(self._raw(points, features))

    def _color(self, features: Tensor, directions: Tensor, condition: Any, image: Tensor | None) -> Tensor:
        x = torch.cat([directions, features], 1)
        return self.color_head(self._layer(self.color_layer, x, condition, len(self.layers), image)).sigmoid()

    def _features(self, points: Tensor, condition: PiGanCondition, image: Tensor | None) -> Tensor:
        x = points * self.scale
        for index, layer in enumerate(self.layers):
            x = self._layer(layer, x, condition, index, image)
        return x

    def _layer(
        self, layer: nn.Module, x: Tensor, condition: PiGanCondition, index: int, image: Tensor | None
    ) -> Tensor:
        weight, scale, shift = layer.get_parameter("weight"), condition.scales[:, index], condition.shifts[:, index]
        if image is not None:
            return torch.sin(scale[image] * (x @ weight.T) + shift[image])
        if len(scale) == 0 or len(x) % len(scale):
            raise ValueError(
                f"PiGanField: {len(x)} points cannot be shared by {len(scale)} latents; give image indices"
            )
        shares = x.view(len(scale), -1, x.shape[1])  # the same weights for all points of a latent
        return torch.baddbmm(shift[:, None], shares, (scale[:, :, None] * weight).transpose(1, 2)).sin().flatten(0, 1)

    def measure_slope(self) -> None:
        """Set `slope` from the gradients at random points of random shapes, so that marches take safe steps."""
        random = torch.Generator().manual_seed(0)
        latents = torch.randn(_SLOPE_SHAPES, self.latent_size, generator=random)
        points = 2 * torch.rand(_SLOPE_SHAPES * _SLOPE_POINTS, 3, generator=random) - 1
        image = torch.arange(_SLOPE_SHAPES, device=self.slope.device).repeat_interleave(_SLOPE_POINTS)
        self.slope.fill_(1.0)
        with torch.no_grad():
            condition = self.condition(latents.to(self.slope.device))
        _, gradient = self.sdf_and_gradient(points.to(self.slope.device), condition, image)
        self.slope.copy_(gradient.detach().norm(dim=1).quantile(_SLOPE_QUANTILE).clamp(min=1e-6))
