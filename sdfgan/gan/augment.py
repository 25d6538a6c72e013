"""What is done to images, real and fake alike, before the discriminator sees them.

Augmentation (Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data"): each transformation is
applied with a probability p that follows how much the discriminator overfits. Blur and instance noise are schedules:
strong at first, gone after some steps. Everything is differentiable in the images.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


class Augmentation(NamedTuple):
    """A transformation for each of N images, drawn by `draw`."""

    place: Tensor  # [N, 2, 3] where a pixel of the result comes from, in the coordinates of grid_sample
    colour: Tensor  # [N, 3, 4] of RGB and a constant (which alpha scales: images are premultiplied)

    def __getitem__(self, rows: slice) -> Augmentation:  # type: ignore[override]
        return Augmentation(self.place[rows], self.colour[rows])


def draw(count: int, probability: float, random: torch.Generator) -> Augmentation:
    """Random flips, quarter turns, shifts, scales, turns, brightness, contrast, saturation, each with `probability`."""

    def chosen() -> Tensor:
        return (torch.rand(count, generator=random) < probability).float()

    def normal(deviation: float) -> Tensor:
        return chosen() * deviation * torch.randn(count, generator=random)

    def uniform(limit: float) -> Tensor:
        return chosen() * limit * (2 * torch.rand(count, generator=random) - 1)

    mirror = 1 - 2 * chosen() * torch.randint(2, (count,), generator=random)
    quarter = chosen() * torch.randint(4, (count,), generator=random)
    angle = quarter * math.pi / 2 + uniform(math.pi)
    scale = torch.exp2(normal(0.2))
    stretch = torch.exp2(normal(0.2))
    shift = torch.stack((uniform(0.25), uniform(0.25)), 1)  # half images: an eighth of an image
    cos, sin = angle.cos() / scale, angle.sin() / scale
    turned = torch.stack((torch.stack((cos * mirror, -sin), 1), torch.stack((sin * mirror, cos), 1)), 1)  # [N, 2, 2]
    turned = turned * torch.stack((1 / stretch, stretch), 1)[:, None]
    place = torch.cat((turned, shift[:, :, None]), 2)

    contrast, brightness, saturation = torch.exp2(normal(0.5)), normal(0.2), torch.exp2(normal(1.0))
    grey = torch.tensor(_LUMA).expand(3, 3)
    mix = grey + (torch.eye(3) - grey) * saturation[:, None, None]  # [N, 3, 3]
    constant = (0.5 - 0.5 * contrast + brightness)[:, None, None].expand(count, 3, 1)
    return Augmentation(place, torch.cat((mix * contrast[:, None, None], constant), 2))


def apply(images: Tensor, augmentation: Augmentation) -> Tensor:
    """The images [N, 3 or 4, R, R], premultiplied on black, under their transformations; outside is black."""
    place, colour = (part.to(images) for part in augmentation)
    grid = F.affine_grid(place, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    rgb, alpha = images[:, :3], images[:, 3:]
    constant = alpha if alpha.shape[1] else torch.ones_like(rgb[:, :1])
    rgb = torch.einsum("nij,njhw->nihw", colour, torch.cat((rgb, constant), 1))
    rgb = torch.minimum(rgb.clamp(min=0), constant)
    return torch.cat((rgb, alpha), 1)


def blur(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of `sigma` pixels; sides are continued."""
    radius = math.ceil(3 * sigma)
    radius = min(radius, images.shape[2] - 1)
    if radius < 1:
        return images
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma).square())
    taps = (taps / taps.sum()).expand(images.shape[1], 1, 1, -1)
    channels = images.shape[1]
    wide = F.conv2d(F.pad(images, (radius, radius, 0, 0), mode="replicate"), taps, groups=channels)
    tall = F.pad(wide, (0, 0, radius, radius), mode="replicate")
    return F.conv2d(tall, taps.transpose(2, 3), groups=channels)


def instance_noise(images: Tensor, deviation: float, seeds: Tensor) -> Tensor:
    """Gaussian noise on every pixel, the same for the same seed [N]."""
    noise = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return images + deviation * torch.stack(noise).to(images)


def fading(start: float, steps: int, step: int) -> float:
    """`start` at step 0, falling linearly to 0 at `steps`."""
    return start * max(0.0, 1 - step / steps) if steps > 0 else 0.0


def adjusted(probability: float, signs: float, target: float, images: int, speed: int) -> float:
    """The probability after `images` more: up while the mean sign of real logits exceeds `target`, else down."""
    change = images / speed * (1 if signs > target else -1)
    return min(1.0, max(0.0, probability + change))
