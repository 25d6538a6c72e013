"""Linear layers with an activation between, on a CPU as one kernel forward and one back (`ops.perceptron`)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sdfgan import ops
from sdfgan.fields.base import linear_layers


def can_fuse(x: Tensor) -> bool:
    """Whether `ops.perceptron` takes these inputs: on a CPU and in full precision."""
    is_real = x.dtype in (torch.float32, torch.float64)
    return is_real and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def fused_layers(x: Tensor, layers: Iterable[nn.Module], sine: bool = False, constant: float = 0.0) -> Tensor:
    """Outputs [N, O] of the linear ones among `layers`, with the activation of `ops.perceptron`."""
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    weights, biases = [layer.weight for layer in linear], [layer.bias for layer in linear]
    return ops.perceptron(x.contiguous(), weights, biases, sine=sine, constant=constant)


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
