"""What a step of GAN training works on, drawn alike in all processes, each of which gets its share of the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import PoseDistribution, rotate_axes
from sdfgan.data.image_sets import Images
from sdfgan.fields import Field, PiGanField
from sdfgan.gan import augment, drawing
from sdfgan.gan.augment import Augmentation
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.drawing import GeneratedImages
from sdfgan.training.ranks import Ranks

_EIKONAL_BOX = 0.9  # random eikonal points lie in [-0.9, 0.9]^3


class Fake(NamedTuple):
    """What a chunk of fakes is made of, and then the fakes."""

    latents: Tensor  # [b, L]
    axes: Tensor  # [b, 3, 3]
    free: Tensor  # [b, P, 3] random points for the eikonal and the minimal-surface term
    lights: Tensor  # [b, 6]
    seed: int | None = None  # of places in volumes
    made: GeneratedImages | None = None
    gradients: Tensor | None = None  # [N, 3] of the field at samples and free points
    distances: Tensor | None = None  # [b P] of the field at free points

    def images(self, channels: int) -> Tensor:
        """[b, channels, R, R]: RGBA or RGB of what has been made."""
        assert self.made is not None
        return self.made.channels(channels)


class View(NamedTuple):
    """How the discriminator sees a chunk of images: one of `augment`'s transformations, and noise."""

    augmentation: Augmentation | None
    noise_seeds: Tensor | None


@dataclass(frozen=True)
class Batches:
    """Draws under the settings in force at a step; gives this process's chunks."""

    config: ResolvedGanConfig
    random: torch.Generator  # on the CPU
    device: torch.device
    ranks: Ranks

    @property
    def size(self) -> int:
        """Images of a batch, over all processes."""
        return self.config.batch_size

    @property
    def chunks(self) -> int:
        """Chunks of a batch, over all processes."""
        return self.size // self.config.chunk_of(self.ranks.count)

    def mine(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Tensors [batch, ...] as the chunks of this process."""
        chunks = list(zip(*(tensor.chunk(self.chunks) for tensor in tensors), strict=True))
        return list(self.ranks.share(chunks))

    def fakes(self, generator: Field, poses: PoseDistribution) -> list[Fake]:
        """Latents, cameras and points."""
        config, random = self.config, self.random
        latents = config.latent_std * torch.randn(self.size, generator.latent_size, generator=random)
        axes = rotate_axes(poses.sample(self.size, random))
        free = (2 * torch.rand(self.size, config.eikonal_points, 3, generator=random) - 1) * _EIKONAL_BOX
        lights = drawing.draw_lights(axes, config, random)
        seeds: Sequence[int | None] = [None] * self.chunks
        if isinstance(generator, PiGanField):
            seeds = torch.randint(2**62, (self.chunks,), generator=random).tolist()
        chunks = self.mine(*(self._upload(part) for part in (latents, axes, free, lights)))
        return [
            Fake(z, views, points, light, seed)
            for (z, views, points, light), seed in zip(chunks, self.ranks.share(seeds), strict=True)
        ]

    def reals(self, images: Images) -> list[Tensor]:
        """Real images [b, C, R, R] in [0, 1]."""
        chosen = torch.randint(len(images), (self.size,), generator=self.random)
        flip = torch.rand(self.size, generator=self.random) < 0.5
        indices = torch.cat([indices for (indices,) in self.mine(chosen)])
        found = images.batch(indices, self.config.resolution)[:, : self.config.channels]
        found = self._upload(found).float() / 255
        flips = self._upload(torch.cat([flips for (flips,) in self.mine(flip)]))
        if self.config.mirror:
            found = torch.where(flips[:, None, None, None], found.flip(3), found)
        return list(found.chunk(self.chunks // self.ranks.count))

    def views(self, augmented: float, noise: float) -> list[View]:
        """How images will be seen: transformed with the probability `augmented`, with noise of a deviation."""
        augmentations: Sequence[Augmentation | None] = [None] * self.chunks
        seeds: Sequence[Tensor | None] = [None] * self.chunks
        if augmented > 0:
            drawn = [self._upload(part) for part in augment.draw(self.size, augmented, self.random)]
            augmentations = [Augmentation(*parts) for parts in zip(*(p.chunk(self.chunks) for p in drawn), strict=True)]
        if noise > 0:
            seeds = torch.randint(2**62, (self.size,), generator=self.random).chunk(self.chunks)
        views = [View(augmentation, seed) for augmentation, seed in zip(augmentations, seeds, strict=True)]
        return list(self.ranks.share(views))

    def shares(self) -> list[Tensor]:
        """Numbers [b] in [0, 1]: how much of each real goes into the images between reals and fakes."""
        return [share for (share,) in self.mine(torch.rand(self.size, generator=self.random))]

    def _upload(self, tensor: Tensor) -> Tensor:
        """A copy on the device, which the host does not wait for: page-locked memory is fetched from there."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.contiguous().pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)
