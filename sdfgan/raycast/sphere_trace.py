"""Marching many rays at once through any field; finished rays are compacted away after every evaluation.

The host never waits for a GPU: it bounds each launch by the last count of rays that has arrived. Rays only end, so an
old count is never too small, and what is evaluated beyond the true one is ignored.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import pixel_rays
from sdfgan.checks import check_whole
from sdfgan.fields.base import Field
from sdfgan.fields.function import as_field


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
            self.image[chosen], self.origins[chosen], self.directions[chosen], self.start[chosen], self.far[chosen]
        )

    def check(self) -> None:
        """Raises ValueError, naming the part, unless all are of N rays and of one type."""
        count, dtype = len(self.origins), self.origins.dtype
        for name, shape in (
            ("origins", (count, 3)),
            ("directions", (count, 3)),
            ("start", (count,)),
            ("far", (count,)),
        ):
            part: Tensor = getattr(self, name)
            if part.shape != shape or part.dtype != dtype:
                types = [str(t).removeprefix("torch.") for t in (dtype, part.dtype)]
                raise ValueError(f"rays.{name} must be {list(shape)} {types[0]}, got {list(part.shape)} {types[1]}")
        if self.image.shape != (count,):
            raise ValueError(f"rays.image must be [{count}], got {list(self.image.shape)}")

    def at(self, t: Tensor) -> Tensor:
        """Points [N, 3] at the distances t [N]."""
        return self.origins + t[:, None] * self.directions


def rays_of_pixels(camera: Tensor, pixel: Tensor, resolution: int, fov: float) -> tuple[Tensor, Tensor]:
    """Origins and unit directions [N, 3] of pixels [N] of square images: `cameras.pixel_rays`, by one operation unless
    cameras have a gradient."""
    if camera.requires_grad:
        return pixel_rays(camera, pixel, resolution, fov=fov)
    return ops.generate_rays(camera.contiguous(), pixel, resolution, resolution, fov)[:2]


class Traced(NamedTuple):
    """Where N rays ended. With a cone slope c, the traced function is sdf - c t rather than the sdf."""

    t: Tensor  # [N] distance reached: at a hit, the surface
    status: Tensor  # [N] uint8, `sdfgan.ops.RayStatus`
    nearest: Tensor  # [N] smallest value of the function along the ray (of the sdf if c < 0), or 1e10
    nearest_t: Tensor  # [N] where that was
    queries: Tensor  # [1] int64: points at which the field was evaluated for rays

    @property
    def hit(self) -> Tensor:
        """[N] bool: rays that reached the threshold."""
        return self.status == int(ops.RayStatus.HIT)


@torch.no_grad()
def sphere_trace(
    field: Field | Callable[..., Tensor], condition: Any, rays: Rays, rules: ops.MarchRules, steps: int = 300
) -> Traced:
    """March rays by `rules` until the field falls to the threshold, they leave, or `steps` evaluations are spent.

    A ray on which the field is NaN ends as `RayStatus.INVALID`. Not differentiable.
    """
    field = as_field(field)
    if not isinstance(rays, Rays):
        raise TypeError(f"sphere_trace: rays must be Rays, got {type(rays).__name__}")
    if not isinstance(rules, ops.MarchRules):
        raise TypeError(f"sphere_trace: rules must be ops.MarchRules, got {type(rules).__name__}")
    check_whole("sphere_trace", 1, steps=steps)
    rays.check()
    state, status = ops.start_march(rays.start, rays.far)
    alive = (status == int(ops.RayStatus.MARCHING)).nonzero()[:, 0].int()
    count = torch.full((1,), len(alive), dtype=torch.int32, device=alive.device)
    made = (rays.origins, rays.directions, rays.start, rays.far, state, status)
    level = ops.LevelRays(*made, rays.at(rays.start)[alive], alive, count)
    queries = march(field, condition, level, ops.TraceLevel(1, steps, rules), lambda ray: rays.image[ray])
    return Traced(state[0], status, state[1], state[2], queries)


def march(
    field: Field,
    condition: Any,
    rays: ops.LevelRays,
    level: ops.TraceLevel,
    image_of: Callable[[Tensor], Tensor],
    layers: ops.LayerState | None = None,
) -> Tensor:
    """March the rays of a level, writing to state, status and layers; returns the evaluations for rays, [1] int64.

    image_of: image [K] int64 of the rays [K] int32.
    """
    points, alive, count = rays.points, rays.alive, rays.alive_count
    queries = torch.zeros(1, dtype=torch.int64, device=count.device)
    bound = LaunchBound(count, len(alive))
    for step in range(level.steps):
        points, alive = points[: bound.value], alive[: bound.value]
        if len(alive) == 0:
            break
        queries += count
        values = field.sdf(points, condition, image_of(alive))
        rules = level.rules._replace(slack=level.rules.slack * (1 + step / level.patience))
        last = step + 1 == level.steps
        points, alive, count = ops.trace_step(
            values, alive, count, *rays[:2], rays.far, rays.state, rays.status, rules, layers, last
        )
        bound.see(count)
    status = rays.status
    refining = (status >= int(ops.RayStatus.REFINING)) & (status != int(ops.RayStatus.UNTRACED))
    status.masked_fill_(refining, int(ops.RayStatus.HIT))
    return queries


class LaunchBound:
    """The most that can be alive, of what only ends, as far as the host knows without waiting."""

    def __init__(self, count: Tensor, most: int) -> None:
        self.value = most
        self._coming: deque[tuple[torch.cuda.Event, Tensor]] = deque()
        self.see(count)

    def see(self, count: Tensor) -> None:
        """Take the count [1] into account once it has arrived: on a CPU, now."""
        if not count.is_cuda:
            self.value = int(count)
            return
        if torch.cuda.is_current_stream_capturing():
            return  # a graph's launches have one size
        here = torch.empty(1, dtype=count.dtype, pin_memory=True)
        here.copy_(count, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(count.device))
        self._coming.append((event, here))
        while self._coming and self._coming[0][0].query():
            self.value = int(self._coming.popleft()[1])
