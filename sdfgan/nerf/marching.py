"""Marching through a grid that knows where a scene is empty (Mueller et al. 2022, arXiv:2201.05989, appendix E)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.ops.pixels import PixelViews
from sdfgan.volume import OccupancyGrid, Places, Rays, VolumeField, VolumeRendering

_MEMORY = 0.75  # of a cell's density each time that it is asked again
_FIRST_MEMORY = 0.5  # as long as all cells are asked: what an untrained field says is soon forgotten
_LEAST_OPACITY = 0.01  # of a sample in a cell that counts as occupied
_MOST_DEPTH = -math.log(1e-3)  # samples that less of a ray's light reaches are left out
_BLOCK = 48  # steps between looks at which rays go on
_UPDATED_SHARE = 1 / 8  # of the cells is asked again at an update
_WHOLE_UPDATES = 8  # the first updates ask all cells
_EVEN = 0.65  # distance up to which steps are even in an unbounded scene; from there they grow with the distance
_LENS_MARGIN = 0.1  # of a picture's side, by which a lens may make it see more


class Packed(NamedTuple):
    """N samples of R rays, one ray after the other."""

    places: Places  # N
    offsets: Tensor  # [R+1] int64
    distances: Tensor  # [N]
    deltas: Tensor  # [N]
    asked: int  # places whose density was asked to find these


class MarchingGrid(OccupancyGrid):
    """What density a field has had in the cells of the cube [-1, 1]^3, or of the contracted space, and marching.

    Args:
        resolution: cells along an axis.
        march_steps: steps across the diagonal of the cube.
        contracted: whether the scene is unbounded; steps then grow with the distance.
    """

    def __init__(self, resolution: int, march_steps: int, contracted: bool) -> None:
        step = 2 * math.sqrt(3) / march_steps
        super().__init__(resolution, threshold=_LEAST_OPACITY / step, contracted=contracted)
        self.step = step

    @torch.no_grad()
    def see(self, cameras: PixelViews, sizes: Tensor) -> None:
        """Leave empty for ever what none of the cameras, of pictures of sizes [B, 2], can see."""
        points = self.points(torch.arange(self.resolution**3, device=self.density.device))
        cell = 2 / self.resolution * (points.norm(dim=1) if self.contracted else torch.ones_like(points[:, 0]))
        self.seen.zero_()
        for pose, (fx, fy, cx, cy), size in zip(cameras.camera_to_world, cameras.intrinsics, sizes, strict=True):
            x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).unbind(1)
            depth = (-z).clamp(min=1e-6)
            height, width = size
            margin = _LENS_MARGIN * torch.maximum(height, width) + cell / depth * torch.maximum(fx, fy)
            column, row = cx + fx * x / depth, cy - fy * y / depth
            across = (column > -margin) & (column < width + margin)
            self.seen |= across & (row > -margin) & (row < height + margin) & (z < cell)
        self.occupied &= self.seen

    def ask(self, field: VolumeField, generator: torch.Generator) -> None:
        """Ask the field again at a random point of some cells; of all of them the first few times."""

        def density(points: Tensor) -> Tensor:
            direction = torch.zeros_like(points)
            direction[:, 2] = 1
            return field.density(Places(points, direction))

        if self.updates < _WHOLE_UPDATES:
            self.update(density, generator, decay=_FIRST_MEMORY)
        else:
            self.update(density, generator, share=_UPDATED_SHARE, decay=_MEMORY)

    @torch.no_grad()
    def march(self, rays: Rays, jitter: Tensor, field: VolumeField) -> Packed:
        """The samples of rays in occupied cells that light of the field reaches.

        `jitter` [R] in [0, 1]: where in its first step each ray begins. Rays go block by block of steps, and end where
        the field's density has left no light.
        """
        even = _EVEN if self.contracted else math.inf
        low, high = (_ticks(distance, self.step, even) for distance in (rays.near, rays.far))
        low = low + jitter
        block = torch.arange(_BLOCK, device=low.device)
        depth = torch.zeros_like(low)  # optical, from the ray's beginning
        parts: list[tuple[Tensor, ...]] = []
        asked, first = 0, 0
        alive = (low < high).nonzero()[:, 0]
        while len(alive):
            ticks = low[alive, None] + (first + block)  # [A, B]
            distances = _distances(ticks, self.step, even)
            points = rays.origins[alive, None] + distances[..., None] * rays.directions[alive, None]
            taken = self.occupied[self.cells(points)] & (ticks < high[alive, None])
            row, column = taken.nonzero(as_tuple=True)
            at, ray = distances[row, column], alive[row]
            deltas = _distances(ticks[row, column] + 1, self.step, even) - at
            places = Places(points[row, column], rays.directions[ray])
            thickness = torch.zeros_like(ticks)
            thickness[row, column] = field.density(places).to(thickness) * deltas
            before = depth[alive, None] + thickness.cumsum(1) - thickness
            kept = before[row, column] < _MOST_DEPTH
            parts.append((ray[kept], places.points[kept], at[kept], deltas[kept]))
            asked, first = asked + len(row), first + _BLOCK
            depth[alive] += thickness.sum(1)
            alive = alive[(depth[alive] < _MOST_DEPTH) & (low[alive] + first < high[alive])]
        if not parts:
            parts = [(alive, rays.origins[:0], low[:0], low[:0])]
        ray, points, at, deltas = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        order = ray.argsort(stable=True)
        ray, points, at, deltas = ray[order], points[order], at[order], deltas[order]
        offsets = F.pad(torch.bincount(ray, minlength=len(low)).cumsum(0), (1, 0))
        return Packed(Places(points, rays.directions[ray]), offsets, at, deltas, asked)


def _ticks(distance: Tensor, step: float, even: float) -> Tensor:
    """How many steps it is to a distance: inverts `_distances`."""
    if math.isinf(even):
        return distance / step
    return (distance.clamp(max=even) + even * (distance / even).clamp(min=1).log()) / step


def _distances(ticks: Tensor, step: float, even: float) -> Tensor:
    """The distance after some steps: they are even up to `even`, and from there on a fixed share of the distance."""
    if math.isinf(even):
        return ticks * step
    return (ticks * step).clamp(max=even) * ((ticks * step - even).clamp(min=0) / even).exp()


def render_packed(packed: Packed, field: VolumeField, background: Tensor) -> VolumeRendering:
    """What R rays see over a background [3] or [R, 3]; differentiable in the field."""
    answer = field.radiance(packed.places)
    parts = answer.rgb if answer.normals is None else torch.cat((answer.rgb, answer.normals), 1)
    done = ops.composite(answer.density, packed.deltas, parts.float(), packed.distances, offsets=packed.offsets)
    assert done.colors is not None and done.depth is not None
    rgb = done.colors[:, :3] + (1 - done.opacity[:, None]) * background
    normals = None if answer.normals is None else F.normalize(done.colors[:, 3:], dim=1)
    depth = torch.where(done.opacity > 0, done.depth / done.opacity.clamp(min=1e-10), torch.inf)
    return VolumeRendering(rgb, done.opacity, depth, normals, None, (), answer, packed.places)
