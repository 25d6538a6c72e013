"""Rays through pixel centres, clipped to the ball in which the object lives."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._library import REAL, Checker, named, native, refuse_gradient, register

Rays = tuple[Tensor, Tensor, Tensor, Tensor]


def generate_rays(
    camera_to_world: Tensor, pixels: Tensor, height: int, width: int, fov: float, radius: float | Tensor = 1.0
) -> Rays:
    """The rays of some pixels of B images, and where they enter and leave the ball around the world origin.

    The camera looks along its -z; the image is the plane [-aspect, aspect] x [-1, 1] at the distance
    1/tan(fov/2), row 0 at the top, pixel centres at (i + 0.5). See sdfgan.cameras.

    Args:
        camera_to_world: [B, 3, 4] float32 or float64; columns are the camera's x, y, z and its centre.
        pixels: [N] int64, (b * height + row) * width + column. A pixel of no image gives NaN rays.
        height, width: of the images, in pixels.
        fov: vertical field of view, radians, between 0 and pi.
        radius: of the ball, > 0: a number, or a tensor [B] with one for each image.

    Returns:
        origins [N, 3], unit directions [N, 3], near [N] and far [N], distances along the ray. Nothing behind
        the camera counts: near >= 0. Where the ray misses the ball near = far = the closest approach.
        Not differentiable: RuntimeError when camera_to_world requires grad.
    """
    refuse_gradient("generate_rays", camera_to_world=camera_to_world, pixels=pixels)
    return _op(camera_to_world, pixels, height, width, fov, *one_radius_or_each("generate_rays", radius))


def one_radius_or_each(op: str, radius: float | Tensor) -> tuple[float, Tensor | None]:
    """A radius as the kernels take it: a number, and a tensor in its place."""
    if not isinstance(radius, Tensor):
        return radius, None
    refuse_gradient(op, radius=radius)
    return 1.0, radius


def _fake(
    camera_to_world: Tensor, pixels: Tensor, height: int, width: int, fov: float, radius: float, radii: Tensor | None
) -> Rays:
    check = Checker("generate_rays")
    check("camera_to_world", camera_to_world, ("B", 3, 4), REAL)
    check("pixels", pixels, ("N",), (torch.int64,))
    if height < 1 or width < 1:
        raise ValueError(f"generate_rays: height and width must be >= 1, got {height} and {width}")
    if not 0 < fov < math.pi:
        raise ValueError(f"generate_rays: fov must be between 0 and pi radians, got {fov}")
    if not radius > 0:
        raise ValueError(f"generate_rays: radius must be > 0, got {radius}")
    if radii is not None:
        check("radius", radii, ("B",), (camera_to_world.dtype,))
    n = pixels.shape[0]
    new = camera_to_world.new_empty
    return new((n, 3)), new((n, 3)), new((n,)), new((n,))


def _kernel(*arguments: Any) -> Rays:
    rays = origins, directions, near, far = _fake(*arguments)
    given = named(_op, arguments)
    plane_distance = 1 / math.tan(given.pop("fov") / 2)
    native(origins).generate_rays(
        **given,
        origins=origins,
        directions=directions,
        near=near,
        far=far,
        rays=len(near),
        camera_count=len(given["cameras"]),
        plane_distance=plane_distance,
    )
    return rays


_op = register(
    "generate_rays(Tensor cameras, Tensor pixels, int height, int width, float fov, float radius,"
    " Tensor? radii) -> (Tensor, Tensor, Tensor, Tensor)",
    _kernel,
    _fake,
)
