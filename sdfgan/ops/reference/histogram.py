"""Losses of histograms along rays in plain torch: what `sdfgan.ops.histogram` means."""

from __future__ import annotations

import torch
from torch import Tensor


def interlevel_bounds(edges: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """For each bin: the sum of the weights of all proposal bins that overlap it."""
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    overlaps = (proposal_edges[:, None, :-1] < right) & (proposal_edges[:, None, 1:] > left)
    return torch.where(overlaps, proposal_weights[:, None], 0).sum(-1)


def interlevel_loss(edges: Tensor, weights: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """max(0, w - bound)^2 / (w + epsilon), summed over the bins of a ray."""
    w = weights.detach()
    excess = (w - interlevel_bounds(edges, proposal_edges, proposal_weights)).clamp(min=0)
    return (excess.square() / (w + 1e-7)).sum(-1)


def distortion_loss(edges: Tensor, weights: Tensor) -> Tensor:
    """All pairs."""
    middle, width = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)
    apart = (middle[:, :, None] - middle[:, None, :]).abs()
    pairs = (weights[:, :, None] * weights[:, None, :] * apart).sum((1, 2))
    return pairs + (weights.square() * width).sum(1) / 3
