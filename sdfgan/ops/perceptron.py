"""Perceptrons without a graph, fused: all layers of a tile of points in cache. On a CPU only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ._library import LIBRARY, REAL, Checker, native, refuse_gradient, require_tensors

_PANEL = 8  # outputs that lie together


def pack_perceptron(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """The layers' weights [O, I] and biases [O] as `perceptron` takes them: one flat tensor.

    Of each layer, with outputs filled up with zeros to a multiple of 8: weights [O/8, I, 8], then biases [O].
    """
    parts = []
    for weight, bias in zip(weights, biases, strict=True):
        spare = -len(weight) % _PANEL
        full = torch.nn.functional.pad(weight.detach(), (0, 0, 0, spare))
        parts += [full.view(-1, _PANEL, weight.shape[1]).transpose(1, 2).reshape(-1)]
        parts += [torch.nn.functional.pad(bias.detach(), (0, spare))]
    return torch.cat(parts)


def perceptron(
    x: Tensor, parameters: Tensor, sizes: Sequence[int], *, sine: bool = False, constant: float = 0.0
) -> Tensor:
    """Values [N] of a perceptron of one output at [N, I]. Refuses tensors that require grad.

    Between layers, features are max(s, 0) + constant * min(s, 0) of the sums s, so ReLU for constant = 0, or, if
    `sine`, sin(constant * s); the float32 sine is a polynomial (error below 2e-7 for arguments below 100). Results do
    not depend on the number of threads.

    Args:
        x: [N, I] float32 or float64, on a CPU.
        parameters: of the same dtype, from `pack_perceptron`.
        sizes: features before, between and after the layers: I, widths, 1.

    Raises RuntimeError for tensors on CUDA: there, layers are products of matrices as torch has them.
    """
    require_tensors("perceptron", x=x, parameters=parameters)
    refuse_gradient("perceptron", x=x, parameters=parameters)
    return _op(x, parameters, list(sizes), sine, constant)


def _fake(x: Tensor, parameters: Tensor, sizes: list[int], sine: bool, constant: float) -> Tensor:
    check = Checker("perceptron")
    if len(sizes) < 2 or sizes[-1] != 1 or min(sizes) < 1:
        raise ValueError(f"perceptron: sizes must be at least two positive numbers, the last 1, got {sizes}")
    if not math.isfinite(constant):
        raise ValueError(f"perceptron: constant must be finite, got {constant}")
    check("x", x, ("N", sizes[0]), REAL)
    padded = [size + -size % _PANEL for size in sizes[1:]]
    count = sum((before + 1) * after for before, after in zip(sizes[:-1], padded, strict=True))
    check("parameters", parameters, (count,), (x.dtype,))
    return x.new_empty(len(x))


def _kernel(x: Tensor, parameters: Tensor, sizes: list[int], sine: bool, constant: float) -> Tensor:
    out = _fake(x, parameters, sizes, sine, constant)
    native(x).perceptron(x=x, parameters=parameters, out=out, count=len(x), sizes=sizes, sine=sine, constant=constant)
    return out


def _no_cuda(x: Tensor, parameters: Tensor, sizes: list[int], sine: bool, constant: float) -> Tensor:
    raise RuntimeError(f"perceptron: is for CPUs, got tensors on {x.device}")


LIBRARY.define("perceptron(Tensor x, Tensor parameters, int[] sizes, bool sine, float constant) -> Tensor")
LIBRARY.impl("perceptron", _kernel, "CPU")
LIBRARY.impl("perceptron", _no_cuda, "CUDA")
torch.library.register_fake("sdfgan::perceptron", _fake, lib=LIBRARY)
_op = torch.ops.sdfgan.perceptron.default
