"""Losses of the GAN: non-saturating logistic (Goodfellow et al. 2014), R1 (Mescheder et al. 2018), eikonal."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Mean of -log sigmoid(logit) over fakes: non-saturating."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Mean logistic loss of reals and fakes."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], reals: Tensor) -> Tensor:
    """Mean over pictures of |d logit / d pixels|^2, summed over the pixels of a picture. Differentiable."""
    reals = reals.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(reals).sum(), reals, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def eikonal_loss(gradients: Tensor) -> Tensor:
    """Mean of (|gradient| - 1)^2 over gradients [N, 3]; 0 for none."""
    if len(gradients) == 0:
        return gradients.sum()
    # The tiny constant keeps the derivative finite where the gradient vanishes.
    return (torch.sqrt(gradients.square().sum(-1) + 1e-12) - 1).square().mean()
