"""Sphere tracing (Hart 1996) of many rays at once; finished rays are compacted away after every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.fields.base import Field

_FARTHER_THAN_ANYTHING = 1e10
_LEAST_SLOPE = -0.01  # of the sdf along a ray at a hit: less steep ones are taken for this
_LONGEST_REFINEMENT = 0.05


@dataclass(frozen=True)
class Rays:
    """N rays, sorted by image."""

    image: Tensor  # [N] int64
    origins: Tensor  # [N, 3]
    directions: Tensor  # [N, 3], of unit length
    start: Tensor  # [N] distance at which tracing begins
    far: Tensor  # [N] distance at which it ends; a ray with far <= start is not traced

    def __getitem__(self, chosen: Tensor) -> Rays:
        return Rays(
            self.image[chosen],
            self.origins[chosen],
            self.directions[chosen],
            self.start[chosen],
            self.far[chosen],
        )

    def at(self, t: Tensor) -> Tensor:
        """Points [N, 3] at the distances t [N]."""
        return self.origins + t[:, None] * self.directions


class Traced(NamedTuple):
    """Where N rays ended. With a cone slope c, the traced function is sdf - c t rather than the sdf."""

    t: Tensor  # [N] distance reached: at a hit, where the function fell to the threshold
    status: Tensor  # [N] uint8, `sdfgan.ops.RayStatus`
    nearest: Tensor  # [N] smallest value of the function along the ray
    nearest_t: Tensor  # [N] where that was
    queries: int  # points at which the field was evaluated

    @property
    def hit(self) -> Tensor:
        """[N] bool: rays that reached the threshold."""
        return self.status == int(ops.RayStatus.HIT)


@torch.no_grad()
def sphere_trace(
    field: Field,
    condition: Any,
    rays: Rays,
    *,
    threshold: float,
    steps: int = 128,
    cone_slope: float = 0.0,
) -> Traced:
    """Trace rays through a field until it falls to `threshold`, they leave, or `steps` evaluations are spent.

    Steps are the field's value divided by its Lipschitz bound. With `cone_slope` c > 0 a cone of radius c t is
    traced: t stops where the cone may touch the surface. With c < 0 the level set sdf = c t inside the surface is
    traced. A ray on which the field is NaN ends as `RayStatus.INVALID`. Not differentiable.
    """
    t = rays.start.clone()
    nearest = torch.full_like(t, _FARTHER_THAN_ANYTHING)
    nearest_t = t.clone()
    inside = rays.far > rays.start
    status = torch.where(inside, int(ops.RayStatus.MARCHING), int(ops.RayStatus.LEFT)).to(torch.uint8)
    alive = inside.nonzero()[:, 0].int()
    points = rays.at(t)[alive]
    queries = 0
    for _ in range(steps):
        if len(alive) == 0:
            break
        queries += len(alive)
        values = field.sdf(points, condition, rays.image.index_select(0, alive))
        count = torch.full((1,), len(alive), dtype=torch.int32, device=t.device)
        points, alive, count = ops.trace_step(
            values, alive, count, rays.origins, rays.directions, t, rays.far, nearest, nearest_t, status,
            threshold=threshold, cone_slope=cone_slope, step_scale=1 / max(field.lipschitz, 1.0),
        )  # fmt: skip
        survivors = int(count)
        points, alive = points[:survivors], alive[:survivors]
    return Traced(t, status, nearest, nearest_t, queries)


@torch.no_grad()
def refine_hits(field: Field, condition: Any, rays: Rays, t: Tensor, value: Tensor, rounds: int) -> Tensor:
    """Move the hits of rays, at t [N] with sdf value [N], onto the surface by secant steps; returns t [N].

    Each round costs one evaluation per ray. A step is at most 0.05 long, so that a ray that grazes the surface is
    not thrown far.
    """
    last_t, last_value = t, value
    t = t + value / max(field.lipschitz, 1.0)
    for _ in range(rounds):
        value = field.sdf(rays.at(t), condition, rays.image)
        gone = t - last_t
        slope = torch.where(gone == 0, -1.0, (value - last_value) / gone)
        slope = slope.nan_to_num(-1.0).clamp(-max(field.lipschitz, 1.0), _LEAST_SLOPE)
        last_t, last_value = t, value
        t = t + (value / -slope).clamp(-_LONGEST_REFINEMENT, _LONGEST_REFINEMENT)
    return t
