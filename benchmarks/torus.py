"""A mesh that needs no file."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def torus(around: int = 96, across: int = 48, major: float = 0.6, minor: float = 0.25) -> tuple[Tensor, Tensor]:
    """Vertices [around * across, 3] and faces [2 around * across, 3] int32, anticlockwise from outside."""
    u = 2 * math.pi * torch.arange(around) / around
    v = 2 * math.pi * torch.arange(across) / across
    u, v = torch.meshgrid(u, v, indexing="ij")
    radius = major + minor * v.cos()
    vertices = torch.stack((radius * u.cos(), radius * u.sin(), minor * v.sin()), -1).reshape(-1, 3)
    numbers = torch.arange(around * across, dtype=torch.int32).view(around, across)
    a, b = numbers, numbers.roll(-1, 0)
    c, d = b.roll(-1, 1), a.roll(-1, 1)
    return vertices, torch.stack((a, b, c, a, c, d), -1).reshape(-1, 3)
