"""What each operator of `sdfgan.ops` means, in plain torch, for reading, tests and benchmarks only.

The signatures are those of the operators; see there for shapes and dtypes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .trace import RayStatus


def positional_encoding(x: Tensor, octaves: int, *, include_input: bool = False, times_pi: bool = False) -> Tensor:
    """Computed in float64, where pi * 2^octave * x keeps its digits, and rounded once."""
    blocks = [x.double()] if include_input else []
    for octave in range(octaves):
        angle = x.double() * 2.0**octave * (math.pi if times_pi else 1.0)
        blocks += [angle.sin(), angle.cos()]
    empty = x.new_empty((*x.shape[:-1], 0), dtype=torch.float64)
    return torch.cat([empty, *blocks], dim=-1).to(x.dtype)


def sample_pdf(
    edges: Tensor,
    weights: Tensor,
    num_samples: int,
    *,
    u: Tensor | None = None,
    stratified: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Linear interpolation of the edges at u of the cumulative distribution."""
    rays, bins = weights.shape
    if u is None:
        jitter: Tensor | float = 0.5
        if stratified:
            jitter = torch.rand((rays, num_samples), dtype=edges.dtype, device=edges.device, generator=generator)
        u = (torch.arange(num_samples, dtype=edges.dtype, device=edges.device) + jitter) / num_samples
    u = u.sort(dim=-1).values.double().clamp(0, 1).expand(rays, num_samples).contiguous()

    mass = torch.where(weights.isfinite() & (weights > 0), weights, 0).double()
    total = mass.sum(dim=-1, keepdim=True)
    widths = edges.double().diff(dim=-1)
    empty = total == 0
    span = widths.sum(dim=-1, keepdim=True)
    mass = torch.where(empty, torch.where(span > 0, widths, 1.0), mass)  # uniform over the ray
    cdf = mass.cumsum(dim=-1)
    cdf = torch.cat([torch.zeros_like(total), cdf], dim=-1) / cdf[:, -1:]

    # The first bin whose end reaches u. At u = 0 that is the first bin with any mass.
    first = (mass > 0).to(torch.uint8).argmax(dim=-1, keepdim=True)
    bin_ = torch.searchsorted(cdf[:, 1:].contiguous(), u).clamp(max=bins - 1).maximum(first)
    left, right = edges.double().gather(1, bin_), edges.double().gather(1, bin_ + 1)
    below, above = cdf.gather(1, bin_), cdf.gather(1, bin_ + 1)
    return torch.lerp(left, right, ((u - below) / (above - below)).clamp(0, 1)).to(edges.dtype)


def generate_rays(
    camera_to_world: Tensor, pixels: Tensor, height: int, width: int, fov: float, radius: float = 1.0
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
    half_chord = (radius**2 - miss2).clamp(min=0).sqrt()
    return origins, directions, (closest - half_chord).clamp(min=0), (closest + half_chord).clamp(min=0)


def trace_step(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    t: Tensor,
    far: Tensor,
    best_value: Tensor,
    best_t: Tensor,
    status: Tensor,
    *,
    threshold: float,
    cone_slope: float = 0.0,
    step_scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """One ray at a time."""
    survivors = []
    for k in range(int(count)):
        ray = int(alive[k])
        if not 0 <= ray < len(t):
            continue
        value = values[k] - cone_slope * t[ray]
        if value.isnan():
            status[ray] = RayStatus.INVALID
            continue
        if value < best_value[ray]:
            best_value[ray] = value
            best_t[ray] = t[ray]
        if value <= threshold:
            status[ray] = RayStatus.HIT
            continue
        t[ray] += value * step_scale
        if t[ray] < far[ray]:
            status[ray] = RayStatus.MARCHING
            survivors.append(ray)
        else:
            t[ray] = far[ray]
            status[ray] = RayStatus.LEFT
    points, alive_out = values.new_zeros((len(values), 3)), torch.zeros_like(alive)
    for k, ray in enumerate(survivors):
        points[k] = origins[ray] + t[ray] * directions[ray]
        alive_out[k] = ray
    return points, alive_out, torch.full_like(count, len(survivors))


def film_siren(points: Tensor, image: Tensor, weights: list[Tensor], shifts: list[Tensor], head: Tensor) -> Tensor:
    """One point at a time would be clearer still; this is one layer at a time."""
    features = points[:, :, None]  # [N, 3, 1]
    for weight, shift in zip(weights, shifts, strict=True):
        features = torch.sin(weight[image] @ features + shift[image].transpose(1, 2))
    return features[:, :, 0] @ head
