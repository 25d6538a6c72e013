"""Rays through a grid of cells in plain torch: what `sdfgan.ops.grid_march` means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..grid_march import GridMarch, MarchSamples


def grid_march(
    march: GridMarch, density: Callable[[Tensor, Tensor], Tensor], limit: float
) -> tuple[MarchSamples, Tensor]:
    """All steps of rays that lie in occupied cells and in front of which the optical depth is less than `limit`.

    `density(points [N, 3], directions [N, 3])` is evaluated for all of them. Returns the samples and offsets [R+1].
    """
    taken, distances, deltas = _march_steps(march)
    points = march.origins[:, None] + distances[..., None] * march.directions[:, None]
    directions = march.directions[:, None].expand_as(points)
    thickness = torch.zeros_like(distances)
    thickness[taken] = density(points[taken], directions[taken]).to(thickness) * deltas[taken]
    taken &= thickness.cumsum(1) - thickness < limit
    samples = MarchSamples(points[taken], directions[taken], distances[taken], deltas[taken])
    return samples, torch.nn.functional.pad(taken.sum(1).cumsum(0), (1, 0))


def _march_steps(march: GridMarch) -> tuple[Tensor, Tensor, Tensor]:
    """[R, S] which steps lie in occupied cells, their distances and lengths."""
    low, high = _march_ticks(march.near, march) + march.jitter, _march_ticks(march.far, march)
    most = int((high - low).ceil().clamp(min=0).max()) + 1 if len(low) else 0
    ticks = low[:, None] + torch.arange(most, device=low.device)
    distances = _march_distances(ticks, march)
    points = march.origins[:, None] + distances[..., None] * march.directions[:, None]
    if not math.isinf(march.even):
        length = points.norm(dim=-1, keepdim=True).clamp(min=1)
        points = points * ((2 - 1 / length) / length) / 2
    n = march.resolution
    x, y, z = ((points + 1) * (n / 2)).long().clamp(0, n - 1).unbind(-1)
    taken = march.occupied[(x * n + y) * n + z] & (ticks < high[:, None])
    return taken, distances, _march_distances(ticks + 1, march) - distances


def _march_ticks(distance: Tensor, march: GridMarch) -> Tensor:
    """How many steps it is to a distance: inverts `_march_distances`."""
    if math.isinf(march.even):
        return distance / march.step
    even = march.even
    return (distance.clamp(max=even) + even * (distance / even).clamp(min=1).log()) / march.step


def _march_distances(ticks: Tensor, march: GridMarch) -> Tensor:
    """The distance after some steps: they are even up to `even`, and from there on a fixed share of the distance."""
    if math.isinf(march.even):
        return ticks * march.step
    even = march.even
    return (ticks * march.step).clamp(max=even) * ((ticks * march.step - even).clamp(min=0) / even).exp()
