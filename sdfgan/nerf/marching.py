"""Marching through a grid that knows where a scene is empty (Mueller et al. 2022, arXiv:2201.05989, appendix E)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.data.scenes import Views
from sdfgan.fields.volume import SurveyedField
from sdfgan.ops.pixels import PixelViews
from sdfgan.training.device import generator_on
from sdfgan.volume import OccupancyGrid, Rays, RaySamples, VolumeField, VolumeRendering
from sdfgan.volume.render import composite_packed

_MEMORY = 0.75  # of a cell's density each time that it is evaluated again
_FIRST_MEMORY = 0.5  # as long as all cells are evaluated: what an untrained field has is soon forgotten
_MIN_OPACITY = 0.01  # of a sample in a cell that counts as occupied
_MAX_DEPTH = -math.log(1e-3)  # samples that less of a ray's light reaches are left out
_ROUNDS = (48, 2**24)  # most samples of a ray between looks at which rays go on
_UNBOUNDED_ROUNDS = (32, 64, 128, 2**24)  # there much is behind what light reaches
_UPDATED_SHARE = 1 / 8  # of the cells is evaluated again at an update
_WHOLE_UPDATES = 8  # the first updates evaluate all cells
_EVEN = 0.65  # distance up to which steps are even in an unbounded scene; from there they grow with the distance
_ASIDE = 1.5  # by which what is aside of an image's middle may look larger than in it
_LENS_MARGIN = 0.1  # of an image's side, by which a lens may make it see more


class Packed(NamedTuple):
    """N samples of R rays, one ray after the other."""

    places: RaySamples  # N
    offsets: Tensor  # [R+1] int64
    distances: Tensor  # [N]
    deltas: Tensor  # [N]
    evaluated: int  # places whose density was evaluated to find these


class MarchingGrid(OccupancyGrid):
    """What density a field has had in the cells of the cube [-1, 1]^3, or of the contracted space, and marching.

    Args:
        resolution: cells along an axis.
        march_steps: steps across the diagonal of the cube.
        contracted: whether the scene is unbounded; steps then grow with the distance.
    """

    def __init__(self, resolution: int, march_steps: int, contracted: bool) -> None:
        step = 2 * math.sqrt(3) / march_steps
        super().__init__(resolution, threshold=_MIN_OPACITY / step, contracted=contracted)
        self.step = step

    @torch.no_grad()
    def see(self, cameras: PixelViews, sizes: Tensor) -> None:
        """Leave empty for ever what none of the cameras, of images of sizes [B, 2], can see."""
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

    @torch.no_grad()
    def carve(self, views: Views) -> None:
        """Leave empty for ever what some image, of pinhole cameras, shows nothing of (alpha 0): the visual hull."""
        points = self.points(torch.arange(self.resolution**3, device=self.density.device))
        radius = math.sqrt(3) / self.resolution  # around a cell
        cameras = views.cameras
        shown = views.pixels[:, 3] > 0
        shown = shown if cameras.mask is None else shown | ~cameras.mask
        for index, (height, width) in enumerate(views.sizes.tolist()):
            pose, (fx, fy, cx, cy) = cameras.camera_to_world[index], cameras.intrinsics[index].tolist()
            x, y, z = ((points - pose[:, 3]) @ pose[:, :3]).unbind(1)
            front = -z > 2 * radius
            depth = torch.where(front, -z, 1.0)
            column, row = (cx + fx * x / depth).floor().long(), (cy - fy * y / depth).floor().long()
            inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            if not inside.any():
                continue
            reach = math.ceil(_ASIDE * max(fx, fy) * radius / (depth[inside].min().item() - radius)) + 1
            reach = min(reach, max(height, width))  # of a camera among the cells, for which the whole image counts
            first = int(cameras.starts[index])
            wide = shown[first : first + height * width].view(1, 1, height, width).float()
            for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
                wide = F.pad(wide, (padding[1], padding[1], padding[0], padding[0]))
                wide = F.max_pool2d(wide, kernel, stride=1)
            self.seen[inside] &= wide[0, 0, row[inside], column[inside]] > 0
        self.occupied &= self.seen

    @torch.no_grad()
    def span(self, rays: Rays) -> tuple[Tensor, Tensor, Tensor]:
        """The rays that pass occupied cells [M] int64, and the distances [M] between which they do."""
        march = ops.GridMarch(
            rays.origins, rays.directions, rays.near, rays.far, torch.full_like(rays.near, 0.5),
            self.occupied, self.resolution, self.step,
        )  # fmt: skip
        offsets, _ = ops.march_count(march, _ROUNDS[-1])
        distances = ops.march_samples(march, offsets, int(offsets[-1])).distances
        met = offsets.diff().nonzero()[:, 0]
        near, far = distances[offsets[met]] - self.step, distances[offsets[met + 1] - 1] + self.step
        return met, torch.maximum(near, rays.near[met]), torch.minimum(far, rays.far[met])

    def refresh(self, density: Callable[[RaySamples], Tensor], generator: torch.Generator) -> None:
        """Evaluate a density again at a random point of some cells; of all of them the first few times."""
        generator = generator_on(self.density.device, generator)  # of millions of numbers

        def at(points: Tensor) -> Tensor:
            direction = torch.zeros_like(points)
            direction[:, 2] = 1
            return density(RaySamples(points, direction))

        if self.updates < _WHOLE_UPDATES:
            self.update(at, generator, decay=_FIRST_MEMORY)
        else:
            self.update(at, generator, share=_UPDATED_SHARE, decay=_MEMORY)

    def march(self, rays: Rays, jitter: Tensor, field: VolumeField, keep: bool = False) -> Packed:
        """The samples of rays in occupied cells that light of the field reaches.

        `jitter` [R] in [0, 1]: where in its first step each ray begins. Rays end where the field's density has left no
        light; so that it is not evaluated far behind that, samples are looked for in rounds. With `keep` they
        come with what a `SurveyedField` knows of them. Points and directions are differentiable in the rays, for
        distances that are as they are.
        """
        packed = self._march(rays, jitter, field, keep)
        if not (torch.is_grad_enabled() and (rays.origins.requires_grad or rays.directions.requires_grad)):
            return packed
        ray = torch.repeat_interleave(packed.offsets.diff(), output_size=len(packed.distances))
        directions = rays.directions[ray]
        points = torch.addcmul(rays.origins[ray], packed.distances[:, None], directions)
        return packed._replace(places=packed.places._replace(points=points, directions=directions))

    @torch.no_grad()
    def _march(self, rays: Rays, jitter: Tensor, field: VolumeField, keep: bool) -> Packed:
        """`march` without a graph."""
        march = ops.GridMarch(
            rays.origins, rays.directions, rays.near, rays.far, jitter,
            self.occupied, self.resolution, self.step, _EVEN if self.contracted else math.inf,
        )  # fmt: skip
        depth = torch.zeros_like(jitter)  # optical, from the ray's beginning
        reached = torch.zeros(len(jitter) + 1, dtype=torch.int64, device=jitter.device)
        first: Tensor | None = None
        evaluated = 0
        rounds: list[_Round] = []
        for most in _UNBOUNDED_ROUNDS if self.contracted else _ROUNDS:
            offsets, following = ops.march_count(march, most, first)
            count = int(offsets[-1])
            if count == 0:
                break
            some = ops.march_samples(march, offsets, count, first)
            places = RaySamples(some.points, some.directions, lengths=some.deltas)
            density, known = (
                field.survey(places) if keep and isinstance(field, SurveyedField) else (field.density(places), None)
            )
            density = density.to(jitter)
            rounds.append(_Round(offsets, count, known))
            ops.march_reached(density, some.deltas, offsets, depth, reached, following, _MAX_DEPTH)
            evaluated, first = evaluated + count, following
        offsets = reached.cumsum(0)
        total = int(offsets[-1])
        kept = ops.march_samples(march, offsets, total)
        known = _kept(rounds, reached, offsets, total)
        places = RaySamples(kept.points, kept.directions, lengths=kept.deltas, known=known)
        return Packed(places, offsets, kept.distances, kept.deltas, evaluated)


class _Round(NamedTuple):
    """Samples that were evaluated together."""

    offsets: Tensor  # [R+1] int64 of the rays
    total: int
    known: tuple[Tensor, ...] | None  # as of `SurveyedField.survey`


def _kept(rounds: list[_Round], reached: Tensor, offsets: Tensor, total: int) -> tuple[Tensor, ...] | None:
    """What is known of the samples that are kept: the first `reached` [R+1] of each ray, `total` of them."""
    found = [one.known for one in rounds if one.known is not None]
    if not found:
        return None
    ray = torch.repeat_interleave(reached[1:], output_size=total)
    place = torch.arange(len(ray), device=ray.device) - offsets[ray]  # among the samples of its ray
    row, before = torch.zeros_like(ray), 0  # `before`: samples of earlier rounds
    first = torch.zeros_like(reached[1:])  # of each ray in this round
    for one in rounds:
        inside = place - first[ray]
        row = torch.where(inside >= 0, one.offsets[ray] + inside + before, row)
        first, before = first + one.offsets.diff(), before + one.total
    return tuple(torch.cat(parts).index_select(0, row) for parts in zip(*found, strict=True))


def render_packed(packed: Packed, field: VolumeField, background: Tensor) -> VolumeRendering:
    """What R rays see over a background [3] or [R, 3]; differentiable in the field."""
    return weighted_packed(packed, field, background)[0]


def weighted_packed(packed: Packed, field: VolumeField, background: Tensor) -> tuple[VolumeRendering, Tensor]:
    """The same, and the weights [N] of the samples."""
    places, offsets, distances, deltas, _ = packed
    return composite_packed(field.radiance(places), places, deltas, distances, offsets, background)
