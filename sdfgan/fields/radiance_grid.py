"""A radiance field that is mostly a hash grid (Mueller et al. 2022, arXiv:2201.05989): learnt in minutes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.base import linear_layers
from sdfgan.fields.contraction import contract
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.fields.volume import Radiance, RaySamples

_MAX_LOG_DENSITY = 11.0
_GEOMETRY = 15  # features that the colour network gets besides the direction
DIRECTION_LEVELS = 2  # spherical harmonics of degrees 1 and 2
_FIRST_DENSITY = 0.0  # logarithm of an untrained field's


class _Exponential(torch.autograd.Function):
    """exp, whose gradient does not vanish or explode with it (as instant-ngp's)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(max=_MAX_LOG_DENSITY).exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.clamp(-_MAX_LOG_DENSITY, _MAX_LOG_DENSITY).exp()


class RadianceGrid(nn.Module):
    """Features of a hash grid, a network for the density, and one for the colour by direction.

    Args:
        width, layers: units and hidden layers of both networks (the colour's has one layer more).
        levels, log2_size, finest: of the grid (`HashGrid`).
        contracted: whether the scene is unbounded.
    """

    def __init__(
        self,
        width: int = 64,
        layers: int = 1,
        levels: int = 16,
        features: int = 2,
        log2_size: int = 19,
        finest: int = 2048,
        contracted: bool = False,
    ) -> None:
        super().__init__()
        self.contracted = contracted
        coarsest = min(16, finest)
        self.grid = HashGrid(levels=levels, features=features, log2_size=log2_size, coarsest=coarsest, finest=finest)
        self.density_net = small_mlp(self.grid.width, width, layers, 1 + _GEOMETRY)
        directions = 2 * (2**DIRECTION_LEVELS - 1 + DIRECTION_LEVELS)
        self.color_net = small_mlp(directions + _GEOMETRY, width, layers + 1, 3)

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        return self._density(self._features(places))

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        features = self._features(places)
        smooth = torch.zeros_like(places.directions[:, 0])
        directions = ops.integrated_directional_encoding(places.directions, smooth, DIRECTION_LEVELS)
        color = self.color_net(torch.cat((directions, features[:, 1:]), -1))
        return Radiance(self._density(features), color.float().sigmoid())

    def _features(self, places: RaySamples) -> Tensor:
        points = contract(places.points) / 2 if self.contracted else places.points
        return self.density_net(self.grid(points))

    def _density(self, features: Tensor) -> Tensor:
        density: Tensor = _Exponential.apply(features[:, 0].float() + _FIRST_DENSITY)
        return density


def small_mlp(inputs: int, width: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear layers, `hidden` of them hidden ones of so many units, with ReLU between."""
    network = linear_layers(inputs, width, hidden, outputs, nn.ReLU)
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return network
