"""Losses of histograms along rays (mip-NeRF 360, Barron et al. 2022, arXiv:2111.12077), linear in their bins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._library import REAL, Checker, at_least_float32, native, refuse_gradient, register, require_tensors

_MIN_WEIGHT = 1e-7


def interlevel_loss(edges: Tensor, weights: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """How much of a ray's weights a proposal's histogram fails to cover (mip-NeRF 360, eq. 13).

    The sum over bins of max(0, w - bound)^2 / (w + 1e-7), where `bound` sums the weights of all proposal bins that
    overlap the bin.

    Args:
        edges, weights: [R, S+1] ascending and [R, S] of the final histogram; no gradient flows to them.
        proposal_edges, proposal_weights: [R, P+1] ascending and [R, P].

    Returns:
        [R] float32 or float64. Differentiable in proposal_weights to any order; edges carry no gradient: RuntimeError
        when they require grad.
    """
    require_tensors("interlevel_loss", weights=weights, proposal_weights=proposal_weights)
    refuse_gradient("interlevel_loss", edges=edges, proposal_edges=proposal_edges)
    w = at_least_float32(weights.detach())
    inputs = (at_least_float32(x) for x in (edges, proposal_edges, proposal_weights))
    excess = (w - _overlap_sums(*inputs)).clamp(min=0)
    return (excess.square() / (w + _MIN_WEIGHT)).sum(-1)


def distortion_loss(edges: Tensor, weights: Tensor) -> Tensor:
    """How far a ray's weights are spread (mip-NeRF 360, eq. 15).

    sum_ij w_i w_j |m_i - m_j| + sum_i w_i^2 (edge_i+1 - edge_i) / 3, with the bins' middles m.

    Args:
        edges, weights: [R, S+1] ascending and [R, S].

    Returns:
        [R] float32 or float64. Differentiable in weights to any order; edges carry no gradient: RuntimeError when
        they require grad.
    """
    require_tensors("distortion_loss", edges=edges, weights=weights)
    refuse_gradient("distortion_loss", edges=edges)
    edges, weights = at_least_float32(edges), at_least_float32(weights)
    return (weights * _distortion(edges, weights)).sum(-1) / 2


# Both kernels are linear maps of weights: what is summed over overlapping bins one way is summed back the other way,
# and the loss of pairs is a symmetric form. So each is its own gradient, to any order.


def _overlap_fake(edges: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    check = Checker("interlevel_loss")
    check("edges", edges, ("R", "S+1"), REAL)
    check("proposal_edges", others, ("R", "P+1"), (edges.dtype,))
    _require_bins("interlevel_loss", edges=edges, proposal_edges=others)
    check.sizes["P"] = others.shape[1] - 1
    check("proposal_weights", weights, ("R", "P"), (edges.dtype,))
    return edges.new_empty((edges.shape[0], edges.shape[1] - 1))


def _overlap_kernel(edges: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    out = _overlap_fake(edges, others, weights)
    rays, bins = out.shape
    native(edges).overlap_sums(
        edges=edges, others=others, weights=weights, out=out, rays=rays, bins=bins, other_bins=weights.shape[1]
    )
    return out


def _overlap_backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
    edges, others = ctx.saved_tensors
    return None, None, _overlap_sums(others, edges, grad.contiguous())


def _distortion_fake(edges: Tensor, weights: Tensor) -> Tensor:
    check = Checker("distortion_loss")
    check("edges", edges, ("R", "S+1"), REAL)
    _require_bins("distortion_loss", edges=edges)
    check.sizes["S"] = edges.shape[1] - 1
    check("weights", weights, ("R", "S"), (edges.dtype,))
    return torch.empty_like(weights)


def _distortion_kernel(edges: Tensor, weights: Tensor) -> Tensor:
    out = _distortion_fake(edges, weights)
    native(edges).distortion(edges=edges, weights=weights, out=out, rays=out.shape[0], bins=out.shape[1])
    return out


def _distortion_backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
    (edges,) = ctx.saved_tensors
    return None, _distortion(edges, grad.contiguous())


def _require_bins(op: str, **edges: Tensor) -> None:
    for name, tensor in edges.items():
        if tensor.shape[1] < 1:
            raise ValueError(f"{op}: {name} must be [R, bins + 1], got {list(tensor.shape)}")


def _save_edges(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-1])


_overlap_sums = register(
    "overlap_sums(Tensor edges, Tensor others, Tensor weights) -> Tensor",
    _overlap_kernel,
    _overlap_fake,
    _overlap_backward,
    _save_edges,
)
_distortion = register(
    "distortion(Tensor edges, Tensor weights) -> Tensor",
    _distortion_kernel,
    _distortion_fake,
    _distortion_backward,
    _save_edges,
)
