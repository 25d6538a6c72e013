"""Losses of the GAN. All of them are means over images or points, so that chunks of a batch may be averaged.

logistic  non-saturating, Goodfellow et al. 2014; with R1, Mescheder et al. 2018, or what `--r1-gamma` says
hinge     Lim and Ye 2017; with R1
wgan-gp   Gulrajani et al. 2017: Wasserstein, with a penalty on the gradient between reals and fakes
wgan-sn   Wasserstein with a discriminator under spectral normalisation, Miyato et al. 2018
sphere    Sphere GAN, Park and Kwon 2019: moments of the distance on a sphere; under spectral normalisation,
          since otherwise the noise of the updates makes features ever longer, and at the pole all images are alike
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Score = Callable[[Tensor], Tensor]

_SHARPNESS = 12.0  # of the minimal-surface term, per world unit


class AdversarialLoss(NamedTuple):
    """How logits [N] become losses [N] of each side, and what that asks of the discriminator."""

    generator: Score
    real: Score  # the discriminator's, of reals
    fake: Score  # the discriminator's, of fakes
    classifies: bool = False  # reals have logits above 0, fakes below
    gradient_penalty: bool = False
    spectral_norm: bool = False
    sphere: bool = False  # logits are distances on a sphere


def _itself(logits: Tensor) -> Tensor:
    return logits


ADVERSARIAL_LOSSES = {
    "logistic": AdversarialLoss(lambda x: F.softplus(-x), lambda x: F.softplus(-x), F.softplus, classifies=True),
    "hinge": AdversarialLoss(torch.neg, lambda x: F.relu(1 - x), lambda x: F.relu(1 + x), classifies=True),
    "wgan-gp": AdversarialLoss(torch.neg, torch.neg, _itself, gradient_penalty=True),
    "wgan-sn": AdversarialLoss(torch.neg, torch.neg, _itself, spectral_norm=True),
    "sphere": AdversarialLoss(torch.neg, torch.neg, _itself, spectral_norm=True, sphere=True),
}


def sphere_logit(features: Tensor, moments: int = 3) -> Tensor:
    """Sum of the first moments of the distance [N] from the north pole to features [N, K] projected onto a sphere.

    The inverse stereographic projection puts features of norm q at the distance arccos((q^2 - 1) / (q^2 + 1)) =
    2 arccot(q) from the pole: 0 at infinity, pi at the origin.
    """
    distance = 2 * torch.atan2(torch.ones_like(features[:, 0]), torch.sqrt(features.square().sum(1) + 1e-8))
    return sum((distance**power for power in range(2, moments + 1)), start=distance)


def r1_penalty(
    discriminator: Callable[[Tensor], Tensor], reals: Tensor, of: Literal["logit", "probability"] = "logit"
) -> Tensor:
    """Mean over images of |d logit / d pixels|^2, summed over the pixels of an image. Differentiable.

    `of` "probability" takes the sigmoid of the logit instead.
    """
    reals = reals.detach().requires_grad_()
    logits = discriminator(reals)
    if of == "probability":
        logits = logits.sigmoid()
    (gradient,) = torch.autograd.grad(logits.sum(), reals, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], reals: Tensor, fakes: Tensor, share: Tensor) -> Tensor:
    """Mean of (|d logit / d pixels| - 1)^2 at share * real + (1 - share) * fake, share [N]. Differentiable."""
    between = torch.lerp(fakes, reals, share.view(-1, 1, 1, 1)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    return (torch.sqrt(gradient.square().sum((1, 2, 3)) + 1e-12) - 1).square().mean()


def back_face_loss(normals: Tensor, alpha: Tensor, axes: Tensor) -> Tensor:
    """Mean over seen pixels of max(0, -n.l) / 2: how far visible normals turn away from the camera.

    Args:
        normals: [B, 3, H, W], 0 where nothing is seen. alpha: [B, 1, H, W]. axes: [B, 3, 3] of the cameras.
    """
    towards = (normals * axes[:, 2, :, None, None]).sum(1, keepdim=True)
    seen = (alpha > 0).float()
    return (F.relu(-towards) / 2 * seen).sum() / seen.sum().clamp(min=1)


def minimal_surface_loss(sdf: Tensor) -> Tensor:
    """Mean of exp(-12 |sdf|) over values [N] at random points: it grows with the area of all surfaces, and so is least
    without spurious ones. Differentiable.

    StyleSDF, Or-El et al. 2022, has exp(-100 |sdf|), and objects in a ball with a radius of .12; ours have 1.
    """
    return torch.exp(-_SHARPNESS * sdf.abs()).mean()


def top_k_weights(logits: Tensor, step: int, interval: int, floor: float) -> Tensor:
    """Weights [N] of mean 1 that keep the images with the highest logits (Sinha et al. 2020).

    The kept share falls as 0.99^(step / interval) to `floor`; at least one image is kept.
    """
    kept = max(1, math.ceil(max(0.99 ** (step / interval), floor) * len(logits)))
    return torch.zeros_like(logits).index_fill_(0, logits.topk(kept).indices, len(logits) / kept)
