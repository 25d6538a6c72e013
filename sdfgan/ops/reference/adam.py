"""Adam on what a gradient reaches, in plain torch: what `sdfgan.ops.adam` means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def lazy_adam(
    parameter: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    *,
    rate: float,
    betas: Sequence[float] = (0.9, 0.99),
    eps: float = 1e-15,
    skip: Tensor | None = None,
) -> None:
    """Algorithm 1 of Kingma and Ba 2015 for the numbers that are reached, and nothing for the others."""
    reached = gradient != 0
    if skip is None or not skip:
        (beta1, beta2), t, g = betas, step.item(), gradient[reached]
        mean[reached] = beta1 * mean[reached] + (1 - beta1) * g
        square[reached] = beta2 * square[reached] + (1 - beta2) * g.square()
        corrected = mean[reached] / (1 - beta1**t), square[reached] / (1 - beta2**t)
        parameter[reached] -= rate * corrected[0] / (corrected[1].sqrt() + eps)
    gradient.zero_()
