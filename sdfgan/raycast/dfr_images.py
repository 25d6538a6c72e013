"""Images as dfr trains with: the field is evaluated at every pixel of the disc, also where nothing is shown.

Hits do not move, and silhouettes are too large; the eikonal term learns at all of these points.
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
from sdfgan.raycast.dfr import dfr_coverage, dfr_levels
from sdfgan.raycast.multiscale import image_of
from sdfgan.raycast.sphere_trace import Rays, march

_COARSEST = 16


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


def dfr_images(field: Field, condition: Any, axes: Tensor, resolution: int, fov: float) -> tuple[Tensor, ...]:
    """RGB [B, 3, R, R], premultiplied on black, alpha [B, 1, R, R], normals [B, 3, R, R] and gradients [N, 3].

    Of a condition, from cameras [B, 3, 3] with headlights, differentiable in the field; the gradients are the field's
    at its points.
    """
    scales = (_COARSEST, resolution // _COARSEST) if resolution % _COARSEST == 0 else (resolution,)
    mask, rays, distances = dfr_points(field, condition, axes, scales, fov)
    answer = field.evaluate(rays.at(distances), condition, rays.image)
    normals = answer.gradient / (answer.gradient.norm(dim=-1, keepdim=True) + 1e-5)
    light = ((normals * axes[rays.image, 2]).sum(-1, keepdim=True) + 1) / 2
    alpha, light = dfr_coverage(answer.sdf, resolution, light)
    pixels = mask.flatten().nonzero()[:, 0]

    def image(values: Tensor) -> Tensor:
        flat = values.new_zeros(mask.numel(), values.shape[1]).index_put((pixels,), values)
        return flat.view(*mask.shape, -1).permute(0, 3, 1, 2)

    return image(light * answer.rgb * alpha[:, None]), image(alpha[:, None]), image(normals), answer.gradient
