"""Layers of images at random, as `ops.layer_edges` takes them: for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdfgan.cameras import orbit_camera, rotate_axes


def random_layers(
    images: int = 2,
    resolution: int = 6,
    slots: int = 3,
    share: float = 0.6,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Arguments: up to `slots` layers of each pixel, of which a `share` is there, near edges of all kinds."""
    g = torch.Generator().manual_seed(seed)
    there = torch.rand(images * resolution**2, slots, generator=g) < share
    pixel = there.nonzero()[:, 0]
    count = len(pixel)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, dtype=torch.float64, generator=g)

    size = 0.05 + 0.05 * rand(count)
    hit = rand(count) < 0.5
    nearest = size * torch.where(hit, -rand(count), 1.5 * rand(count))
    normal = 2 * rand(count, 3) - 1
    normal[rand(count) < 0.1] = 0  # flat
    angles = rand(2, images)
    camera = orbit_camera(rotate_axes((angles[0] - 0.5, 5 * angles[1])))
    arguments = {
        "pixel": pixel,
        "hit": hit,
        "opaque": hit & (rand(count) < 0.3),
        "near": rand(count) < 0.9,
        "t": (2 + 0.3 * rand(count)).to(dtype),
        "nearest": nearest.to(dtype),
        "normal": normal.to(dtype),
        "size": size.to(dtype),
        "camera": camera.to(dtype).contiguous(),
    }
    return {name: tensor.to(device) for name, tensor in arguments.items()} | {"resolution": resolution}
