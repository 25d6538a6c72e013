"""Linear layers with an activation between, on a CPU as one kernel forward and one back (`ops.perceptron`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.base import linear_layers

_NEGLIGIBLE = 1e-3  # rows of a gradient of less than this share of their mean


def can_fuse(x: Tensor) -> bool:
    """Whether `ops.perceptron` takes these inputs: on a CPU and in full precision."""
    is_real = x.dtype in (torch.float32, torch.float64)
    return is_real and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def fused_layers(x: Tensor, layers: Iterable[nn.Module], sine: bool = False, constant: float = 0.0) -> Tensor:
    """Outputs [N, O] of the linear ones among `layers`, with the activation of `ops.perceptron`."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    weights, biases = [layer.weight for layer in linear], [layer.bias for layer in linear]
    return ops.perceptron(x.contiguous(), weights, biases, sine=sine, constant=constant)


def sparse_perceptron(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """`ops.perceptron` with ReLU, whose gradient leaves out rows that together are less than a thousandth of it.

    Those are of samples in empty space and behind surfaces, most of a ray's. By the sum of absolute values; of first
    order. Without a gradient it is the same.
    """
    found: Tensor = _Sparse.apply(x, *weights, *biases)
    return found


class _Sparse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *layers: Tensor) -> Tensor:
        ctx.save_for_backward(x, *layers)
        return ops.perceptron(x, layers[: len(layers) // 2], layers[len(layers) // 2 :])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *layers = ctx.saved_tensors
        weights, biases = layers[: len(layers) // 2], layers[len(layers) // 2 :]
        sizes = gradient.abs().sum(1)
        rows = (~(sizes < _NEGLIGIBLE * sizes.mean())).nonzero()[:, 0]  # all, if one is not a number
        some, by_weights, by_biases = ops.perceptron_gradients(x[rows], weights, biases, gradient[rows])
        by_x = torch.zeros_like(x).index_copy_(0, rows, some) if ctx.needs_input_grad[0] else None
        return by_x, *by_weights, *by_biases


class SmallMlp(nn.Sequential):
    """Linear layers, `hidden` of them hidden ones of so many units, with ReLU between: [N, inputs] -> [N, outputs]."""

    def __init__(self, inputs: int, width: int, hidden: int, outputs: int) -> None:
        super().__init__(*linear_layers(inputs, width, hidden, outputs, nn.ReLU))
        for layer in self:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return fused_layers(x, self) if can_fuse(x) else super().forward(x)
