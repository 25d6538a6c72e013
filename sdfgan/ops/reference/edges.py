"""Edges of hits from the misses beside them.

Outside of a solid, the sdf tells where its contour is; inside, that of one whose rim is thinner than a pixel does not:
it is the distance of the faces, which rises as the root of the distance from the contour, or not at all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sdfgan.raycast.layers import LayerSamples

_FARTHEST_MISS = 2.0  # pixels between a miss and its edge
_FARTHEST_HIT = 0.2  # pixels that a hit may lie outside of its neighbour's edge: beyond, it is another part's
_ASIDE = 4.0  # pixels of depth between a layer and the one of a neighbour that has its contour
_THIN = 0.8  # of what the sdf changes by outside: inside, it changes by less from pixel to pixel


def edges_of_misses(
    samples: LayerSamples, near: Tensor, edges: tuple[Tensor, ...], change: Tensor, images: int, *, all_hits: bool
) -> tuple[LayerSamples, tuple[Tensor, ...]]:
    """The N samples, with the edges of hits replaced by those of misses beside them; and their edges.

    A miss at pixel q, an edge at `distance` along (across, up): a hit at q + delta is at distance + delta . (across,
    up) from the same edge. Of the eight neighbours that miss, the one counts that is most nearly straight across.

    Args:
        near: [N] bool: those that count.
        edges: of the samples, as `half_plane_area` takes them.
        change: [N] of the sdf from pixel to pixel, per world unit.
        images: how many there are.
        all_hits: of all hits; else of those in parts so thin that the sdf inside does not tell the edge.
    """
    side, pixel_size = samples.resolution, samples.size
    own = (samples.hit & near if all_hits else samples.hit & near & ~samples.opaque).nonzero()[:, 0]
    if len(own) == 0:
        return samples, edges
    # Of each pixel, and of what is outside of the images, the layers that miss.
    nowhere = images * side**2
    table = own.new_full((nowhere + 1, samples.slots), -1)
    index = torch.arange(len(samples), device=own.device)
    table[samples.pixel, samples.order] = index.masked_fill(samples.hit | ~near, -1)
    slot = torch.arange(9 * samples.slots, device=own.device)
    place = slot // samples.slots
    dx, dy = place % 3 - 1, place // 3 - 1  # of the neighbour, in rows: downwards
    pixel = samples.pixel[own, None]
    x, y = pixel % side + dx, pixel // side % side + dy  # [K, 9 slots]
    inside = (x % side == x) & (y % side == y)
    other = table[torch.where(inside, pixel + dy * side + dx, nowhere), slot % samples.slots]
    known = torch.stack([*edges, change, samples.edge[:, 0]])
    distance, across, up, beside, t = known[:, other]
    edge = distance - dx * across + dy * up
    usable = (other >= 0) & (distance < _FARTHEST_MISS) & (edge < _FARTHEST_HIT)
    if not all_hits:
        own_distance, _, _, own_change, own_t = known[:, own, None]
        usable &= ((t - own_t).abs() < _ASIDE * pixel_size[own, None]) & (own_change < _THIN * beside)
        usable &= edge > own_distance
    cost = torch.where(usable, (dx * up + dy * across).abs() + 0.3 * edge.abs(), torch.inf)
    least, best = cost.min(-1, keepdim=True)
    found = least[:, 0] < torch.inf
    source = torch.where(found, other.gather(1, best)[:, 0], own)
    moved = torch.where(found, (edge - distance).gather(1, best)[:, 0], 0.0)
    taken = index.index_put((own,), source)
    nearest = samples.nearest[source] + moved * pixel_size[source] * change[source]
    return replace(
        samples,
        opaque=samples.opaque.index_put((own,), samples.opaque[own] & ~found),
        edge_pixel=samples.pixel[taken],
        edge=samples.edge[taken],
        share=samples.share[taken],
        nearest=samples.nearest.index_put((own,), nearest),
        normal=samples.normal[taken],
        size=samples.size[taken],
    ), (edges[0].index_put((own,), known[0, source] + moved), *known[1:3, taken])
