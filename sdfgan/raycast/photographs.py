"""Pixels of photographs, through any lens, as the renderer of images sees them: each is an image of one pixel."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.fields.base import Field
from sdfgan.ops.trace import TraceLevel
from sdfgan.raycast.levels import SLACK, MakeLevels, pixel_level
from sdfgan.raycast.multiscale import PixelTrace, Tracer
from sdfgan.raycast.sphere_trace import Rays, march


class PhotographRays(NamedTuple):
    """Rays of N pixels of photographs."""

    origins: Tensor  # [N, 3]
    directions: Tensor  # [N, 3] unit
    near: Tensor  # [N] distance at which tracing begins
    far: Tensor  # [N] and ends; a ray with far <= near meets nothing
    axes: Tensor  # [N, 3, 3] rows x, y, z of the pixel's camera
    footprint: Tensor  # [N] side of the pixel, per unit of distance along the camera's axis


class PhotographTracer(Tracer):
    """Traces a field along such rays, from where they begin: there are no coarser levels."""

    def __init__(self, field: Field, condition: Any, rays: PhotographRays, steps: int) -> None:
        """`field` has one shape and one bound of its gradient."""
        if not isinstance(field.lipschitz, (int, float)):
            raise ValueError("PhotographTracer: the field must have one lipschitz bound, got one per image")
        self.field, self.condition, self._given, self._steps = field, condition, rays, steps
        self.camera = torch.cat((rays.axes.mT, rays.origins[:, :, None]), 2).contiguous()
        self._bound, self.extent = max(float(field.lipschitz), 1.0), math.inf
        self.lipschitz = self._bound

    def levels(self, resolution: int, threshold: float, *, margin: float, inset: float, refine: int = 8) -> MakeLevels:
        """See `Tracer.levels`; `threshold` is in half sides of an image, which is one pixel, and `margin` without use.

        Where layers are looked for, the largest pixel decides: what is too far from the others' edges covers nothing.
        """
        rays = self._given
        footprint, far = (values.max().item() if len(values) else 1.0 for values in (rays.footprint, rays.far))
        side = footprint * far

        def make(*, lipschitz: float, radius: float | Tensor) -> list[TraceLevel]:
            last = pixel_level(
                1, footprint, SLACK * side, radius, threshold=threshold * side / 2, steps=self._steps, inset=inset,
                refine=refine, lipschitz=lipschitz,
            )  # fmt: skip
            return [last]

        return make

    def trace(self, make_levels: MakeLevels, *, jitter: Tensor | None = None, max_layers: int = 0) -> PixelTrace:
        """See `Tracer.trace`."""
        origins, directions, near, far, *_ = self._given
        (level,) = make_levels(lipschitz=self._bound, radius=self.extent)
        state, status = ops.start_march(near, far)
        alive = (status == int(ops.RayStatus.MARCHING)).nonzero()[:, 0].int()
        count = torch.full((1,), len(alive), dtype=torch.int32, device=alive.device)
        points = (origins + near[:, None] * directions)[alive]
        rays = ops.LevelRays(origins, directions, near, far, state, status, points, alive, count)
        layers = ops.LayerState.none(max_layers, near)
        with self.full_precision():
            counts = march(self.field, self.condition, rays, level, lambda ray: ray.long(), layers)
        return PixelTrace(status, state[0], state[1], counts.expand(2), layers)

    def footprint(self, pixels: Tensor, resolution: int) -> Tensor:
        """See `Tracer.footprint`."""
        return self._given.footprint[pixels]

    def rays(
        self, pixels: Tensor, resolution: int, radius: float | Tensor, offset: float = 0.0, jitter: Tensor | None = None
    ) -> Rays:
        """See `Tracer.rays`: those of the pixels [K], as they were given."""
        origins, directions, near, far, *_ = self._given
        return Rays(pixels, origins[pixels], directions[pixels], near[pixels], far[pixels])
