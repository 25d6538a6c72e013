"""How much of a pixel lies behind an edge that passes near its centre.

To first order an edge is a straight line through the pixel, a unit square: its distance from the centre is the sdf in
units of how fast the sdf changes from pixel to pixel, and its share of the square has a closed form. So a silhouette
has the right area, whatever its direction, and the area has the right derivative.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_MIN_CHANGE = 0.2  # of the sdf across a pixel, as a share of the pixel's size, for a derivative that stays bounded
_FLAT = 0.01  # likewise, for the value: in the middle of a thin plate that faces the camera there is no edge to be near


def half_plane_area(distance: Tensor, across: Tensor, up: Tensor) -> Tensor:
    """The area of {p in the unit square around 0: n.p + distance <= 0}, for unit vectors n = (across, up).

    All tensors are [N]; differentiable in `distance`, to first order (the others only turn the edge, about its nearest
    point).
    """
    return _HalfPlaneArea.apply(distance, across, up)


class _HalfPlaneArea(torch.autograd.Function):
    """Its derivative in a few operations, instead of three times as many as the area takes."""

    @staticmethod
    def forward(ctx: Any, distance: Tensor, across: Tensor, up: Tensor) -> Tensor:
        long, short = _sides(across, up)
        middle, corner = (long - short) / 2, (long + short) / 2
        away = distance.abs()
        inside, beyond, corners = away <= middle, (corner - away).clamp_min(0), 2 * long * short
        ctx.save_for_backward(long, inside, beyond, corners)
        outside = 0.5 - torch.sign(distance) * (0.5 - beyond.square() / corners)
        return torch.where(inside, 0.5 - distance / long, outside)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        long, inside, beyond, corners = ctx.saved_tensors
        return torch.where(inside, grad / long, grad / corners * (2 * beyond)).neg_(), None, None


def half_plane_slope(distance: Tensor, across: Tensor, up: Tensor) -> Tensor:
    """How fast `half_plane_area` falls with the distance: the length of the edge within the unit square."""
    long, short = _sides(across, up)
    return torch.minimum(1 / long, ((long + short) / 2 - distance.abs()).clamp_min(0) / (long * short))


def _sides(across: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """The larger and the smaller of their lengths, neither of which is 0."""
    a, b = across.abs(), up.abs()
    return torch.maximum(a, b).clamp_min(1e-6), torch.minimum(a, b).clamp_min(1e-6)


def edge_in_pixels(
    nearest: Tensor, normal: Tensor, right: Tensor, up: Tensor, pixel_size: Tensor
) -> tuple[Tensor, ...]:
    """An edge as `half_plane_area` takes it: its distance [N] in pixels and its unit normal in the image, 2 x [N].

    Args:
        nearest: [N] sdf at the point of the ray nearest to the edge. The distance is differentiable in it alone.
        normal: [N, 3] gradient of the sdf there, of any length.
        right, up: [N, 3] axes of the camera.
        pixel_size: [N] side of a pixel at that depth, world units.
    """
    with torch.no_grad():
        across, upwards = (normal * right).sum(-1), (normal * up).sum(-1)
        change = (across.square() + upwards.square()).sqrt()
        safe = change.clamp_min(1e-9)
        across, upwards = across / safe, upwards / safe
        distance = nearest / (pixel_size * change.clamp_min(_FLAT))
    if nearest.requires_grad:
        with torch.no_grad():
            least = pixel_size * change.clamp_min(_MIN_CHANGE)
        distance = distance + (nearest - nearest.detach()) / least
    return distance, across, upwards
