"""Samples along rays: strata, then importance sampling by the last weights (NeRF, Mildenhall et al. 2020, sec. 5).

A ray is measured by s in [0, 1], from near to far: linear in distance, or in its inverse for unbounded scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.volume.field import Rays


@dataclass(frozen=True)
class Sampling:
    """How many samples each level takes, and how.

    Attributes:
        counts: samples per ray of each level; the last one is the image's.
        spacing: of s: "linear" in distance, or "disparity", linear in 1 / distance.
        stratified: move samples at random within their strata, for training.
        merge: whether the last level also takes the places of the levels before (NeRF, pi-GAN).
        padding: added to every weight before it is sampled, so that no part of a ray is given up (mip-NeRF, eq. 18).
        sharpness: power of the weights that is sampled: less than 1 explores (mip-NeRF 360, sec. 3, its annealing).
        blur: replace weights by the larger of theirs and a neighbour's, averaged (mip-NeRF, sec. 3.3).
        images: also composite the levels before the last, for a loss on them.
    """

    counts: tuple[int, ...] = (64, 128)
    spacing: Literal["linear", "disparity"] = "linear"
    stratified: bool = False
    merge: bool = False
    padding: float = 1e-5
    sharpness: float = 1.0
    blur: bool = False
    images: bool = False

    def __post_init__(self) -> None:
        if not self.counts or any(count < 1 for count in self.counts):
            raise ValueError(f"Sampling: counts must be positive, at least one, got {self.counts}")
        if self.spacing not in ("linear", "disparity"):
            raise ValueError(f"Sampling: spacing must be 'linear' or 'disparity', got {self.spacing!r}")


def distances(spans: Tensor, rays: Rays, spacing: str) -> Tensor:
    """s in [0, 1] [R, S] as distances."""
    near, far = rays.near[:, None], rays.far[:, None]
    if spacing == "linear":
        return torch.lerp(near, far, spans)
    return 1 / torch.lerp(1 / near, 1 / far, spans)


def first_centres(rays: Rays, count: int, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One s in the middle of each of `count` strata, or anywhere in it: [R, count]."""
    edges = rays.near.new_tensor([0.0, 1.0]).expand(len(rays.near), 2).contiguous()
    ones = torch.ones_like(edges[:, :1])
    return ops.sample_pdf(edges, ones, count, stratified=sampling.stratified, generator=generator)


def finer_centres(
    spans: Tensor, weights: Tensor, count: int, sampling: Sampling, generator: torch.Generator | None
) -> Tensor:
    """Ascending s that follow the weights [R, S] of the bins between spans [R, S+1]: [R, count]."""
    weights = weights.detach()
    if sampling.blur:
        padded = F.pad(weights[:, None], (1, 1), "replicate")[:, 0]
        larger = torch.maximum(padded[:, :-1], padded[:, 1:])
        weights = (larger[:, :-1] + larger[:, 1:]) / 2
    if sampling.sharpness != 1:
        weights = weights**sampling.sharpness
    weights = weights + sampling.padding
    return ops.sample_pdf(
        spans.detach(), weights.contiguous(), count, stratified=sampling.stratified, generator=generator
    )


def bins_around(centres: Tensor, fill: bool = True) -> Tensor:
    """Bins [R, S+1] that meet in the middles between ascending centres [R, S].

    They fill [0, 1], or the outer ones end as far behind their centres as they begin before them: of samples that were
    placed by weights, the last one says nothing of a long rest of the ray.
    """
    middles = (centres[:, 1:] + centres[:, :-1]) / 2
    first, last = torch.zeros_like(centres[:, :1]), torch.ones_like(centres[:, :1])
    if not fill and centres.shape[1] > 1:
        first = (2 * centres[:, :1] - middles[:, :1]).clamp(min=0)
        last = (2 * centres[:, -1:] - middles[:, -1:]).clamp(max=1)
    return torch.cat([first, middles, last], 1)
