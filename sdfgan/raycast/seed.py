"""Silhouettes by the rules of the renderer this project started from (sidmani/dfr), for comparison.

A hit is opaque; a miss covers a share that falls linearly to nothing one pixel outside, and has a fixed brightness.
Surfaces are where the sdf is 0.005, and hits do not move.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.raycast.layers import LayerSamples
from sdfgan.raycast.levels import SEED_THRESHOLD, seed_levels
from sdfgan.raycast.multiscale import Tracer

_SCALE = 4
_MISSED_BRIGHTNESS = 0.7


@torch.no_grad()
def seed_samples(tracer: Tracer, resolution: int, pixels: Tensor | None) -> LayerSamples:
    """One sample for each pixel whose ray comes within a pixel of the surface."""
    scales = (resolution // _SCALE, _SCALE) if resolution % _SCALE == 0 else (resolution,)
    traced = tracer.trace(seed_levels(scales, tracer.fov, tracer.lipschitz))
    near = (traced.status != int(ops.RayStatus.UNTRACED)) & (traced.nearest < SEED_THRESHOLD + 2 / resolution)
    pixel = (near if pixels is None else near & pixels.flatten()).nonzero()[:, 0]
    hit, t, nothing = traced.status[pixel] == int(ops.RayStatus.HIT), traced.distance[pixel], torch.zeros_like(pixel)
    normal = torch.zeros(len(t), 3, dtype=t.dtype, device=t.device)
    return LayerSamples(
        pixel, nothing, hit, hit, t, torch.stack([t, t], -1), torch.zeros_like(t), traced.nearest[pixel], normal,
        traced.counts, resolution,
    )  # fmt: skip


def fuzzy_coverage(sdf: Tensor, resolution: int, brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage [N] and brightness [N, 1] of samples where the sdf is [N]."""
    outside = sdf - SEED_THRESHOLD
    alpha = (1 - outside * resolution / 2).clamp(0, 1)
    return alpha, torch.where(outside[:, None] > 0, _MISSED_BRIGHTNESS, brightness)
