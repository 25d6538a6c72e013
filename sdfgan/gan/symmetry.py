"""The plane about which all shapes of a generator are nearly alike: for classes with left and right, such as aircraft.

A generator that is given such a plane before it has learned where its shapes face puts the plane where it fits worst:
aircraft then have it between a wing and the fuselage, and four wings. So it is sought once there are shapes, and taken
when one plane is clearly better than others.
"""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from sdfgan.fields import FilmSirenSDF
from sdfgan.ops import Mirror

_SHAPES, _POINTS = 64, 512
_BALL = 0.9  # world units: where points begin that are moved to surfaces
_MOVES = 6
_NEAR = 0.02  # world units: so far from a surface a point may have stayed
_FAR = 0.2  # world units: differences count up to here, so that what is missing counts as such, wherever the rest is
_SOFTNESS = 0.02  # world units
_CLEAR = 0.3  # how unlike both sides of a plane may be, in terms of the median of all planes
_DEGREES = 4  # between the planes that are tried first


@torch.no_grad()
def find_mirror(generator: FilmSirenSDF, latent_std: float, seed: int = 0) -> Mirror | None:
    """The vertical plane about which random shapes of a generator are most nearly alike, found to within a degree; None
    while it is not clear which that is.

    Points on surfaces are mirrored; how far they then are from the surface says how unlike both sides are. The median
    of all shapes counts, so that a few others do not matter.
    """
    random = torch.Generator().manual_seed(seed)
    latents = latent_std * torch.randn(_SHAPES, generator.latent_size, generator=random)
    directions = torch.nn.functional.normalize(torch.randn(_SHAPES * _POINTS, 3, generator=random), dim=-1)
    points = _BALL * torch.rand(len(directions), 1, generator=random) ** (1 / 3) * directions
    condition, points = generator.condition(latents.to(generator.sdf_bias)), points.to(generator.sdf_bias)
    image = torch.arange(_SHAPES, device=points.device).repeat_interleave(_POINTS)
    for _ in range(_MOVES):
        value, gradient = generator.sdf_and_gradient(points, condition, image)
        points = points - (value / gradient.square().sum(-1).clamp(min=0.25))[:, None] * gradient
    on_surface = (generator.sdf(points, condition, image).abs() < _NEAR) & (points.norm(dim=-1) < 1)

    def unlikeness(degrees: int) -> float:
        normal = _normal(degrees, points)
        there = points - 2 * (points @ normal)[:, None] * normal
        apart = generator.sdf(there, condition, image).abs().clamp(max=_FAR)
        apart = torch.where(on_surface, apart, math.nan).view(_SHAPES, _POINTS)
        return apart.nanmean(1).nanmedian().nan_to_num(math.inf).item()

    tried = {degrees: unlikeness(degrees) for degrees in range(0, 180, _DEGREES)}
    best = min(tried, key=tried.__getitem__)
    if not tried[best] < _CLEAR * statistics.median(tried.values()):
        return None
    x, _, z = _normal(min(range(best - _DEGREES + 1, best + _DEGREES), key=unlikeness), points).tolist()
    return Mirror(x, z, _SOFTNESS)


def _normal(degrees: int, like: Tensor) -> Tensor:
    angle = math.radians(degrees)
    return like.new_tensor((math.cos(angle), 0, math.sin(angle)))
