"""Marching many rays at once through any field; finished rays are compacted away after every evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.fields.base import Field


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

    t: Tensor  # [N] distance reached: at a hit, the surface
    status: Tensor  # [N] uint8, `sdfgan.ops.RayStatus`
    nearest: Tensor  # [N] smallest value of the function along the ray, or 1e10
    nearest_t: Tensor  # [N] where that was
    slope: Tensor  # [N] of -sdf along the ray where an unrefined hit was found, else 1
    queries: int  # points at which the field was evaluated

    @property
    def hit(self) -> Tensor:
        """[N] bool: rays that reached the threshold."""
        return self.status == int(ops.RayStatus.HIT)


@torch.no_grad()
def sphere_trace(
    field: Field, condition: Any, rays: Rays, level: ops.TraceLevel, slope: Tensor | float = 1.0
) -> Traced:
    """March rays until the field falls to the threshold, they leave, or the level's evaluations are spent.

    A ray on which the field is NaN ends as `RayStatus.INVALID`. `slope` as in `ops.start_march`. Not differentiable.
    """
    state, status = ops.start_march(rays.start, rays.far, slope)
    alive = (status == int(ops.RayStatus.MARCHING)).nonzero()[:, 0].int()
    points = rays.at(rays.start)[alive]
    queries = 0
    for step in range(level.steps):
        if len(alive) == 0:
            break
        queries += len(alive)
        values = field.sdf(points, condition, rays.image.index_select(0, alive))
        rules = level.rules._replace(slack=level.rules.slack * (1 + step / level.patience))
        count = torch.full((1,), len(alive), dtype=torch.int32, device=alive.device)
        points, alive, count = ops.trace_step(
            values, alive, count, rays.origins, rays.directions, rays.far, state, status, rules
        )
        survivors = int(count)
        points, alive = points[:survivors], alive[:survivors]
    status[status >= int(ops.RayStatus.REFINING)] = int(ops.RayStatus.HIT)
    slope = torch.where((status == int(ops.RayStatus.HIT)) & (state[4] == 0), state[3], 1.0)
    return Traced(state[0], status, state[1], state[2], slope, queries)
