"""Encodings of Gaussians instead of points: of pieces of cones (mip-NeRF, Barron et al. 2021, arXiv:2103.13415) and of
lobes of directions (Ref-NeRF, Verbin et al. 2022, arXiv:2112.03907)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ._library import HALF, REAL, Checker, at_least_float32, named, native, refuse_gradient, register, require_tensors

_DTYPES = (*HALF, *REAL)
_MAX_LEVELS = 5


def frustum_gaussians(
    origins: Tensor, directions: Tensor, edges: Tensor, radii: Tensor, *, cylinder: bool = False, full: bool = False
) -> tuple[Tensor, Tensor]:
    """The mean and covariance of the points in each piece of a cone around a ray (mip-NeRF, eqs. 7 and 8).

    Args:
        origins, directions: [R, 3] float32 or float64, directions of length 1.
        edges: [R, S+1] ascending distances along the ray, not all 0.
        radii: [R] radius of the cone per unit of distance, or of the cylinder.
        full: covariances as matrices [R, S, 3, 3], else their diagonals [R, S, 3].

    Returns:
        means [R, S, 3] and covariances. Not differentiable: RuntimeError when an argument requires grad.
    """
    refuse_gradient("frustum_gaussians", origins=origins, directions=directions, edges=edges, radii=radii)
    return _frustum_op(origins, directions, edges, radii, cylinder, full)


def integrated_positional_encoding(means: Tensor, variances: Tensor, octaves: int) -> Tensor:
    """Expected sines and cosines of x ~ N(mean, variance): exp(-4^k variance / 2) sin(2^k mean), likewise cos.

    In the order of `positional_encoding` without its input: [sin(x), cos(x), sin(2 x), ...], each of D values. To
    encode along other axes than those of the coordinates, pass means @ basis and the diagonal of
    basis^T covariance basis.

    Args:
        means, variances: [..., D] of one dtype, float16, bfloat16, float32 or float64.
        octaves: number of frequencies, 0 to 32.

    Returns:
        [..., 2 octaves D]. Differentiable in means and variances to any order.
    """
    require_tensors("integrated_positional_encoding", means=means, variances=variances)
    return _positional_op(means, variances, octaves)


def integrated_directional_encoding(directions: Tensor, roughness: Tensor, levels: int = 4) -> Tensor:
    """Expected spherical harmonics of directions spread around one (Ref-NeRF, eqs. 7 and 8).

    Y_l^m(direction) exp(-l (l+1) roughness / 2) of l = 1, 2, 4, ... 2^(levels-1) and m = 0 ... l: all real parts, then
    all imaginary parts; 38 values for 4 levels. The roughness is 1/kappa, the inverse concentration of a von
    Mises-Fisher distribution. Off the unit sphere it is the polynomial N Q_l^m(z) (x + iy)^m, Q the m-th derivative
    of the Legendre polynomial.

    Args:
        directions: [..., 3] unit, float32 or float64 (half types are computed and returned in float32).
        roughness: [...] >= 0.
        levels: 1 to 5.

    Returns:
        [..., 2 (2^levels - 1 + levels)]. Differentiable once in both.
    """
    require_tensors("integrated_directional_encoding", directions=directions, roughness=roughness)
    shape = directions.shape[:-1]
    if directions.dim() == 0 or directions.shape[-1] != 3 or roughness.shape != shape:
        wanted = "directions must be [..., 3] and roughness [...]"
        got = f"{list(directions.shape)} and {list(roughness.shape)}"
        raise ValueError(f"integrated_directional_encoding: {wanted}, got {got}")
    flat = at_least_float32(directions).reshape(-1, 3).contiguous()
    return _directional_op(flat, at_least_float32(roughness).reshape(-1).contiguous(), levels).unflatten(0, shape)


def _frustum_fake(
    origins: Tensor, directions: Tensor, edges: Tensor, radii: Tensor, cylinder: bool, full: bool
) -> tuple[Tensor, Tensor]:
    check = Checker("frustum_gaussians")
    check("origins", origins, ("R", 3), REAL)
    check("directions", directions, ("R", 3), (origins.dtype,))
    check("edges", edges, ("R", "S+1"), (origins.dtype,))
    check("radii", radii, ("R",), (origins.dtype,))
    if edges.shape[1] < 1:
        raise ValueError(f"frustum_gaussians: edges must be [R, S+1], got {list(edges.shape)}")
    shape = (edges.shape[0], edges.shape[1] - 1, 3)
    return edges.new_empty(shape), edges.new_empty((*shape, 3) if full else shape)


def _frustum_kernel(*arguments: Any) -> tuple[Tensor, Tensor]:
    results = means, covariances = _frustum_fake(*arguments)
    rays, samples, _ = means.shape
    native(means).frustum_gaussians(
        **named(_frustum_op, arguments), means=means, covariances=covariances, rays=rays, samples=samples
    )
    return results


def _positional_fake(means: Tensor, variances: Tensor, octaves: int) -> Tensor:
    op = "integrated_positional_encoding"
    if means.dtype not in _DTYPES or means.dim() == 0:
        got = f"{list(means.shape)} {str(means.dtype).removeprefix('torch.')} on {means.device}"
        raise ValueError(f"{op}: means must be [..., D] float16, bfloat16, float32 or float64, got {got}")
    if variances.shape != means.shape or variances.dtype != means.dtype or variances.device != means.device:
        got = f"{list(variances.shape)} {str(variances.dtype).removeprefix('torch.')} on {variances.device}"
        wanted = f"{list(means.shape)} {str(means.dtype).removeprefix('torch.')} on {means.device}"
        raise ValueError(f"{op}: variances must be like means, {wanted}, got {got}")
    if not 0 <= octaves <= 32:
        raise ValueError(f"{op}: octaves must be 0 to 32, got {octaves}")
    return means.new_empty((*means.shape[:-1], 2 * octaves * means.shape[-1]))


def _positional_kernel(means: Tensor, variances: Tensor, octaves: int) -> Tensor:
    _positional_fake(means, variances, octaves)
    dtype, dims = means.dtype, means.shape[-1]
    means, variances = at_least_float32(means).contiguous(), at_least_float32(variances).contiguous()
    out = _positional_fake(means, variances, octaves)
    points = means.numel() // max(dims, 1)
    native(means).integrated_positional_encoding(
        means=means, variances=variances, out=out, points=points, dims=dims, octaves=octaves
    )
    return out.to(dtype)


def _positional_setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    means, _, ctx.octaves = inputs
    ctx.dims = means.shape[-1]
    ctx.save_for_backward(output)


def _positional_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    # As for `positional_encoding`: the saved encoding holds the derivatives and is differentiable itself.
    (encoding,) = ctx.saved_tensors
    shape = (*grad.shape[:-1], ctx.octaves, 2, ctx.dims)
    g, e = at_least_float32(grad).reshape(shape), at_least_float32(encoding).reshape(shape)
    frequency = torch.exp2(torch.arange(ctx.octaves, dtype=g.dtype, device=g.device))[:, None]
    by_mean = (frequency * (g[..., 0, :] * e[..., 1, :] - g[..., 1, :] * e[..., 0, :])).sum(-2)
    by_variance = (-0.5 * frequency.square() * (g * e).sum(-2)).sum(-2)
    return by_mean.to(grad.dtype), by_variance.to(grad.dtype), None


@lru_cache
def _harmonics_table(levels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The numbers of core/harmonics.h: P_mm, then a and b of the recurrence (Condon-Shortley phase)."""
    degree = 2 ** (levels - 1)
    starts = [math.sqrt(1 / (4 * math.pi))]
    for m in range(1, degree + 1):
        starts.append(-starts[-1] * math.sqrt((2 * m + 1) / (2 * m)))
    pairs = []
    for m in range(degree + 1):
        for n in range(m + 1, degree + 1):
            a = math.sqrt((4 * n * n - 1) / (n * n - m * m))
            pairs += [a, a * math.sqrt(((n - 1) ** 2 - m * m) / (4 * (n - 1) ** 2 - 1)) if n > m + 1 else 0.0]
    return torch.tensor([*starts, *pairs], dtype=dtype, device=device)


