"""Emission and absorption along rays in plain torch: what `sdfgan.ops.composite` means."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from ..composite import Composited


def composite(
    densities: Tensor,
    deltas: Tensor | None = None,
    colors: Tensor | None = None,
    distances: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
) -> Composited:
    """Packed rays one at a time; dense ones by a cumulative product."""
    if offsets is not None:
        each = []
        for a, b in [(0, 0), *pairwise(offsets.tolist())]:  # a ray in front, so that there is one
            others = (None if x is None else x[None, a:b] for x in (deltas, colors, distances))
            each.append(composite(densities[None, a:b], *others))
        return Composited(
            torch.cat([one.weights[0] for one in each]),
            torch.cat([one.opacity for one in each])[1:],
            None if colors is None else torch.cat([one.colors for one in each if one.colors is not None])[1:],
            None if distances is None else torch.cat([one.depth for one in each if one.depth is not None])[1:],
        )
    alphas = densities
    if deltas is not None:
        lengths = torch.where((densities == 0) & deltas.isinf(), 0, deltas)  # transparent over any length
        alphas = -torch.expm1(-densities * lengths)
    passes = torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas[:, :-1]], 1).cumprod(1)
    weights = (alphas * passes)[:, : alphas.shape[1]]
    return Composited(
        weights,
        weights.sum(1),
        None if colors is None else (weights[..., None] * colors).sum(1),
        None if distances is None else (weights * distances).sum(1),
    )
