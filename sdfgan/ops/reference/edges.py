"""Edges of layers in plain torch: what `sdfgan.ops.edges` means."""

from __future__ import annotations

import torch
from torch import Tensor

from ..edges import LayerEdges

_FLAT = 0.01  # of the sdf across a pixel, at least, in a distance
_FARTHEST_MISS = 2.0  # pixels between a miss and its edge
_FARTHEST_HIT = 0.2  # pixels that a hit may lie outside of its neighbour's edge: beyond, it is another part's
_ASIDE = 4.0  # pixels of depth between a layer and the one of a neighbour that has its contour
_THIN = 0.8  # of what the sdf changes by outside: inside, it changes by less from pixel to pixel


def layer_edges(
    pixel: Tensor,
    hit: Tensor,
    opaque: Tensor,
    near: Tensor,
    t: Tensor,
    nearest: Tensor,
    normal: Tensor,
    size: Tensor,
    camera: Tensor,
    resolution: int,
    *,
    all_hits: bool,
) -> LayerEdges:
    """A miss at pixel q, an edge at `distance` along (across, up): a hit at q + delta is at distance + delta . (across,
    up) from the same edge. Of the neighbours that miss, the one counts that is most nearly straight across."""
    axes = camera[pixel // resolution**2, :, :2]
    across, up = (normal[..., None] * axes).sum(1).unbind(-1)
    change = (across.square() + up.square()).sqrt()
    across, up = across / change.clamp_min(1e-9), up / change.clamp_min(1e-9)
    distance = nearest / (size * change.clamp_min(_FLAT))
    index = torch.arange(len(pixel), device=pixel.device)
    own = (hit & near if all_hits else hit & near & ~opaque).nonzero()[:, 0]
    # Of each pixel, and of what is outside of the images, the layers that miss.
    order = index - torch.searchsorted(pixel, pixel)  # among those of its pixel
    slots, nowhere = int(order.max()) + 1 if len(order) else 1, len(camera) * resolution**2
    table = index.new_full((nowhere + 1, slots), -1)
    table[pixel, order] = index.masked_fill(hit | ~near, -1)
    slot = torch.arange(9 * slots, device=pixel.device)
    dx, dy = slot // slots % 3 - 1, slot // slots // 3 - 1  # of the neighbour, in rows: downwards
    x, y = pixel[own, None] % resolution + dx, pixel[own, None] // resolution % resolution + dy  # [K, 9 slots]
    inside = (x % resolution == x) & (y % resolution == y)
    other = table[torch.where(inside, pixel[own, None] + dy * resolution + dx, nowhere), slot % slots]
    edge = distance[other] - dx * across[other] + dy * up[other]
    usable = (other >= 0) & (distance[other] < _FARTHEST_MISS) & (edge < _FARTHEST_HIT)
    if not all_hits:
        usable &= ((t[other] - t[own, None]).abs() < _ASIDE * size[own, None]) & (edge > distance[own, None])
        usable &= change[own, None] < _THIN * change[other]
    cost = torch.where(usable, (dx * up[other] + dy * across[other]).abs() + 0.3 * edge.abs(), torch.inf)
    least, best = cost.min(-1, keepdim=True)
    found = least[:, 0] < torch.inf
    source = index.index_put((own,), torch.where(found, other.gather(1, best)[:, 0], own))
    further = torch.where(found, (edge - distance[other]).gather(1, best)[:, 0], 0.0)
    moved = torch.zeros_like(distance).index_put((own,), further)
    area = _half_plane_area(distance[source] + moved, across[source], up[source])
    area = area.masked_fill(opaque & (source == index), 1.0)
    return LayerEdges(source, nearest[source] + moved * size[source] * change[source], area)


def _half_plane_area(distance: Tensor, across: Tensor, up: Tensor) -> Tensor:
    """Of the unit square around 0, where (across, up) . p + distance <= 0."""
    long = torch.maximum(across.abs(), up.abs()).clamp_min(1e-6)
    short = torch.minimum(across.abs(), up.abs()).clamp_min(1e-6)
    beyond = ((long + short) / 2 - distance.abs()).clamp_min(0)
    outside = 0.5 - torch.sign(distance) * (0.5 - beyond.square() / (2 * long * short))
    return torch.where(distance.abs() <= (long - short) / 2, 0.5 - distance / long, outside)
