"""Pixels of photographs in plain torch: what `sdfgan.ops.pixels` means."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pixels import PixelSamples, PixelViews


def sample_pixels(views: PixelViews, pixels: Tensor, images: Tensor | None = None) -> PixelSamples:
    """The lens is inverted by Newton's method, in float64."""
    view = (torch.searchsorted(views.starts, pixels, right=True) - 1).clamp(0, len(views.widths) - 1)
    inside = (pixels >= 0) & (pixels < views.starts[-1])
    offset = pixels - views.starts[view]
    column, row = offset % views.widths[view], offset // views.widths[view]
    fx, fy, cx, cy = views.intrinsics[view].double().unbind(1)
    x, y = (column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy
    if views.distortion is not None:
        x, y = _undistort(x, y, views.distortion[view].double())
    shown = inside if views.mask is None else inside & views.mask[torch.where(inside, pixels, 0)]
    z, reach, narrowing = torch.ones_like(x), (1 + x**2 + y**2).sqrt(), torch.ones_like(x)
    if views.fisheye is not None:
        angle, fisheye = (x**2 + y**2).sqrt(), views.fisheye[view]
        narrowing = torch.where(fisheye, torch.sinc(angle / math.pi), 1.0)
        x, y, z = x * narrowing, y * narrowing, torch.where(fisheye, angle.cos(), 1.0)
        reach = torch.where(fisheye, torch.where(angle <= math.pi, 1.0, math.nan), reach)
    camera = views.camera_to_world[view].double()
    along = x[:, None] * camera[..., 0] - y[:, None] * camera[..., 1] - z[:, None] * camera[..., 2]
    length = along.norm(dim=1, keepdim=True)
    directions = torch.where(shown[:, None] & reach.isfinite()[:, None], along / length, math.nan)
    origins = torch.where(directions.isnan(), math.nan, camera[..., 3])
    radii = 2 / math.sqrt(12) * (narrowing / (fx * fy)).sqrt() / reach
    radii = torch.where(shown, radii, math.nan)
    dtype = views.camera_to_world.dtype
    colors = None
    if images is not None:
        colors = images[torch.where(inside, pixels, 0)].to(dtype)
        colors = torch.where(inside[:, None], colors / 255 if images.dtype == torch.uint8 else colors, math.nan)
    return PixelSamples(origins.to(dtype), directions.to(dtype), radii.to(dtype), colors)


def _undistort(x_seen: Tensor, y_seen: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """From the centre of the image outwards, a little at a time, so that no other branch of the lens is met."""
    k1, k2, p1, p2, k3, k4, k5, k6, a = F.pad(lens, (0, 9 - lens.shape[1])).unbind(1)
    x, y, good = torch.zeros_like(x_seen), torch.zeros_like(y_seen), torch.ones_like(x_seen, dtype=torch.bool)
    for share in torch.linspace(0, 1, 51)[1:].tolist():
        for _ in range(6):
            u = x * x + y * y
            top, bottom = 1 + u * (k1 + u * (k2 + u * (k3 + u * a))), 1 + u * (k4 + u * (k5 + u * k6))
            top_slope = k1 + u * (2 * k2 + u * (3 * k3 + u * 4 * a))
            bottom_slope = k4 + u * (2 * k5 + u * 3 * k6)
            radial, slope = top / bottom, 2 * (top_slope * bottom - top * bottom_slope) / bottom**2
            error_x = x * radial + 2 * p1 * x * y + p2 * (u + 2 * x * x) - share * x_seen
            error_y = y * radial + p1 * (u + 2 * y * y) + 2 * p2 * x * y - share * y_seen
            xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
            xy = x * y * slope + 2 * p1 * x + 2 * p2 * y
            yy = radial + y * y * slope + 6 * p1 * y + 2 * p2 * x
            determinant = xx * yy - xy * xy
            x, y = x - (yy * error_x - xy * error_y) / determinant, y - (xx * error_y - xy * error_x) / determinant
        good &= (error_x.abs() + error_y.abs() < 1e-9) & (determinant > 0) & (bottom > 0)
        good &= radial + u * slope > 0  # the radial part rises: the lens has not folded
    nan = torch.full_like(x, math.nan)
    return torch.where(good, x, nan), torch.where(good, y, nan)
