"""Inverse-transform sampling of piecewise-constant densities along rays."""

from __future__ import annotations

import torch
from torch import Tensor

from ._library import REAL, Checker, at_least_float32, named, native, refuse_gradient, register, require_tensors


def sample_pdf(
    edges: Tensor,
    weights: Tensor,
    num_samples: int,
    *,
    u: Tensor | None = None,
    stratified: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample, on each ray, the density that is constant in every bin and proportional to its weight.

    Bin j of a ray spans edges[j]..edges[j+1] and holds the probability weights[j] / sum(weights). The inverse
    of the cumulative distribution, linear in each bin, is taken at u_i = (i + 0.5) / num_samples, at
    (i + uniform random) / num_samples if `stratified`, or at the given `u`.

    Negative, NaN and infinite weights count as zero. A ray without any weight is uniform over
    [edges[0], edges[-1]].

    Args:
        edges: [R, S+1] float16, bfloat16, float32 or float64, ascending on each ray, S >= 1.
        weights: [R, S] of the same dtype; half types are mixed as one likes.
        u: [R, num_samples] or [num_samples] of the dtype of edges, in any order; clamped to [0, 1].
        generator: source of the random numbers of `stratified`.

    Returns:
        [R, num_samples] positions of the dtype of edges, ascending on each ray; half types are computed in float32.
        Not differentiable: RuntimeError when an argument
        requires grad.
    """
    require_tensors("sample_pdf", edges=edges, weights=weights)
    dtype, edges, weights = edges.dtype, at_least_float32(edges), at_least_float32(weights)
    if u is None:
        refuse_gradient("sample_pdf", edges=edges, weights=weights)
        if num_samples < 0:
            raise ValueError(f"sample_pdf: num_samples must be >= 0, got {num_samples}")
        first = 0 if stratified else 0.5
        u = torch.arange(first, num_samples + first, dtype=edges.dtype, device=edges.device)
        if stratified:
            shape = (edges.shape[0], num_samples)
            u = u + torch.rand(shape, dtype=edges.dtype, device=edges.device, generator=generator)
        u = u / num_samples
    else:
        refuse_gradient("sample_pdf", edges=edges, weights=weights, u=u)
        if stratified:
            raise ValueError("sample_pdf: stratified must be False when u is given, got True")
        if u.dim() == 0 or u.shape[-1] != num_samples:
            wanted = f"[R, {num_samples}] or [{num_samples}]"
            raise ValueError(f"sample_pdf: u must be {wanted}, got {list(u.shape)}")
        u = at_least_float32(u).sort(dim=-1).values
    return _op(edges, weights, u).to(dtype)


def _check(edges: Tensor, weights: Tensor, u: Tensor) -> None:
    check = Checker("sample_pdf")
    check("edges", edges, ("R", "S+1"), REAL)
    if edges.shape[1] < 2:
        raise ValueError(f"sample_pdf: edges must be [R, S+1] with S >= 1, got {list(edges.shape)}")
    check.sizes["S"] = edges.shape[1] - 1
    check("weights", weights, ("R", "S"), (edges.dtype,))
    check("u", u, ("N",) if u.dim() == 1 else ("R", "N"), (edges.dtype,))


def _fake(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    _check(edges, weights, u)
    return edges.new_empty((edges.shape[0], u.shape[-1]))


def _kernel(*given: Tensor) -> Tensor:
    out, (_, weights, u) = _fake(*given), given
    rays, samples = out.shape
    native(out).sample_pdf(
        **named(_op, given),
        out=out,
        rays=rays,
        bins=weights.shape[1],
        samples=samples,
        u_stride=samples if u.dim() == 2 else 0,
    )
    return out


_op = register("sample_pdf(Tensor edges, Tensor weights, Tensor u) -> Tensor", _kernel, _fake)
