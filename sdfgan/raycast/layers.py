"""What the rays of an image meet, front to back: edges that cover a pixel in part, then a surface that covers it.

A layer is a local minimum of the sdf along a ray. Its value F at the minimum t* decides how much of the pixel the layer
covers (`raycast.coverage`); by the envelope theorem F moves with the field as the field does at t*. The march brackets
minima (csrc/core/march.h); here they are found to a fiftieth of a pixel from values and gradients
(csrc/core/layers.h). Where the sdf has a kink, at sharp edges, tangents from both sides meet in the minimum and both
sides move it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from sdfgan import ops
from sdfgan.raycast.multiscale import Tracer
from sdfgan.raycast.room import Room, counted, first_places, only, places
from sdfgan.raycast.sphere_trace import LaunchBound, Rays

OPAQUE_DEPTH = 0.75  # pixels inside: an edge so far from a pixel's centre is outside the pixel, whatever its direction
_HIT_TOLERANCE = 0.05  # pixels
_COMMON = ("counts", "resolution", "slots", "valid", "sizes")  # of all samples, or not always there
_MIN_SHARE = 1e-3  # of one side of a kink in the motion of its edge


class Sizes(NamedTuple):
    """How many of some samples there are, or room for; with the names of `room.KINDS`."""

    samples: int
    hits: int
    misses: int
    edges: int  # those that a gradient moves: see `LayerSamples.moving`


@dataclass(frozen=True)
class LayerSamples:
    """Layers of some pixels of B images of side R: sorted by pixel, then front to back. None carries a gradient."""

    pixel: Tensor  # [N] int64, (b R + row) R + column
    order: Tensor  # [N] int64, 0 for the first layer of a pixel
    hit: Tensor  # [N] bool: the ray through the pixel's centre meets the surface
    opaque: Tensor  # [N] bool: the layer covers its pixel whole, and its ray ends there
    t: Tensor  # [N] where the ray enters the surface, or passes nearest to it
    edge_pixel: Tensor  # [N] int64, on whose ray the minimum is: the pixel's own, or a neighbour's
    edge: Tensor  # [N, 2] just before and after the minimum, where the sdf's derivatives are taken
    share: Tensor  # [N] in [0, 1], of the first of these
    nearest: Tensor  # [N] sdf at the minimum
    normal: Tensor  # [N, 3] gradient of the sdf at the minimum
    size: Tensor  # [N] side of a pixel there, world units
    counts: Tensor  # [2] int64: points evaluated for rays, and in all
    resolution: int
    slots: int  # orders are below
    valid: Tensor | None = None  # [N] bool; others fill the room behind them, neither hit nor opaque; None: all are
    sizes: Sizes | None = None  # None: not counted yet

    def __len__(self) -> int:
        return len(self.pixel)

    def __getitem__(self, chosen: Tensor | slice) -> LayerSamples:
        of_each = [f.name for f in fields(self) if f.name not in _COMMON]
        valid = None if self.valid is None else self.valid[chosen]
        return replace(self, **{name: getattr(self, name)[chosen] for name in of_each}, valid=valid, sizes=None)

    def where(self, chosen: Tensor, room: Room | None = None) -> LayerSamples:
        """Those that are chosen [N], of which all are valid, with their sizes: without room, the host waits for them,
        once."""
        counts = self._count(chosen)
        sizes = Sizes(*counted(room, Sizes._fields, counts))
        kept = replace(self[first_places(chosen, sizes.samples)], valid=None, sizes=sizes)
        if room is None:
            return kept
        valid = torch.arange(sizes.samples, device=self.device) < counts[0]
        return replace(kept, valid=valid, hit=kept.hit & valid, opaque=kept.opaque & valid)

    def _count(self, chosen: Tensor) -> Tensor:
        """[4] int64: `Sizes` of those that are chosen [N]."""
        hits, edges = chosen & self.hit, chosen[:, None] & self.moving
        return torch.stack([chosen.sum(), hits.sum(), (chosen & ~self.hit).sum(), edges.sum()])

    def counted(self) -> LayerSamples:
        """With their sizes."""
        return (
            self
            if self.sizes is not None
            else replace(self, sizes=Sizes(*self._count(only(torch.ones_like(self.hit), self.valid)).tolist()))
        )

    @cached_property
    def first(self) -> Tensor:
        """[N] bool: the first layer of its pixel, or of the room behind all."""
        return first_of_each(self.pixel if self.valid is None else self.pixel.masked_fill(~self.valid, -1))

    @cached_property
    def miss(self) -> Tensor:
        """[N] bool: edges whose pixels' centres see past them."""
        return only(~self.hit, self.valid)

    @cached_property
    def shares(self) -> Tensor:
        """[N, 2] of both edges in how the minimum moves; 0 for an opaque layer."""
        return torch.stack([self.share, 1 - self.share], -1) * ~self.opaque[:, None]

    @cached_property
    def moving(self) -> Tensor:
        """[N, 2] bool: those that are not negligible."""
        return only(self.shares > _MIN_SHARE, self.valid)

    @property
    def device(self) -> torch.device:
        return self.pixel.device

    @cached_property
    def image(self) -> Tensor:
        """[N] int64: which image each layer belongs to."""
        return self.pixel // self.resolution**2


