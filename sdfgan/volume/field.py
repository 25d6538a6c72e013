"""Rays through a volume, and signed-distance fields as volumes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from sdfgan.fields.base import Field
from sdfgan.fields.volume import Radiance, RaySamples


class Rays(NamedTuple):
    """R rays, and the part of each that is rendered."""

    origins: Tensor  # [R, 3] world
    directions: Tensor  # [R, 3] unit
    near: Tensor  # [R] distance
    far: Tensor  # [R] distance, > near
    radii: Tensor | None = None  # [R] of the pixel's cone, per unit of distance (`ops.sample_pixels`)
    image: Tensor | None = None  # [R] int64: each ray's row of the condition; None: as many rays for each row in turn


class SdfVolume(nn.Module):
    """A signed-distance field as a volume whose density rises where the distance falls through zero.

    "laplace" (VolSDF, Yariv et al. 2021, arXiv:2106.12052): Laplace's cumulative distribution of scale beta at -sdf,
    over beta. "logistic" (NeuS, Wang et al. 2021, arXiv:2106.10689, eq. 10): the density for which the weights along a
    ray peak where it enters the surface; zero where it leaves.

    Args:
        field: any `Field`; colours are its albedo, without light.
        beta: width of the surface, world units; a tensor may be learnt.
    """

    def __init__(
        self, field: Field, beta: float | Tensor = 0.01, density: Literal["laplace", "logistic"] = "laplace"
    ) -> None:
        super().__init__()
        if density not in ("laplace", "logistic"):
            raise ValueError(f"SdfVolume: density must be 'laplace' or 'logistic', got {density!r}")
        self.field, self.beta, self.kind = field, beta, density

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        if self.kind == "laplace":
            return self._laplace(self.field.sdf(places.points, condition, places.image))
        value, gradient = self.field.sdf_and_gradient(places.points, condition, places.image)
        return self._logistic(value, gradient, places.directions)

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        sample = self.field.evaluate(places.points, condition, places.image)
        normals = sample.gradient / (sample.gradient.norm(dim=-1, keepdim=True) + 1e-8)
        if self.kind == "laplace":
            density = self._laplace(sample.sdf)
        else:
            density = self._logistic(sample.sdf, sample.gradient, places.directions)
        return Radiance(density, sample.rgb, normals)

    def _laplace(self, sdf: Tensor) -> Tensor:
        beyond = 0.5 * (-sdf.abs() / self.beta).exp()
        return torch.where(sdf > 0, beyond, 1 - beyond) / self.beta

    def _logistic(self, sdf: Tensor, gradient: Tensor, directions: Tensor) -> Tensor:
        enters = (-(gradient * directions).sum(-1)).clamp(min=0)
        return torch.sigmoid(-sdf / self.beta) * enters / self.beta
