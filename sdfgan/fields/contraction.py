"""Unbounded scenes in a ball: mip-NeRF 360's contraction (Barron et al. 2022, arXiv:2111.12077, eqs. 9 and 10)."""

from __future__ import annotations

import torch
from torch import Tensor


def contract(points: Tensor) -> Tensor:
    """Points [..., 3] of space to the ball of radius 2: the unit ball stays, x becomes (2 - 1/|x|) x/|x| outside."""
    length = points.norm(dim=-1, keepdim=True).clamp(min=1)
    return points * ((2 - 1 / length) / length)


def expand(points: Tensor) -> Tensor:
    """Undo `contract`, for points [..., 3] of length below 2."""
    length = points.norm(dim=-1, keepdim=True).clamp(min=1)
    return points / (length * (2 - length).clamp(min=torch.finfo(points.dtype).tiny))


def contract_gaussians(means: Tensor, covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Contracted means [..., 3] and J covariance J^T [..., 3, 3], J the derivative of `contract` at the mean.

    covariances: [..., 3, 3], or the diagonals [..., 3].
    """
    if covariances.shape == means.shape:
        covariances = torch.diag_embed(covariances)
    length = means.norm(dim=-1, keepdim=True).clamp(min=1)
    scale = (2 - 1 / length) / length  # of what is across the direction
    along = 1 / length.square()  # of what is along it
    unit = means / length  # used where length > 1 only: elsewhere along = scale
    jacobian = torch.diag_embed(scale.expand_as(means)) + (along - scale)[..., None] * (
        unit[..., :, None] * unit[..., None, :]
    )
    return contract(means), jacobian @ covariances @ jacobian.transpose(-1, -2)
