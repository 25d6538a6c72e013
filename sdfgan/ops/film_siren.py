"""A FiLM-SIREN network on many points at once, without a graph: the inner loop of tracing, fused on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._library import REAL, Checker, native, refuse_gradient, register


def film_siren(
    points: Tensor, image: Tensor, weights: Sequence[Tensor], shifts: Sequence[Tensor], head: Tensor
) -> Tensor:
    """head . sin(W_L ... sin(W_0 x + s_0) ... + s_L) at each point x, with the layers of the point's image.

    CPU only. Each tile of 32 points passes through all layers in cache; the float32 sine is a polynomial (error below
    2e-7 for phases below 100). Results do not depend on the number of threads.

    Args:
        points: [N, 3] float32 or float64; all real tensors have this dtype.
        image: [N] int64; fastest when points of an image lie together. A point of no image gives NaN.
        weights: per layer [B, W, 3] for the first and [B, W, W] for the others; W is a multiple of 16.
        shifts: per layer [B, 1, W].
        head: [W].

    Returns:
        [N]. Not differentiable: RuntimeError when a tensor requires grad.
    """
    named = {f"weights[{i}]": tensor for i, tensor in enumerate(weights)}
    named |= {f"shifts[{i}]": tensor for i, tensor in enumerate(shifts)}
    refuse_gradient("film_siren", points=points, image=image, head=head, **named)
    return _op(points, image, list(weights), list(shifts), head)


def _fake(points: Tensor, image: Tensor, weights: list[Tensor], shifts: list[Tensor], head: Tensor) -> Tensor:
    check = Checker("film_siren")
    real = (points.dtype,)
    check("points", points, ("N", 3), REAL)
    check("image", image, ("N",), (torch.int64,))
    check("head", head, ("W",), real)
    if len(weights) != len(shifts) or not weights:
        raise ValueError(f"film_siren: weights and shifts must be one per layer, got {len(weights)} and {len(shifts)}")
    if head.shape[0] % 16:
        raise ValueError(f"film_siren: the width must be a multiple of 16, got {head.shape[0]}")
    for i, (weight, shift) in enumerate(zip(weights, shifts, strict=True)):
        check(f"weights[{i}]", weight, ("B", "W", 3 if i == 0 else "W"), real)
        check(f"shifts[{i}]", shift, ("B", 1, "W"), real)
    return points.new_empty(points.shape[0])


def _kernel(points: Tensor, image: Tensor, weights: list[Tensor], shifts: list[Tensor], head: Tensor) -> Tensor:
    out = _fake(points, image, weights, shifts, head)
    if points.is_cuda:
        raise RuntimeError(f"film_siren: runs on the CPU only, got tensors on {points.device}")
    native("film_siren", points)(
        points.data_ptr(),
        image.data_ptr(),
        [tensor.data_ptr() for tensor in weights],
        [tensor.data_ptr() for tensor in shifts],
        head.data_ptr(),
        out.data_ptr(),
        points.shape[0],
        weights[0].shape[0],
        head.shape[0],
    )
    return out


_op = register(
    "film_siren(Tensor points, Tensor image, Tensor[] weights, Tensor[] shifts, Tensor head) -> Tensor", _kernel, _fake
)
