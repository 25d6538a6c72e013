"""Perceptrons in plain torch: what `sdfgan.ops.perceptron` means."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def perceptron(
    x: Tensor, parameters: Tensor, sizes: Sequence[int], *, sine: bool = False, constant: float = 0.0
) -> Tensor:
    """Layer after layer, from the packed panels of 8 outputs."""
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        padded = outputs + -outputs % 8
        weight, bias, parameters = parameters.split([padded * inputs, padded, len(parameters) - padded * (inputs + 1)])
        x = x @ weight.view(-1, inputs, 8).transpose(1, 2).reshape(padded, inputs)[:outputs].T + bias[:outputs]
        if layer < len(sizes) - 2:
            x = torch.sin(constant * x) if sine else x.clamp(min=0) + constant * x.clamp(max=0)
    return x[:, 0]
