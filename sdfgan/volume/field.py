"""Rays through a volume, and signed-distance fields as volumes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
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


Kind = Literal["laplace", "logistic"]
_SHORTEST = 0.05  # of the surface's width: pieces along which the distance changes less count as so long


def surface_density(kind: Kind, sdf: Tensor, beta: float | Tensor, enters: Tensor, lengths: Tensor | None) -> Tensor:
    """Density [N] of a surface of width beta at distances sdf [N]; see `SdfVolume`.

    Args:
        enters: [N] how fast the distance falls along the ray, from -1 to 1.
        lengths: [N] of pieces of rays around these places: the mean density along them, exact for a distance that
            changes evenly (NeuS, eq. 13, whose opacity this gives); so pieces may be longer than the surface is wide.
            None: the density at the place.
    """
    if kind == "laplace":
        if lengths is None:
            return _laplace(sdf, beta)
        half = torch.clamp(enters.abs() * lengths / 2, min=_SHORTEST * beta)
        return (_laplace_integral(sdf + half, beta) - _laplace_integral(sdf - half, beta)) / (2 * half)
    enters = enters.clamp(min=0)
    if lengths is None:
        return torch.sigmoid(-sdf / beta) * enters / beta
    half = enters * lengths / 2
    return (F.softplus((half - sdf) / beta) - F.softplus((-half - sdf) / beta)) / lengths


def _laplace(sdf: Tensor, beta: float | Tensor) -> Tensor:
    beyond = 0.5 * (-sdf.abs() / beta).exp()
    return torch.where(sdf > 0, beyond, 1 - beyond) / beta


def _laplace_integral(sdf: Tensor, beta: float | Tensor) -> Tensor:
    """Of the density over the distance, up to a constant."""
    return (sdf / beta).clamp(max=0) - 0.5 * (-sdf.abs() / beta).exp()


class SdfVolume(nn.Module):
    """A signed-distance field as a volume whose density rises where the distance falls through zero.

    "laplace" (VolSDF, Yariv et al. 2021, arXiv:2106.12052): Laplace's cumulative distribution of scale beta at -sdf,
    over beta. "logistic" (NeuS, Wang et al. 2021, arXiv:2106.10689, eq. 10): the density for which the weights along a
    ray peak where it enters the surface; zero where it leaves.

    Args:
        field: any `Field`; colours are its albedo, without light.
        beta: width of the surface, world units; a tensor may be learnt.
    """

    def __init__(self, field: Field, beta: float | Tensor = 0.01, density: Kind = "laplace") -> None:
        super().__init__()
        if density not in ("laplace", "logistic"):
            raise ValueError(f"SdfVolume: density must be 'laplace' or 'logistic', got {density!r}")
        self.field, self.beta, self.kind = field, beta, density

    def density(self, places: RaySamples, condition: Any = None) -> Tensor:
        """See `VolumeField`."""
        if self.kind == "laplace" and places.lengths is None:  # for which the distance is enough
            return _laplace(self.field.sdf(places.points, condition, places.image), self.beta)
        value, gradient = self.field.sdf_and_gradient(places.points, condition, places.image)
        return self._density(value, gradient, places)

    def radiance(self, places: RaySamples, condition: Any = None) -> Radiance:
        """See `VolumeField`."""
        sample = self.field.evaluate(places.points, condition, places.image)
        normals = sample.gradient / (sample.gradient.norm(dim=-1, keepdim=True) + 1e-8)
        return Radiance(self._density(sample.sdf, sample.gradient, places), sample.rgb, normals)

    def _density(self, sdf: Tensor, gradient: Tensor, places: RaySamples) -> Tensor:
        enters = -(gradient * places.directions).sum(-1)
        return surface_density(self.kind, sdf, self.beta, enters, places.lengths)
