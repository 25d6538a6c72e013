"""Compositing along rays: emission and absorption, piecewise constant (Max 1995; NeRF, eq. 3)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import REAL, Checker, at_least_float32, native, register, require_tensors


class Composited(NamedTuple):
    """R rays, composited. What was not requested is None."""

    weights: Tensor  # as densities: share of the ray's light that each sample sends
    opacity: Tensor  # [R] sum of the weights
    colors: Tensor | None  # [R, C] sum of weights times colors: on black
    depth: Tensor | None  # [R] sum of weights times distances: not divided by the opacity


def composite(
    densities: Tensor,
    deltas: Tensor | None = None,
    colors: Tensor | None = None,
    distances: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
) -> Composited:
    """Weights w_i = a_i prod_{j<i} (1 - a_j) with a_i = 1 - exp(-density_i delta_i), and sums under them.

    Rays are dense, all of S samples, or packed: ray r has the samples offsets[r] to offsets[r+1].

    Args:
        densities: [R, S], or [N] packed, float32 or float64; per unit of length, >= 0. Without `deltas` they are the
            opacities a_i themselves, in [0, 1].
        deltas: like densities: the lengths of the samples' pieces of the ray. One may be infinite, and then the density
            there has no gradient.
        colors: [R, S, C] or [N, C], any number of channels.
        distances: like densities, for the depth.
        offsets: [R+1] int64, ascending, from 0 to N; samples of no ray have no weight.

    Returns:
        `Composited`. Differentiable in everything but offsets, to any order; of opacities, second derivatives are those
        of opacities below 1. Half types are computed and returned in float32.
    """
    require_tensors("composite", densities=densities)
    inputs = (None if x is None else at_least_float32(x) for x in (densities, deltas, colors, distances))
    weights, opacity, out, depth = _op(*inputs, offsets)
    return Composited(weights, opacity, None if colors is None else out, None if distances is None else depth)


Optional = Tensor | None
Four = tuple[Tensor, Tensor, Tensor, Tensor]


def _check(densities: Tensor, deltas: Optional, colors: Optional, distances: Optional, offsets: Optional) -> int:
    """The number of rays."""
    check = Checker("composite")
    shape = ("R", "S") if offsets is None else ("N",)
    check("densities", densities, shape, REAL)
    for name, tensor in (("deltas", deltas), ("distances", distances)):
        if tensor is not None:
            check(name, tensor, shape, (densities.dtype,))
    if colors is not None:
        check("colors", colors, (*shape, "C"), (densities.dtype,))
    if offsets is None:
        return densities.shape[0]
    check("offsets", offsets, ("R+1",), (torch.int64,))
    if offsets.shape[0] < 1:
        raise ValueError("composite: offsets must be [R+1] int64 with R >= 0, got [0]")
    return offsets.shape[0] - 1


def _fake(densities: Tensor, deltas: Optional, colors: Optional, distances: Optional, offsets: Optional) -> Four:
    rays = _check(densities, deltas, colors, distances, offsets)
    channels = 0 if colors is None else colors.shape[-1]
    new = densities.new_empty
    return torch.empty_like(densities), new(rays), new((rays, channels)), new(rays if distances is not None else 0)


def _kernel(densities: Tensor, deltas: Optional, colors: Optional, distances: Optional, offsets: Optional) -> Four:
    weights, opacity, out, depth = _fake(densities, deltas, colors, distances, offsets)
    if offsets is not None:
        weights.zero_()
    native(densities).composite(
        at=_samples(densities, offsets, len(opacity)),
        densities=densities,
        deltas=deltas,
        colors=colors,
        distances=distances,
        weights=weights,
        opacity=opacity,
        out=out,
        depth=None if distances is None else depth,
        channels=out.shape[1],
    )
    return weights, opacity, out, depth


# `wanted`: whether there is to be a gradient by the deltas, the colours and the distances; else it is empty. By the
# densities there always is one.


def _backward_fake(
    densities: Tensor, deltas: Optional, colors: Optional, distances: Optional, offsets: Optional,
    weights: Tensor, g_weights: Optional, g_opacity: Optional, g_colors: Optional, g_depth: Optional,
    wanted: list[bool],
) -> Four:  # fmt: skip
    _check(densities, deltas, colors, distances, offsets)
    optional = zip((deltas, colors, distances), wanted, strict=True)
    results = (torch.empty_like(x) if x is not None and want else densities.new_empty(0) for x, want in optional)
    return torch.empty_like(densities), *results  # type: ignore[return-value]


def _backward_kernel(*arguments: Any) -> Four:
    densities, deltas, colors, distances, offsets, weights, *grads, _ = arguments
    rays = _check(densities, deltas, colors, distances, offsets)
    results = _backward_fake(*arguments)
    incoming = [None if grad is None else grad.contiguous() for grad in grads]
    if offsets is not None:
        for result in results:
            if result.numel():
                result.zero_()
    d_weights, d_opacity, d_out, d_depth = incoming
    d_densities, d_deltas, d_colors, d_distances = (result if result.numel() else None for result in results)
    native(densities).composite_backward(
        at=_samples(densities, offsets, rays),
        densities=densities,
        deltas=deltas,
        colors=colors,
        distances=distances,
        weights=weights,
        grad_weights=d_weights,
        grad_opacity=d_opacity,
        grad_out=d_out,
        grad_depth=d_depth,
        grad_densities=d_densities,
        grad_deltas=d_deltas,
        grad_colors=d_colors,
        grad_distances=d_distances,
        channels=0 if colors is None else colors.shape[-1],
    )
    return results


def _samples(densities: Tensor, offsets: Optional, rays: int) -> dict:
    return {"offsets": offsets, "rays": rays, "samples": densities.shape[-1]}


def _setup_context(ctx: Any, inputs: tuple[Optional, ...], output: Four) -> None:
    ctx.save_for_backward(*inputs, output[0])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Optional) -> tuple[Optional, ...]:
    *inputs, weights = ctx.saved_tensors
    given = [
        None if x is None else grad for x, grad in zip((weights, weights, inputs[2], inputs[3]), grads, strict=True)
    ]
    if all(grad is None for grad in given):
        return (None,) * 5
    wanted = [x is not None and need for x, need in zip(inputs[1:4], ctx.needs_input_grad[1:4], strict=True)]
    gradients = _backward_op(*inputs, weights, *given, wanted)
    return *(g if want else None for g, want in zip(gradients, (True, *wanted), strict=True)), None


def _formula(inputs: tuple[Optional, ...], weights: Tensor, grads: list[Optional]) -> list[Optional]:
    """What the kernel of the gradient does, in differentiable operations: for higher orders.

    The weights are a differentiable function of the inputs themselves: x_i = density_i delta_i moves w_i by what
    passes, 1 - sum_{j<=i} w_j, and each w_j behind it by -w_j.
    """
    densities, deltas, colors, distances, offsets = inputs
    assert densities is not None
    ray = _ray_of_samples(densities, offsets)

    def per_sample(value: Tensor) -> Tensor:
        return value[ray] if offsets is not None else value[:, None]

    grad_weights, grad_opacity, grad_out, grad_depth = grads
    total = torch.zeros_like(densities) if grad_weights is None else grad_weights
    if grad_opacity is not None:
        total = total + per_sample(grad_opacity)
    if grad_out is not None and colors is not None:
        total = total + (per_sample(grad_out) * colors).sum(-1)
    if grad_depth is not None and distances is not None:
        total = total + per_sample(grad_depth) * distances
    passed, behind = _sums(weights, ray, offsets), weights * total
    all_behind = _sums(behind, ray, offsets)
    last = (
        all_behind[:, -1:] if offsets is None else behind.new_zeros(offsets.shape[0] - 1).index_add(0, ray, behind)[ray]
    )
    slope = (1 - passed) * total - (last - all_behind)
    own: list[Optional]
    if deltas is None:
        own = [slope / (1 - densities), None]
    else:
        own = [torch.where(deltas.isfinite(), slope * deltas, 0), slope * densities]
    grad_colors = None if colors is None or grad_out is None else weights[..., None] * per_sample(grad_out)
    grad_distances = None if distances is None or grad_depth is None else weights * per_sample(grad_depth)
    return [*own, grad_colors, grad_distances]


def _ray_of_samples(densities: Tensor, offsets: Optional) -> Tensor:
    """[N] the ray of each packed sample."""
    samples = torch.arange(densities.shape[-1], device=densities.device)
    if offsets is None:
        return samples
    return (torch.searchsorted(offsets, samples, right=True) - 1).clamp(0, max(offsets.shape[0] - 2, 0))


def _sums(values: Tensor, ray: Tensor, offsets: Optional) -> Tensor:
    """Of each sample and those before it on its ray."""
    if offsets is None:
        return values.cumsum(1)
    sums = values.double().cumsum(0)
    before = torch.cat([sums.new_zeros(1), sums])[offsets[ray]]
    return (sums - before).to(values.dtype)


def _backward_setup_context(ctx: Any, inputs: tuple[Any, ...], output: Four) -> None:
    *tensors, wanted = inputs
    ctx.wanted = (True, *wanted)
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx: Any, *seconds: Optional) -> tuple[Any, ...]:
    *inputs, weights, g0, g1, g2, g3 = ctx.saved_tensors
    floats = [*inputs[:4], weights, g0, g1, g2, g3]
    present = [index for index, tensor in enumerate(floats) if tensor is not None]

    def formula(*tensors: Tensor) -> list[Tensor]:
        everything: list[Optional] = [None] * len(floats)
        for index, tensor in zip(present, tensors, strict=True):
            everything[index] = tensor
        results = _formula((*everything[:4], inputs[4]), tensors[present.index(4)], everything[5:])
        return [
            result if want and result is not None else weights.new_zeros(0)
            for result, want in zip(results, ctx.wanted, strict=True)
        ]

    outputs, pull, *_ = torch.func.vjp(formula, *(floats[index] for index in present))
    cotangents = [
        torch.zeros_like(output) if second is None or not output.numel() else second
        for output, second in zip(outputs, seconds, strict=True)
    ]
    found: list[Optional] = [None] * len(floats)
    for index, gradient in zip(present, pull(cotangents), strict=True):
        found[index] = gradient
    return (*found[:4], None, *found[4:], None)


_TENSORS = "Tensor densities, Tensor? deltas, Tensor? colors, Tensor? distances, Tensor? offsets"
_GRADS = "Tensor? grad_weights, Tensor? grad_opacity, Tensor? grad_colors, Tensor? grad_depth"
_FOUR = "(Tensor, Tensor, Tensor, Tensor)"
_op = register(f"composite({_TENSORS}) -> {_FOUR}", _kernel, _fake, _backward, _setup_context)
_backward_op = register(
    f"composite_backward({_TENSORS}, Tensor weights, {_GRADS}, bool[] wanted) -> {_FOUR}",
    _backward_kernel,
    _backward_fake,
    _backward_backward,
    _backward_setup_context,
)
