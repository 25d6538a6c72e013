"""Positional encoding in plain torch: what `sdfgan.ops.encoding` means."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def positional_encoding(x: Tensor, octaves: int, *, include_input: bool = False, times_pi: bool = False) -> Tensor:
    """Computed in float64, where pi * 2^octave * x keeps its digits, and rounded once."""
    blocks = [x.double()] if include_input else []
    for octave in range(octaves):
        angle = x.double() * 2.0**octave * (math.pi if times_pi else 1.0)
        blocks += [angle.sin(), angle.cos()]
    empty = x.new_empty((*x.shape[:-1], 0), dtype=torch.float64)
    return torch.cat([empty, *blocks], dim=-1).to(x.dtype)
