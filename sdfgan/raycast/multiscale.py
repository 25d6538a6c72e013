"""Finding the surfaces in a batch of pictures: cones at low resolution, then rays only where cones touched.

A cone that holds all rays of a coarse pixel advances by sdf - radius, so nothing in it is ever skipped (cone marching);
where it may touch the surface, its pixel is split and the finer rays start from the distance it reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV, camera_distance, orbit_camera
from sdfgan.fields.base import Field
from sdfgan.fields.function import as_field
from sdfgan.raycast.sphere_trace import Rays, refine_hits, sphere_trace

_CONE_STEPS = 24
_CONE_TOLERANCE = 0.5  # of the cone's radius at the origin: a cone that is so near is split


@dataclass(frozen=True)
class SurfaceSamples:
    """One sample for each pixel that may see the surface, in the order of `mask.nonzero()`: by image, row, column."""

    rays: Rays
    mask: Tensor  # [B, R, R] bool: pixels that have a sample
    distances: Tensor  # [N] along the ray: of the surface if hit, else of the nearest miss
    hit: Tensor  # [N] bool
    nearest: Tensor  # [N] sdf at `distances`; for a hit, at most the threshold when it stopped
    queries: int  # points at which the field was evaluated
    batch_latents: Tensor | None  # [B, L], as given

    @property
    def points(self) -> Tensor:
        """[N, 3] world: surface points and nearest misses."""
        return self.rays.at(self.distances)

    @property
    def image(self) -> Tensor:
        """[N] int64: which picture each sample belongs to."""
        return self.rays.image

    @property
    def latents(self) -> Tensor | None:
        """[N, L]: the latent of each sample."""
        return None if self.batch_latents is None else self.batch_latents[self.image]


def default_scales(resolution: int) -> tuple[int, ...]:
    """Scales for `multiscale` whose product is `resolution`: from 16 rays or more, by factors of two and four."""
    factors: list[int] = []
    for factor in (4, 2):
        while resolution % factor == 0 and resolution // factor >= 16:
            factors.insert(0, factor)
            resolution //= factor
    return (resolution, *factors)


@torch.no_grad()
def multiscale(
    axes: Tensor,
    scales: Sequence[int],
    latents: Tensor | None,
    sdf: Field | Callable[..., Tensor],
    threshold: float = 1e-4,
    fov: float = DEFAULT_FOV,
    *,
    steps: int = 300,
    margin: float = 1.0,
    inset: float = 0.0,
    start_jitter: float = 0.0,
    refine: int = 4,
    generator: torch.Generator | None = None,
    condition: Any = None,
) -> SurfaceSamples:
    """Trace B square pictures of fields from orbit cameras, at increasing resolution.

    Args:
        axes: [B, 3, 3] float32 or float64, rows x, y, z of each camera (`cameras.rotate_axes`).
        scales: each level's resolution is the product of the scales so far; the last is the picture's.
        latents: [B, L], one per picture, or None for a field that takes none.
        sdf: a `Field`, or a function `sdf(points [N, 3], latents [N, L]) -> [N] or [N, 1]` (or of points alone). Its
            values must not exceed the distance to the surface (times `Field.lipschitz`).
        threshold: a ray hits where the sdf falls to this (world units).
        fov: field of view, radians. The camera is at 1 / tan(fov / 2) from the origin; the object is in the unit ball.
        steps: most evaluations per ray of the last level. One that has spent them counts as a miss.
        margin: pixels; misses within this distance of the surface are sampled too.
        inset: pixels; trace the level set that many pixel footprints inside the surface. A ray that reaches it is a
            hit (and `refine` brings it back to the surface); one that only enters the surface is a miss with a
            negative `nearest`.
        start_jitter: rays of the last level start up to so much farther, at random (world units). Surfaces nearer
            than that may be skipped.
        refine: secant steps from where a ray hit onto the surface, one evaluation each.
        generator: for `start_jitter`.
        condition: what `sdf.condition(latents)` gave, if that has been computed already.

    Returns:
        `SurfaceSamples`. A pixel outside its mask sees nothing nearer than `margin`. Not differentiable: evaluate
        the field at the samples for that, as `render` does.
    """
    field = as_field(sdf)
    _check(axes, scales, latents, threshold, steps)
    if condition is None:
        condition = field.condition(latents)
    camera = orbit_camera(axes, fov)
    distance = camera_distance(fov)
    resolution = math.prod(scales)
    footprint = 2 / (resolution * distance)  # side of a pixel, per unit of distance along the ray
    mask = torch.ones(len(axes), 1, 1, dtype=torch.bool, device=axes.device)
    start = torch.zeros(len(axes), 1, 1, dtype=axes.dtype, device=axes.device)
    size, queries = 1, 0
    for scale in scales[:-1]:
        size *= scale
        mask, start = _upsample(mask, scale), _upsample(start, scale)
        slope = math.sqrt(2) / (size * distance) + margin * footprint
        # The ray in the middle of a cone may miss the ball that the cone meets.
        rays = _rays_of(camera, mask, start, fov, radius=1 + slope * (distance + 1))
        tolerance = _CONE_TOLERANCE * slope * distance
        cones = sphere_trace(field, condition, rays, threshold=tolerance, steps=_CONE_STEPS, cone_slope=slope)
        queries += cones.queries
        start = start.masked_scatter(mask, cones.t)
        mask = mask.masked_scatter(mask, cones.status != int(ops.RayStatus.LEFT))

    mask, start = _upsample(mask, scales[-1]), _upsample(start, scales[-1])
    rays = _rays_of(camera, mask, start, fov, radius=1.0)
    meets_ball = rays.far > rays.start
    mask, rays = mask.masked_scatter(mask, meets_ball), rays[meets_ball]
    if start_jitter > 0:
        jitter = torch.rand(len(rays.start), generator=generator, dtype=axes.dtype, device=axes.device)
        jittered = rays.start + start_jitter * jitter
        rays = Rays(rays.image, rays.origins, rays.directions, jittered, rays.far)
    slope = -inset * footprint
    traced = sphere_trace(field, condition, rays, threshold=threshold, steps=steps, cone_slope=slope)
    queries += traced.queries
    hit = traced.hit
    nearest = traced.nearest + slope * traced.nearest_t
    distances = traced.nearest_t
    if refine > 0:
        chosen = hit.nonzero()[:, 0]
        refined = refine_hits(field, condition, rays[chosen], distances[chosen], nearest[chosen], refine)
        distances = distances.index_put((chosen,), refined)
        queries += refine * len(chosen)
    return SurfaceSamples(rays, mask, distances, hit, nearest, queries, latents)


def _check(axes: Tensor, scales: Sequence[int], latents: Tensor | None, threshold: float, steps: int) -> None:
    if axes.ndim != 3 or axes.shape[1:] != (3, 3):
        raise ValueError(f"multiscale: axes must be [B, 3, 3], got {list(axes.shape)}")
    if not scales or any(int(scale) != scale or scale < 1 for scale in scales):
        raise ValueError(f"multiscale: scales must be positive whole numbers, got {tuple(scales)}")
    if latents is not None and (latents.ndim != 2 or len(latents) != len(axes)):
        raise ValueError(f"multiscale: latents must be [{len(axes)}, L], got {list(latents.shape)}")
    if not threshold > 0:
        raise ValueError(f"multiscale: threshold must be positive, got {threshold}")
    if steps < 1:
        raise ValueError(f"multiscale: steps must be at least 1, got {steps}")


def _upsample(pixels: Tensor, scale: int) -> Tensor:
    return pixels.repeat_interleave(scale, dim=1).repeat_interleave(scale, dim=2)


def _rays_of(camera: Tensor, mask: Tensor, start: Tensor, fov: float, radius: float) -> Rays:
    """The rays of the pixels in mask [B, S, S], starting at start [B, S, S] or where they enter the ball."""
    size = mask.shape[-1]
    pixels = mask.flatten().nonzero()[:, 0]
    origins, directions, near, far = ops.generate_rays(camera, pixels, size, size, fov, radius)
    return Rays(pixels // (size * size), origins, directions, torch.maximum(near, start[mask]), far)
