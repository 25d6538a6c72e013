"""Perceptrons in plain torch: what `sdfgan.ops.perceptron` means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def perceptron(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], *, sine: bool = False, constant: float = 0.0
) -> Tensor:
    """Layer after layer."""
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = F.linear(x, weight, bias)
        if index < len(weights) - 1:
            x = torch.sin(constant * x) if sine else F.leaky_relu(x, constant)
    return x
