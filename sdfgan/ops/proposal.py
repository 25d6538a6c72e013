"""Losses of histograms along rays (mip-NeRF 360, Barron et al. 2022, arXiv:2111.12077), linear in their bins."""

from __future__ import annotations

from torch import Tensor


def interlevel_loss(edges: Tensor, weights: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """How much of a ray's weights a proposal's histogram fails to cover (mip-NeRF 360, eq. 13).

    The sum over bins of max(0, w - bound)^2 / (w + 1e-7), where `bound` sums the weights of all proposal bins that
    overlap the bin.

    Args:
        edges, weights: [R, S+1] ascending and [R, S] of the final histogram; no gradient flows to them.
        proposal_edges, proposal_weights: [R, P+1] ascending and [R, P].

    Returns:
        [R]. Differentiable in proposal_weights to any order.
    """
    from . import reference_volume

    return reference_volume.interlevel_loss(edges, weights, proposal_edges, proposal_weights)


def distortion_loss(edges: Tensor, weights: Tensor) -> Tensor:
    """How far a ray's weights are spread (mip-NeRF 360, eq. 15).

    sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 (edge_i+1 - edge_i) / 3, with the bins' middles m.

    Args:
        edges, weights: [R, S+1] ascending and [R, S].

    Returns:
        [R]. Differentiable in weights to any order; edges carry no gradient: RuntimeError when they require grad.
    """
    from . import reference_volume

    return reference_volume.distortion_loss(edges, weights)