def _directional_fake(directions: Tensor, roughness: Tensor, levels: int) -> Tensor:
    op = "integrated_directional_encoding"
    check = Checker(op)
    check("directions", directions, ("N", 3), REAL)
    check("roughness", roughness, ("N",), (directions.dtype,))
    if not 1 <= levels <= _MAX_LEVELS:
        raise ValueError(f"{op}: levels must be 1 to {_MAX_LEVELS}, got {levels}")
    return directions.new_empty((directions.shape[0], 2 * (2**levels - 1 + levels)))


def _directional_kernel(directions: Tensor, roughness: Tensor, levels: int) -> Tensor:
    out = _directional_fake(directions, roughness, levels)
    _launch_directional(directions, roughness, levels, out.shape[1], out=out)
    return out


def _directional_backward_fake(
    directions: Tensor, roughness: Tensor, grad: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(directions), torch.empty_like(roughness)


def _directional_backward_kernel(
    directions: Tensor, roughness: Tensor, grad: Tensor, levels: int
) -> tuple[Tensor, Tensor]:
    by_direction, by_roughness = results = _directional_backward_fake(directions, roughness, grad, levels)
    gradients = {"grad_out": grad.contiguous(), "grad_directions": by_direction, "grad_roughness": by_roughness}
    _launch_directional(directions, roughness, levels, grad.shape[1], **gradients)
    return results


def _launch_directional(directions: Tensor, roughness: Tensor, levels: int, width: int, **given: Tensor) -> None:
    """The encoding, with `out`, or its gradient, with `grad_out`, `grad_directions` and `grad_roughness`."""
    tensors = dict.fromkeys(("out", "grad_out", "grad_directions", "grad_roughness")) | given
    native(directions).integrated_directional_encoding(
        directions=directions,
        roughness=roughness,
        table=_harmonics_table(levels, directions.dtype, directions.device),
        **tensors,
        count=len(directions),
        width=width,
        levels=levels,
    )


def _directional_setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    directions, roughness, ctx.levels = inputs
    ctx.save_for_backward(directions, roughness)


def _directional_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    directions, roughness = ctx.saved_tensors
    return *_directional_backward_op(directions, roughness, grad, ctx.levels), None


def _refuse_second(ctx: Any, *grads: Tensor) -> None:
    raise RuntimeError("integrated_directional_encoding: its gradient is not differentiable")


_frustum_op = register(
    "frustum_gaussians(Tensor origins, Tensor directions, Tensor edges, Tensor radii, bool cylinder, bool full)"
    " -> (Tensor, Tensor)",
    _frustum_kernel,
    _frustum_fake,
)
_positional_op = register(
    "integrated_positional_encoding(Tensor means, Tensor variances, int octaves) -> Tensor",
    _positional_kernel,
    _positional_fake,
    _positional_backward,
    _positional_setup_context,
)
_directional_op = register(
    "integrated_directional_encoding(Tensor directions, Tensor roughness, int levels) -> Tensor",
    _directional_kernel,
    _directional_fake,
    _directional_backward,
    _directional_setup_context,
)
_directional_backward_op = register(
    "integrated_directional_encoding_backward(Tensor directions, Tensor roughness, Tensor grad, int levels)"
    " -> (Tensor, Tensor)",
    _directional_backward_kernel,
    _directional_backward_fake,
    _refuse_second,
)
