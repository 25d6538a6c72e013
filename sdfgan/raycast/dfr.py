"""The rules of dfr's renderer (sidmani/dfr), kept for comparison; see docs/raycasting.md.

Surfaces are where the sdf is 0.005, and hits do not move. A hit is opaque; a miss covers a share that falls linearly to
nothing one pixel outside, and has a fixed brightness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdfgan.ops import MarchRules, TraceLevel

THRESHOLD = 5e-3
_START = 0.125
_STEPS = 15
_MISSED_BRIGHTNESS = 0.7


def dfr_levels(
    scales: Sequence[int], fov: float, *, lipschitz: float = 1.0, radius: float | Tensor = 1.0
) -> list[TraceLevel]:
    """Levels of exactly the cumulated scales, marched plainly for 15 evaluations from 1/8 behind the ball's near side.

    A pixel is split where its smallest value is within half the diagonal of a box of its width, plus 1/16. The ball is
    always that of radius 1, whatever `radius` is.
    """
    levels, size = [], 1
    for scale in scales:
        size *= scale
        rules = MarchRules(THRESHOLD, lipschitz=lipschitz)
        reach = 2 * math.tan(fov / (2 * size))
        levels.append(TraceLevel(size, _STEPS, rules, start=_START, reach=reach))
    return levels


def dfr_coverage(sdf: Tensor, resolution: int, brightness: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage [N] and brightness [N, 1] of samples where the sdf is [N]."""
    outside = sdf - THRESHOLD
    alpha = (1 - outside * resolution / 2).clamp(0, 1)
    return alpha, torch.where(outside[:, None] > 0, _MISSED_BRIGHTNESS, brightness)
