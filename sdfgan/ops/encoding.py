"""Positional encoding of coordinates (Mildenhall et al. 2020, NeRF, eq. 4)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._library import HALF, REAL, native, register, require_tensors

_DTYPES = (*HALF, *REAL)


def positional_encoding(x: Tensor, octaves: int, *, include_input: bool = False, times_pi: bool = False) -> Tensor:
    """Sines and cosines of x at the frequencies 1, 2, 4, ... 2^(octaves-1), times pi if `times_pi`.

    The last axis of the result is [x (if include_input), sin(x), cos(x), sin(2 x), cos(2 x), ...], each block
    with the D coordinates of x. With `times_pi` the sines are exact to rounding at any octave.

    Args:
        x: [..., D] float16, bfloat16, float32 or float64, any strides. Half types are computed in float32.
        octaves: number of frequencies, 0 to 64.

    Returns:
        [..., (include_input + 2 octaves) D], contiguous, of x's dtype. Differentiable in x to any order.
    """
    require_tensors("positional_encoding", x=x)
    return _op(x, octaves, include_input, times_pi)


def _check(x: Tensor, octaves: int) -> None:
    if x.dtype not in _DTYPES or x.dim() == 0:
        shape, dtype = list(x.shape), str(x.dtype).removeprefix("torch.")
        raise ValueError(
            "positional_encoding: x must be [..., D] float16, bfloat16, float32 or float64, "
            f"got {shape} {dtype} on {x.device}"
        )
    if not 0 <= octaves <= 64:
        raise ValueError(f"positional_encoding: octaves must be 0 to 64, got {octaves}")


def _fake(x: Tensor, octaves: int, include_input: bool, times_pi: bool) -> Tensor:
    _check(x, octaves)
    width = (int(include_input) + 2 * octaves) * x.shape[-1]  # a symbolic size cannot be multiplied by a bool
    return x.new_empty((*x.shape[:-1], width))


def _kernel(x: Tensor, octaves: int, include_input: bool, times_pi: bool) -> Tensor:
    _check(x, octaves)
    dtype = x.dtype
    x = x.to(_compute_dtype(x)).contiguous()
    out = _fake(x, octaves, include_input, times_pi)
    dims = x.shape[-1]
    points = x.numel() // max(dims, 1)
    native(x).positional_encoding(
        x=x,
        out=out,
        points=points,
        dims=dims,
        width=out.shape[-1],
        octaves=octaves,
        include_input=include_input,
        times_pi=times_pi,
    )
    return out.to(dtype)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _setup_context(ctx: Any, inputs: tuple[Tensor, int, bool, bool], output: Tensor) -> None:
    x, ctx.octaves, ctx.include_input, ctx.times_pi = inputs
    ctx.dims = x.shape[-1]
    ctx.save_for_backward(output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    # The saved encoding holds the derivatives, and is itself a differentiable function of x. So this
    # formula, in differentiable operations, makes every higher order right.
    (encoding,) = ctx.saved_tensors
    dims, octaves = ctx.dims, ctx.octaves
    split = dims if ctx.include_input else 0
    shape = (*grad.shape[:-1], octaves, 2, dims)
    g = grad[..., split:].to(_compute_dtype(grad)).reshape(shape)
    e = encoding[..., split:].to(g.dtype).reshape(shape)
    frequency = (math.pi if ctx.times_pi else 1.0) * torch.exp2(torch.arange(octaves, dtype=g.dtype, device=g.device))
    slope = g[..., 0, :] * e[..., 1, :] - g[..., 1, :] * e[..., 0, :]  # d sin = cos, d cos = -sin
    grad_x = (slope * frequency[:, None]).sum(-2)
    if ctx.include_input:
        grad_x = grad_x + grad[..., :split]
    return grad_x.to(grad.dtype), None, None, None


def _vmap(info: Any, in_dims: tuple, x: Tensor, *settings: Any) -> tuple[Tensor, int]:
    return _op(x.movedim(in_dims[0], 0), *settings), 0


_op = register(
    "positional_encoding(Tensor x, int octaves, bool include_input, bool times_pi) -> Tensor",
    _kernel,
    _fake,
    _backward,
    _setup_context,
    _vmap,
)
