"""How far apart two sets of pictures are."""

from __future__ import annotations

import torch
from torch import Tensor

_PROJECTIONS_AT_ONCE = 64


@torch.no_grad()
def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 512, seed: int = 0) -> float:
    """Sliced 1-Wasserstein distance of two equally large sets [N, ...] of float tensors, flattened.

    The mean over random unit directions, and over the sorted projections, of the absolute difference (Rabin et al.
    2011). It has a floor that falls with N: compare distances of equal N only. Not differentiable.
    """
    if a.shape != b.shape or len(a) == 0:
        raise ValueError(
            f"sliced_wasserstein: both sets must have one shape [N, ...], N > 0, got {list(a.shape)}, {list(b.shape)}"
        )
    a, b = a.flatten(1), b.flatten(1)
    random = torch.Generator().manual_seed(seed)
    total = 0.0
    for start in range(0, projections, _PROJECTIONS_AT_ONCE):
        count = min(_PROJECTIONS_AT_ONCE, projections - start)
        directions = torch.randn(a.shape[1], count, generator=random).to(a)
        directions = directions / directions.norm(dim=0)
        difference = (a @ directions).sort(dim=0).values - (b @ directions).sort(dim=0).values
        total += difference.abs().mean(0).sum().item()
    return total / projections
