"""A radiance field that is mostly a hash grid (Mueller et al. 2022, arXiv:2201.05989): learnt in minutes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.contraction import contract
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.fields.small_mlp import SmallMlp, can_fuse
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


class _Recalled(torch.autograd.Function):
    """Features of a hash grid and a network that are known already, with the gradient by both; of first order.

    Of the hash grid it is that by its points, if they need one, and by its table or, where there is none, by what it
    encoded.
    """

    @staticmethod
    def forward(
        ctx: Any, unit: Tensor, encoded: Tensor, features: Tensor, grid: HashGrid, table: Tensor | None, *layers: Tensor
    ) -> Tensor:
        ctx.grid, ctx.by_table = grid, table is not None
        ctx.save_for_backward(unit, encoded, *layers)
        return features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        unit, encoded, *layers = ctx.saved_tensors
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        by_encoded, by_weights, by_biases = ops.perceptron_gradients(encoded, weights, biases, gradient.contiguous())
        grid, by_unit = ctx.grid, None
        if ctx.needs_input_grad[0]:
            by_unit = ops.hash_encoding_gradient(unit, grid.table, by_encoded, grid.cells, grid.table_size)
        if not ctx.by_table:
            return by_unit, by_encoded, None, None, None, *by_weights, *by_biases
        by_table = grid.table_gradient(unit, by_encoded)
        return by_unit, None, None, None, by_table, *by_weights, *by_biases


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
        self.density_net = SmallMlp(self.grid.width, width, layers, 1 + _GEOMETRY)
        directions = 2 * (2**DIRECTION_LEVELS - 1 + DIRECTION_LEVELS)
        self.color_net = SmallMlp(directions + _GEOMETRY, width, layers + 1, 3)

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        return self._density(self._features(places))

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        features = self._features(places) if places.known is None else self._recall(places.known, places)
        smooth = torch.zeros_like(places.directions[:, 0])
        directions = ops.integrated_directional_encoding(places.directions, smooth, DIRECTION_LEVELS)
        color = self.color_net(torch.cat((directions, features[:, 1:]), -1))
        return Radiance(self._density(features), color.float().sigmoid())

    @torch.no_grad()
    def survey(self, places: RaySamples) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """See `SurveyedField`."""
        points = self._points(places)
        if not can_fuse(points):
            return self._density(self.density_net(self.grid(points))), None
        unit = self.grid.unit(points)
        encoded = ops.hash_encoding(unit, self.grid.table, self.grid.cells, self.grid.table_size)
        features = self.density_net(encoded)
        return self._density(features), (unit, encoded, features)

    def _recall(self, known: tuple[Tensor, ...], places: RaySamples) -> Tensor:
        """`_features` of what `survey` knows."""
        if places.points.requires_grad:  # by which there is a gradient, too
            known = (self.grid.unit(self._points(places)), *known[1:])
        layers = [layer for layer in self.density_net if isinstance(layer, nn.Linear)]
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        table = None if known[1].requires_grad else self.grid.table
        features: Tensor = _Recalled.apply(*known, self.grid, table, *weights, *biases)
        return features

    def _points(self, places: RaySamples) -> Tensor:
        return contract(places.points) / 2 if self.contracted else places.points

    def _features(self, places: RaySamples) -> Tensor:
        return self.density_net(self.grid(self._points(places)))

    def _density(self, features: Tensor) -> Tensor:
        density: Tensor = _Exponential.apply(features[:, 0].float() + _FIRST_DENSITY)
        return density
