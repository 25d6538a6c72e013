"""Edges of hits from the misses beside them: the cheaper way to an unbiased silhouette, for whole images."""

from __future__ import annotations

import torch
from torch import Tensor

from sdfgan.raycast.layers import LayerSamples

_DEEP = -9.0  # pixels: the distance of a hit that is beside no miss
_FARTHEST_MISS = 2.0  # pixels between a miss and its edge
_MIN_EDGE = 0.2  # pixels that a hit may lie outside of its neighbour's edge


def edges_of_hits(samples: LayerSamples, distance: Tensor, across: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of N samples, one to a pixel, with those of hits replaced; all as `half_plane_area` takes them.

    A miss at pixel q, an edge at `distance` along (across, up): a hit at q + delta is at distance + delta . (across,
    up) from the same edge. Of the eight neighbours that miss, the one counts that is most nearly straight across.
    """
    side = samples.resolution
    index = torch.full((int(samples.pixel[-1]) // side**2 * side**2 + side**2,) if len(samples) else (0,), -1)
    index = index.to(samples.pixel.device)
    index[samples.pixel] = torch.arange(len(samples), device=index.device)
    hit = samples.opaque.nonzero()[:, 0]
    pixel = samples.pixel[hit]
    x, y = pixel % side, pixel // side % side
    best = distance.new_full((len(hit),), torch.inf)
    chosen, offset = torch.zeros_like(hit), distance.new_zeros(len(hit))
    for dy in (-1, 0, 1):  # of the neighbour, in rows: downwards
        for dx in (-1, 0, 1):
            inside = (x + dx >= 0) & (x + dx < side) & (y + dy >= 0) & (y + dy < side)
            other = index[torch.where(inside, pixel + dy * side + dx, pixel)]
            own = distance.detach()[other]
            moved = -dx * across[other] + dy * up[other]
            beside = (dx * up[other] + dy * across[other]).abs()
            usable = inside & (other >= 0) & ~samples.opaque[other] & (own < _FARTHEST_MISS)
            cost = torch.where(usable, beside + 0.3 * (own + moved).abs(), torch.inf)
            better = cost < best
            best = torch.where(better, cost, best)
            chosen, offset = torch.where(better, other, chosen), torch.where(better, moved, offset)
    found = best.isfinite()
    edge = torch.where(found, distance[chosen] + offset, _DEEP).clamp(max=_MIN_EDGE)
    one = torch.ones_like(edge)
    return (
        distance.index_put((hit,), edge),
        across.index_put((hit,), torch.where(found, across[chosen], one)),
        up.index_put((hit,), torch.where(found, up[chosen], 0 * one)),
    )
