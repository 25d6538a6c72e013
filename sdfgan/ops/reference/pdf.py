"""Inverse-transform sampling in plain torch: what `sdfgan.ops.pdf` means."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_pdf(
    edges: Tensor,
    weights: Tensor,
    num_samples: int,
    *,
    u: Tensor | None = None,
    stratified: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Linear interpolation of the edges at u of the cumulative distribution."""
    rays, bins = weights.shape
    if u is None:
        jitter: Tensor | float = 0.5
        if stratified:
            jitter = torch.rand((rays, num_samples), dtype=edges.dtype, device=edges.device, generator=generator)
        u = (torch.arange(num_samples, dtype=edges.dtype, device=edges.device) + jitter) / num_samples
    u = u.sort(dim=-1).values.double().clamp(0, 1).expand(rays, num_samples).contiguous()

    mass = torch.where(weights.isfinite() & (weights > 0), weights, 0).double()
    mass = mass / mass.amax(dim=-1, keepdim=True).clamp_min(5e-324)  # no sum overflows
    total = mass.sum(dim=-1, keepdim=True)
    widths = edges.double().diff(dim=-1)
    empty = total == 0
    span = widths.sum(dim=-1, keepdim=True)
    mass = torch.where(empty, torch.where(span > 0, widths, 1.0), mass)  # uniform over the ray
    cdf = mass.cumsum(dim=-1)
    cdf = torch.cat([torch.zeros_like(total), cdf], dim=-1) / cdf[:, -1:]

    # The first bin whose end reaches u. At u = 0 that is the first bin with any mass.
    first = (mass > 0).to(torch.uint8).argmax(dim=-1, keepdim=True)
    bin_ = torch.searchsorted(cdf[:, 1:].contiguous(), u).clamp(max=bins - 1).maximum(first)
    left, right = edges.double().gather(1, bin_), edges.double().gather(1, bin_ + 1)
    below, above = cdf.gather(1, bin_), cdf.gather(1, bin_ + 1)
    return torch.lerp(left, right, ((u - below) / (above - below)).clamp(0, 1)).to(edges.dtype)
