"""Signed-distance fields by an ordinary multi-layer perceptron of positionally encoded points.

The latent enters as a shift of three layers, which is the same as appending it to their inputs, but is computed once
per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm as normalise

from sdfgan import ops
from sdfgan.checks import check_whole
from sdfgan.conditions import Condition
from sdfgan.fields.base import Field, FieldSample, differentiate

_PRIOR_SOFTNESS = 0.01  # under the root of the sphere prior, so that it is smooth at the origin
_SHARPNESS = 20.0  # of softplus: near ReLU, but with a second derivative
_LARGEST_FREQUENCY_STEP = 0.5  # input weights fall by this for each octave, so that an untrained field is smooth


def _softplus(x: Tensor) -> Tensor:  # by its name fields that have it can be pickled
    return F.softplus(x, beta=_SHARPNESS)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"softplus": _softplus, "relu": F.relu}


@dataclass(frozen=True)
class MlpCondition(Condition):
    """A batch of latents as the network sees it: shifts [B, 3, width] of the first, skip and texture layers."""

    shifts: Tensor


class MlpSDF(Field):
    """A family of coloured shapes: latent [latent_size (+ texture_latent_size)] -> signed distance and albedo.

    sdf(x) = sqrt(|x|^2 + 0.01) - prior_radius + bias + net(x), as in `FilmSirenSDF`. A trunk, with a skip connection
    from the encoded point to its middle, feeds an SDF branch and a texture branch.

    Args:
        width: units per layer.
        trunk_layers, sdf_layers, texture_layers: hidden layers of the trunk and of each branch (all at least 1).
        octaves: frequencies of the positional encoding.
        activation: "softplus" or "relu".
        weight_norm: whether hidden layers are weight-normalised (Salimans and Kingma 2016).
    """

    mixed_precision = True

    def __init__(
        self,
        width: int = 64,
        trunk_layers: int = 3,
        sdf_layers: int = 1,
        texture_layers: int = 1,
        latent_size: int = 64,
        texture_latent_size: int = 0,
        octaves: int = 5,
        activation: str = "softplus",
        weight_norm: bool = False,
        prior_radius: float = 0.5,
    ) -> None:
        super().__init__()
        check_whole("MlpSDF", 1, width=width, trunk_layers=trunk_layers, latent_size=latent_size)
        none = {"sdf_layers": sdf_layers, "texture_layers": texture_layers, "texture_latent_size": texture_latent_size}
        check_whole("MlpSDF", 0, **none, octaves=octaves)
        if activation not in ACTIVATIONS:
            raise ValueError(f"MlpSDF: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.geometry_latent_size, self.texture_latent_size = latent_size, texture_latent_size
        self.latent_size = latent_size + texture_latent_size
        self.octaves, self.prior_radius = octaves, prior_radius
        self.activation = ACTIVATIONS[activation]
        self.skip_at = (trunk_layers + 1) // 2
        inputs = 3 + 6 * octaves

        def hidden(count: int) -> nn.ModuleList:
            layers = [nn.Linear(width, width) for _ in range(count)]
            for layer in layers:
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
            return nn.ModuleList(normalise(layer) if weight_norm else layer for layer in layers)

        self.first = nn.Linear(inputs, width, bias=False)
        self.skip = nn.Linear(inputs, width, bias=False)
        for layer in (self.first, self.skip):
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / 3))
            with torch.no_grad():
                octave = (torch.arange(inputs) - 3).div(6, rounding_mode="floor").clamp(min=-1) + 1
                layer.weight *= _LARGEST_FREQUENCY_STEP ** octave.float() / 2
        self.trunk, self.sdf_layers = hidden(trunk_layers - 1), hidden(sdf_layers)
        self.texture_layers = hidden(texture_layers)
        self.sdf_head = nn.Linear(width, 1)
        self.texture_head = nn.Linear(width, 3)
        with torch.no_grad():
            self.sdf_head.weight.normal_(0, 0.01 / math.sqrt(width))
            self.sdf_head.bias.zero_()
            self.texture_head.weight.normal_(0, 0.3 / math.sqrt(width))
            self.texture_head.bias.zero_()
        self.mapping = nn.Linear(latent_size, width * (2 if texture_latent_size else 3))
        self.texture_mapping = nn.Linear(texture_latent_size, width) if texture_latent_size else None

    def condition(self, latents: Tensor | None) -> MlpCondition:
        """The shifts of latents [B, latent_size]; never call it per point."""
        self._check_latents(latents)
        assert latents is not None
        shifts = self.mapping(latents[:, : self.geometry_latent_size])
        if self.texture_mapping is not None:
            texture = self.texture_mapping(latents[:, self.geometry_latent_size :])
            shifts = torch.cat([shifts, texture], 1)
        return MlpCondition(shifts.unflatten(1, (3, shifts.shape[1] // 3)))

    def mixed(self, shapes: MlpCondition, colours: MlpCondition) -> MlpCondition:
        """The shapes [B] of one condition with the colours [B] of another; differentiable."""
        return MlpCondition(torch.cat([shapes.shifts[:, :2], colours.shifts[:, 2:]], 1))

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Signed distances [N]; see `Field.sdf`."""
        return self._value(points, self._trunk(points, condition, image))

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Albedo [N, 3]; see `Field.rgb`."""
        return self._texture(self._trunk(points, condition, image), condition, image)

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        """Distance, gradient and albedo in one pass that shares the trunk."""

        def both(points: Tensor, condition: MlpCondition, image: Tensor | None) -> tuple[Tensor, Tensor]:
            trunk = self._trunk(points, condition, image)
            return self._value(points, trunk), self._texture(trunk, condition, image)

        (value, color), gradient = differentiate(both, self, points, condition, image)
        return FieldSample(value, gradient, color)

    def _trunk(self, points: Tensor, condition: MlpCondition, image: Tensor | None) -> Tensor:
        encoded = ops.positional_encoding(points.contiguous(), self.octaves, include_input=True)
        x = self.activation(self.first(encoded) + self._shift(condition, 0, image))
        for index, layer in enumerate(self.trunk, 1):
            x = layer(x)
            if index == self.skip_at:
                x = (x + self.skip(encoded) + self._shift(condition, 1, image)) / math.sqrt(2)
            x = self.activation(x)
        return x

    def _value(self, points: Tensor, trunk: Tensor) -> Tensor:
        x = trunk
        for layer in self.sdf_layers:
            x = self.activation(layer(x))
        prior = torch.sqrt(points.square().sum(-1) + _PRIOR_SOFTNESS) - self.prior_radius
        return self.sdf_head(x)[:, 0] + prior

    def _texture(self, trunk: Tensor, condition: MlpCondition, image: Tensor | None) -> Tensor:
        x = trunk
        for index, layer in enumerate(self.texture_layers):
            x = layer(x)
            if index == 0:
                x = x + self._shift(condition, 2, image)
            x = self.activation(x)
        return torch.sigmoid(2 * self.texture_head(x))

    def _shift(self, condition: MlpCondition, layer: int, image: Tensor | None) -> Tensor:
        shifts = condition.shifts[:, layer]
        if image is not None:
            return shifts[image]
        if len(shifts) != 1:
            raise ValueError(f"MlpSDF: image indices are needed to choose among {len(shifts)} latents")
        return shifts
