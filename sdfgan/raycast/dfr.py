"""Silhouettes by the rules of the renderer this project started from (sidmani/dfr), for comparison.

A hit is opaque; a miss covers a share that falls linearly to nothing one pixel outside, and has a fixed brightness.
Surfaces are where the sdf is 0.005, and hits do not move. It learns from more points than it shows: `dfr_points`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import orbit_camera
from sdfgan.fields.base import Field
from sdfgan.raycast.layers import LayerSamples
from sdfgan.raycast.levels import DFR_THRESHOLD, dfr_levels, dfr_plan
from sdfgan.raycast.multiscale import Tracer, image_of
from sdfgan.raycast.sphere_trace import Rays, march

_SCALE = 4
_MISSED_BRIGHTNESS = 0.7


@torch.no_grad()
def dfr_samples(tracer: Tracer, resolution: int, pixels: Tensor | None) -> LayerSamples:
    """One sample for each pixel whose ray comes within a pixel of the surface."""
    scales = (resolution // _SCALE, _SCALE) if resolution % _SCALE == 0 else (resolution,)
    traced = tracer.trace(dfr_plan(scales, tracer.fov))
    near = (traced.status != int(ops.RayStatus.UNTRACED)) & (traced.nearest < DFR_THRESHOLD + 2 / resolution)
    pixel = (near if pixels is None else near & pixels.flatten()).nonzero()[:, 0]
    hit, t, nothing = traced.status[pixel] == int(ops.RayStatus.HIT), traced.distance[pixel], torch.zeros_like(pixel)
    normal = torch.zeros(len(t), 3, dtype=t.dtype, device=t.device)
    return LayerSamples(
        pixel, nothing, hit, hit, t, pixel, torch.stack([t, t], -1), torch.zeros_like(t), traced.nearest[pixel], normal,
        torch.zeros_like(t), traced.counts, resolution, 1,
    )  # fmt: skip


def fuzzy_coverage(sdf: Tensor, resolution: int, brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage [N] and brightness [N, 1] of samples where the sdf is [N]."""
    outside = sdf - DFR_THRESHOLD
    alpha = (1 - outside * resolution / 2).clamp(0, 1)
    return alpha, torch.where(outside[:, None] > 0, _MISSED_BRIGHTNESS, brightness)


class DfrPoints(NamedTuple):
    """Where the field is evaluated, for images and for the eikonal term."""

    mask: Tensor  # [B, R, R] bool: pixels of the coarsest rays that meet the unit ball
    rays: Rays  # of these N pixels
    distances: Tensor  # [N] of the smallest value on the finest ray that was traced there


@torch.no_grad()
def dfr_points(field: Field, condition: Any, axes: Tensor, scales: Sequence[int], fov: float) -> DfrPoints:
    """Trace images of the cumulated scales; a pixel that was not split takes the distance of the coarser one.

    Even empty images have points, from which the eikonal term learns.
    """
    camera = orbit_camera(axes.detach(), fov).contiguous()
    levels = dfr_levels(scales, fov)
    parent: tuple[ops.TraceLevel, Tensor, Tensor] | None = None
    distance = mask = camera.new_zeros(0)
    for level, scale in zip(levels, scales, strict=True):
        rays = ops.start_level(camera, level, fov, parent)
        march(field, condition, rays, level, partial(image_of, level.size**2))
        traced = (rays.status != int(ops.RayStatus.UNTRACED)).view(-1, level.size, level.size)
        own = rays.state[2].view_as(traced)  # of the smallest value: a hit's is its last
        if parent is None:
            distance, mask = own, traced
        else:
            distance, mask = (x.repeat_interleave(scale, 1).repeat_interleave(scale, 2) for x in (distance, mask))
            distance = torch.where(traced, own, distance)
        parent = level, rays.state, rays.status
    pixels, size = mask.flatten().nonzero()[:, 0], levels[-1].size
    origins, directions, start, far = ops.generate_rays(camera, pixels, size, size, fov, levels[-1].radius)
    return DfrPoints(mask, Rays(pixels // size**2, origins, directions, start, far), distance[mask])
