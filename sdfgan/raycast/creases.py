"""Creases between two visible faces: the colour of a pixel that a crease crosses is that of both sides.

Where the normals of neighbouring pixels differ much, the surface is taken for its two tangent planes. They meet in a
line; the share of a pixel that lies behind that line is the area of a half plane (`raycast.coverage`), takes the
neighbour's colour, and moves as both planes do. A pixel's own ray alone knows nothing of a crease beside it, so without
this an image does not change where faces meet when they move.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.cameras import camera_distance
from sdfgan.raycast.coverage import half_plane_area
from sdfgan.raycast.room import Room, places
from sdfgan.raycast.sphere_trace import rays_of_pixels

_SMOOTH = 0.7  # cosine between the normals of neighbours that are not separated by a crease
_STEEPEST_GRAZE = -0.1


def blend_creases(
    colour: Tensor,
    depth: Tensor,
    normal: Tensor,
    solid: Tensor,
    camera: Tensor,
    resolution: int,
    fov: float,
    room: Room | None = None,
) -> tuple[Tensor, Tensor]:
    """Colours and normals of the pixels of B images of side R, N = B R^2, with those beside creases mixed.

    Args:
        colour: [N, 3].
        depth: [N] distance of the surface along the unit ray.
        normal: [N, 3] of unit length.
        solid: [N] bool: pixels that one surface covers whole; the others stay as they are.
        camera: [B, 3, 4] camera to world; fov: of all.

    Differentiable in all that is real.
    """
    own, other, valid = _sharp_pairs(normal.detach(), solid, resolution, room)
    if len(own) == 0:
        return colour, normal
    origins, directions = rays_of_pixels(camera, torch.cat([own, other]), resolution, fov)
    points = origins + depth[torch.cat([own, other]), None] * directions
    here, there = points.split(len(own))
    above = (normal[other] * (here - there)).sum(-1)  # of the neighbour's tangent plane
    with torch.no_grad():
        beyond = (normal[own] * (there - here)).sum(-1)
        side = torch.where(above * beyond > 0, above.sign(), 0.0)  # -1: a ridge, 1: a valley, 0: they meet elsewhere
        # How `above` changes from pixel to pixel, on the pixel's own tangent plane.
        ray, x, y, z = directions[: len(own)], *camera[own // resolution**2, :, :3].unbind(-1)
        slope = (normal[own] * ray).sum(-1).clamp(max=_STEEPEST_GRAZE)
        size = 2 / (resolution * camera_distance(fov)) * depth[own] * -(ray * z).sum(-1)
        across, up = (
            size * (normal[other] * (axis - ((normal[own] * axis).sum(-1) / slope)[:, None] * ray)).sum(-1)
            for axis in (x, y)
        )
        change = (across.square() + up.square()).sqrt().clamp_min(1e-9)
    area = half_plane_area(side * above / change, side * across / change, side * up / change) * side.abs()
    if valid is not None:
        area = area.masked_fill(~valid, 0.0)
    with torch.no_grad():  # neighbours on the same side of a crease share it
        total = area.new_zeros(len(depth)).index_add(0, own, area)
        share = area / total[own].clamp_min(1e-9)
    weight = (share * area)[:, None]
    return (
        colour.index_add(0, own, weight * (colour[other] - colour[own])),
        normal.index_add(0, own, weight * (normal[other] - normal[own])),
    )


def _sharp_pairs(
    normal: Tensor, solid: Tensor, resolution: int, room: Room | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pixels [K] that have a neighbour [K], above, below, left or right, with a quite different normal; and [K] bool,
    which of these pairs count, None: all."""
    shape = (-1, resolution, resolution)
    normals, solids = normal.view(*shape, 3), solid.view(shape)
    # Of each pixel, whether it differs from the one below, and from the one to the right.
    below = _sharp(normals[:, :-1], normals[:, 1:], solids[:, :-1], solids[:, 1:])
    right = _sharp(normals[:, :, :-1], normals[:, :, 1:], solids[:, :, :-1], solids[:, :, 1:])
    differs = torch.stack([F.pad(below, (0, 0, 0, 1)), F.pad(right, (0, 1))]).flatten()
    place, valid = places(differs, "creases", room)
    pixel = place % len(solid)
    neighbour = pixel + torch.where(place < len(solid), resolution, 1)
    if valid is not None:
        neighbour, valid = neighbour.clamp(max=len(solid) - 1), valid.repeat(2)  # there may be no pair to copy
    return torch.cat([pixel, neighbour]), torch.cat([neighbour, pixel]), valid


def _sharp(normal: Tensor, other: Tensor, solid: Tensor, other_solid: Tensor) -> Tensor:
    return solid & other_solid & ((normal * other).sum(-1) < _SMOOTH)
