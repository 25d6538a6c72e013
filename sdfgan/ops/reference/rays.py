"""Rays of cameras in plain torch: what `sdfgan.ops.rays` means."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def generate_rays(
    camera_to_world: Tensor, pixels: Tensor, height: int, width: int, fov: float, radius: float | Tensor = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unprojects pixel centres and intersects with the ball."""
    inside = (pixels >= 0) & (pixels < len(camera_to_world) * height * width)
    if not len(camera_to_world):
        camera_to_world = camera_to_world.new_full((1, 3, 4), math.nan)
    camera = camera_to_world[torch.where(inside, pixels // (height * width), 0)]  # [N, 3, 4]
    camera = torch.where(inside[:, None, None], camera, math.nan)
    x_axis, y_axis, z_axis, origins = camera.unbind(-1)
    aspect = width / height
    column, row = (pixels % width).to(camera.dtype), (pixels // width % height).to(camera.dtype)
    x = ((column + 0.5) * 2 / width - 1) * aspect
    y = 1 - (row + 0.5) * 2 / height
    along = x[:, None] * x_axis + y[:, None] * y_axis - z_axis / math.tan(fov / 2)
    directions = along / along.norm(dim=-1, keepdim=True)

    closest = -(origins * directions).sum(-1)
    miss2 = (origins + closest[:, None] * directions).square().sum(-1)
    if isinstance(radius, Tensor):
        radius = radius[torch.where(inside, pixels // (height * width), 0)] if len(radius) else radius.new_ones(())
    half_chord = (radius**2 - miss2).clamp(min=0).sqrt()
    return origins, directions, (closest - half_chord).clamp(min=0), (closest + half_chord).clamp(min=0)