@torch.no_grad()
def trace_layers(
    tracer: Tracer, resolution: int, most: int, *, depth: float = OPAQUE_DEPTH, pixels: Tensor | None = None
) -> LayerSamples:
    """Trace images and find the layers of their pixels.

    Args:
        most: layers of a ray; it ends after so many.
        depth: pixels inside a surface at which a ray ends.
        pixels: [B, R, R] bool: the pixels that are wanted, whose neighbours are traced as well; None: all.
    """
    samples, near = all_layers(tracer, resolution, most, depth=depth, pixels=pixels)
    return samples.where(near)


@torch.no_grad()
def all_layers(
    tracer: Tracer,
    resolution: int,
    most: int,
    *,
    depth: float = OPAQUE_DEPTH,
    pixels: Tensor | None = None,
    room: Room | None = None,
) -> tuple[LayerSamples, Tensor]:
    """As `trace_layers`, with those that turn out to be too far to matter; and [N] bool, which are not."""
    levels = tracer.levels(resolution, _HIT_TOLERANCE * 2 / resolution, margin=OPAQUE_DEPTH, inset=depth)
    traced = tracer.trace(levels, max_layers=most)
    assert traced.layers is not None
    wanted = torch.ones_like(traced.status, dtype=torch.bool)
    if pixels is not None:
        wanted = max_pool2d(pixels[:, None].float(), 3, stride=1, padding=1).flatten() > 0
    minima, opaque = traced.layers.complete * wanted, (traced.status == int(ops.RayStatus.HIT)) & wanted
    # Of each pixel its minima, and then the surface at which its ray ends.
    present = torch.arange(most + 1, device=wanted.device) < (minima + opaque)[:, None]
    place, valid = places(present.flatten(), "layers", room)
    pixel, order = place // (most + 1), place % (most + 1)
    solid = order == minima[pixel]
    guess, _, reach, enter = traced.layers.layers[order.clamp(max=most - 1), :, pixel].unbind(-1)
    guess = torch.where(solid, traced.distance[pixel], guess)
    if valid is not None:
        guess = guess.masked_fill(~valid, 1.0)  # there may be none to copy
    footprint = tracer.footprint(pixel, resolution)
    pixel_size = footprint * guess  # [N] world
    search = ops.start_layers(guess, reach, enter, pixel_size)
    rays = tracer.rays(pixel, resolution, tracer.extent)
    counts = traced.counts + _find(tracer, rays, only(~solid, valid), search)
    cosine = -(rays.directions * tracer.camera[rays.image, :, 2]).sum(-1)
    near = only(search.nearest < pixel_size * tracer.lipschitz_of(rays.image), valid)
    return LayerSamples(
        pixel, order, search.nearest < 0, solid, search.t, pixel, search.edge, search.share, search.nearest,
        search.normal, footprint * search.edge.mean(-1) * cosine, counts, resolution, most + 1, valid,
    ), near  # fmt: skip


def _find(tracer: Tracer, rays: Rays, chosen: Tensor, search: ops.LayerSearch) -> Tensor:
    """Search for the chosen [N] of N layers, on the rays [N]; returns the evaluations, [1] int64.

    Without waiting for a device, as `march` does it.
    """
    count = chosen.sum(dtype=torch.int32)[None]
    bound = LaunchBound(count, len(chosen))
    queries = torch.zeros_like(count, dtype=torch.int64)
    alive = first_places(chosen, bound.value)
    points, alive = rays.at(search.t)[alive], alive.int()
    for _ in range(ops.LAYER_STEPS):
        points, alive = points[: bound.value], alive[: bound.value]
        if len(alive) == 0:
            break
        queries += count
        with tracer.full_precision():
            value, gradient = tracer.field.sdf_and_gradient(points, tracer.condition, rays.image[alive])
        answer = value.contiguous(), gradient.contiguous()
        points, alive, count = ops.layer_step(*answer, alive, count, rays.origins, rays.directions, search)
        bound.see(count)
    return queries


def first_of_each(sorted_values: Tensor) -> Tensor:
    """[N] bool: where a value differs from the one before it."""
    changes = sorted_values[1:] != sorted_values[:-1]
    return torch.cat([changes.new_ones(min(len(sorted_values), 1)), changes])
