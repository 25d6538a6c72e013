"""Perceptrons, fused: all layers of a tile of points in cache, forward and back. On a CPU only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._library import LIBRARY, REAL, Checker, native, refuse_gradient, register, require_tensors


def perceptron(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, sine: bool = False, constant: float = 0.0
) -> Tensor:
    """Outputs [N, O] of a perceptron at [N, I].

    Between layers, features are max(s, 0) + constant * min(s, 0) of the sums s, so ReLU for constant = 0, or, if
    `sine`, sin(constant * s); the float32 sine is a polynomial (error below 2e-7 for arguments below 100). The gradient
    recomputes the features instead of keeping them. Neither depends on the number of threads.

    Args:
        x: [N, I] float32 or float64, on a CPU.
        weights, biases: of each layer [outputs, inputs] and [outputs], of the same dtype.

    Differentiable in x, weights and biases: once by the fused kernel; a gradient that is to be differentiated again
    (`create_graph`) is made of torch's products instead. Raises RuntimeError for tensors on CUDA: there, layers are
    products of matrices as torch has them.
    """
    require_tensors("perceptron", x=x)
    return _op(x, list(weights), list(biases), sine, constant)


def perceptron_gradients(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """What a gradient [N, O] by the outputs of `perceptron` with ReLU means for x, weights and biases.

    For those who know the outputs already. Refuses tensors that require grad.
    """
    parameters = {f"weights[{i}]": weight for i, weight in enumerate(weights)}
    parameters |= {f"biases[{i}]": bias for i, bias in enumerate(biases)}
    refuse_gradient("perceptron_gradients", x=x, gradient=gradient, **parameters)
    found, flat = _op_backward(x, list(weights), list(biases), False, 0.0, gradient, True, True)
    return found, *_by_layer(flat, weights, biases)


def _check(op: str, x: Tensor, weights: list[Tensor], biases: list[Tensor], constant: float) -> Checker:
    check = Checker(op)
    if x.is_cuda:
        raise RuntimeError(f"{op}: is for CPUs, got tensors on {x.device}")
    if not weights or len(weights) != len(biases):
        raise ValueError(
            f"{op}: weights and biases must be of as many layers, at least one, got {len(weights)} and {len(biases)}"
        )
    if not math.isfinite(constant):
        raise ValueError(f"{op}: constant must be finite, got {constant}")
    check("x", x, ("N", "I"), REAL)
    inputs = x.shape[1]
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs = len(weight) if weight.dim() else 0
        check(f"weights[{index}]", weight, (outputs, inputs), (x.dtype,))
        check(f"biases[{index}]", bias, (outputs,), (x.dtype,))
        inputs = outputs
    if min(x.shape[1], *map(len, weights)) < 1:
        sizes = [x.shape[1], *map(len, weights)]
        raise ValueError(f"{op}: every layer must have inputs and outputs, got sizes {sizes}")
    return check


def _native(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], sine: bool, constant: float, out: Tensor | None
) -> dict:
    """`Perceptron` of csrc/kernels/perceptron.h."""
    return {
        "x": x,
        "weights": weights,
        "biases": biases,
        "out": out,
        "count": len(x),
        "sizes": [x.shape[1], *map(len, weights)],
        "sine": sine,
        "constant": constant,
    }


def _fake(x: Tensor, weights: list[Tensor], biases: list[Tensor], sine: bool, constant: float) -> Tensor:
    _check("perceptron", x, weights, biases, constant)
    return x.new_empty(len(x), len(weights[-1]))


def _kernel(x: Tensor, weights: list[Tensor], biases: list[Tensor], sine: bool, constant: float) -> Tensor:
    out = _fake(x, weights, biases, sine, constant)
    native(x).perceptron(**_native(x, weights, biases, sine, constant, out))
    return out


# ------------------------------------------------------------------------------------------------- the gradient


def _backward_fake(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    sine: bool,
    constant: float,
    gradient: Tensor,
    by_x: bool,
    by_layers: bool,
) -> tuple[Tensor, Tensor]:
    check = _check("perceptron_backward", x, weights, biases, constant)
    check("gradient", gradient, ("N", len(weights[-1])), (x.dtype,))
    count = sum(tensor.numel() for tensor in (*weights, *biases))
    return torch.empty_like(x) if by_x else x.new_empty(0, x.shape[1]), x.new_empty(count if by_layers else 0)


def _backward_kernel(
    x: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    sine: bool,
    constant: float,
    gradient: Tensor,
    by_x: bool,
    by_layers: bool,
) -> tuple[Tensor, Tensor]:
    found = _backward_fake(x, weights, biases, sine, constant, gradient, by_x, by_layers)
    native(x).perceptron_backward(
        network=_native(x, weights, biases, sine, constant, None),
        gradient=gradient,
        grad_x=found[0] if by_x else None,
        grad_layers=found[1] if by_layers else None,
    )
    return found


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weights, biases, ctx.sine, ctx.constant = inputs
    ctx.save_for_backward(x, *weights, *biases)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    x, *layers = ctx.saved_tensors
    weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
    if torch.is_grad_enabled():  # it is to be differentiated once more
        return _differentiable_gradients(x, weights, biases, ctx.sine, ctx.constant, gradient)
    by_x, (by_weights, by_biases) = ctx.needs_input_grad[0], ctx.needs_input_grad[1:3]
    by_layers = any(by_weights) or any(by_biases)
    found, flat = _op_backward(x, weights, biases, ctx.sine, ctx.constant, gradient.contiguous(), by_x, by_layers)
    layers_found = _by_layer(flat, weights, biases) if by_layers else ([None] * len(weights), [None] * len(biases))
    return found if by_x else None, *layers_found, None, None


def _by_layer(flat: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The gradients of weights and biases, from those of each layer one after the other."""
    parts = flat.split([tensor.numel() for pair in zip(weights, biases, strict=True) for tensor in pair])
    return [part.view_as(weight) for part, weight in zip(parts[::2], weights, strict=True)], list(parts[1::2])


def _differentiable_gradients(
    x: Tensor, weights: list[Tensor], biases: list[Tensor], sine: bool, constant: float, gradient: Tensor
) -> tuple[Any, ...]:
    """The same by torch's own operations."""
    features, slopes = [x], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        sums = torch.addmm(bias, features[-1], weight.T)
        if sine:
            features.append((constant * sums).sin())
            slopes.append(constant * (constant * sums).cos())
        else:
            slope = torch.where(sums > 0, torch.ones_like(sums), constant)
            features.append(sums * slope)
            slopes.append(slope)
    by_weights: list[Tensor] = []
    by_biases: list[Tensor] = []
    for layer in range(len(weights) - 1, -1, -1):
        by_weights.insert(0, gradient.T @ features[layer])
        by_biases.insert(0, gradient.sum(0))
        gradient = gradient @ weights[layer]
        if layer > 0:
            gradient = gradient * slopes[layer - 1]
    return gradient, by_weights, by_biases, None, None


_LAYERS = "Tensor x, Tensor[] weights, Tensor[] biases, bool sine, float constant"
_op = register(f"perceptron({_LAYERS}) -> Tensor", _kernel, _fake)
_op_backward = register(
    f"perceptron_backward({_LAYERS}, Tensor gradient, bool by_x, bool by_layers) -> (Tensor, Tensor)",
    _backward_kernel,
    _backward_fake,
)
torch.library.register_autograd("sdfgan::perceptron", _backward, setup_context=_setup_context, lib=LIBRARY)
