"""A trained generator to view: shapes by seed, moved along its principal directions, and between two seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdfgan import conditions
from sdfgan.fields import Field
from sdfgan.gan import truncation
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.models import poses_of, sample_latents
from sdfgan.gan.views import ImageRenderer, ViewRange
from sdfgan.viewer.scenes import FieldScene
from sdfgan.viewer.view import View

SLIDERS = 5  # principal directions of the shape, and of the texture where that has latents of its own
_LATENTS = 512  # whose conditions they are taken from


@dataclass(frozen=True)
class Choice:
    """One shape of a generator."""

    seed: int = 0
    texture_seed: int = 0  # of latents that the texture has of its own
    other: int = 0  # a second seed, and
    share: float = 0.0  # how far the shape is on the way to it
    psi: float = 1.0  # StyleGAN's truncation
    moves: tuple[float, ...] = ()  # along the directions of the shape, then of the texture; standard deviations


class GeneratorScene(FieldScene):
    """The shapes of a GAN; subjects come from `condition`."""

    def __init__(self, field: Field, config: ResolvedGanConfig, checkpoint: Path, weights: str, title: str) -> None:
        super().__init__(field, title, math.radians(config.fov))
        self.config, self._checkpoint, self._weights = config, checkpoint, weights
        view_range = ViewRange.of(poses_of(config))
        self.start = (view_range.elevation, view_range.slant)

    @property
    def groups(self) -> tuple[str, ...]:
        """What has latents of its own: the shape, and it may be the texture."""
        return ("shape", "texture") if self.config.texture_latent_size else ("shape",)

    @cached_property
    def mean(self) -> Any:
        """The condition [1, ...] that truncation tends to."""
        return truncation.cached_mean(self._checkpoint, self.field, self.config, self._weights)

    @cached_property
    def directions(self) -> Tensor:
        """[groups * SLIDERS, P]: in flattened conditions, one standard deviation along each principal direction.

        Those of a group are of the conditions of random latents of it, the others being 0 (GANSpace, Härkönen et al.
        2020, in w).
        """
        found = []
        for index in range(len(self.groups)):
            latents, split = sample_latents(self.config, range(_LATENTS)), self.config.latent_size
            latents[:, split:] *= index == 1
            latents[:, :split] *= index == 0
            flat = _flat(self.field.condition(latents.to(self.device)))
            varies = flat.amax(0) > flat.amin(0)  # rounding must not move what belongs to the other group
            _, deviations, rows = torch.linalg.svd((flat - flat.mean(0)) * varies, full_matrices=False)
            found.append(rows[:SLIDERS] * varies * deviations[:SLIDERS, None] / math.sqrt(_LATENTS - 1))
        return torch.cat(found)

    @torch.no_grad()
    def condition(self, choice: Choice = Choice()) -> Any:
        """The condition [1, ...] of a choice."""
        made = self._truncated(choice.seed, choice.texture_seed, choice.psi)
        if choice.share:
            made = conditions.lerp(made, self._truncated(choice.other, choice.texture_seed, choice.psi), choice.share)
        if any(choice.moves):
            made = _unflat(made, _flat(made) + self.directions.new_tensor([choice.moves]) @ self.directions)
        return made

    @torch.no_grad()
    def wall(self, seeds: range, side: int, psi: float) -> Tensor:
        """Images [len(seeds), 3, side, side] of shapes on white."""
        renderer, axes = ImageRenderer(self.field, self.fov), View(*self.start).axes
        images = [renderer.look(self._truncated(seed, seed, psi), axes, side)[0].rgb for seed in seeds]
        return torch.cat(images).clamp(0, 1).cpu()

    def _truncated(self, seed: int, texture_seed: int, psi: float) -> Any:
        latents, texture = sample_latents(self.config, [seed, texture_seed]).split(1)
        split = self.config.latent_size  # where those of the texture begin
        condition = self.field.condition(torch.cat([latents[:, :split], texture[:, split:]], 1).to(self.device))
        return condition if psi == 1 else conditions.lerp(self.mean, condition, psi)


def _flat(condition: Any) -> Tensor:
    """[B, P]: all tensors of a condition one after the other."""
    return torch.cat([tensor.flatten(1) for tensor in conditions.tensors_of(condition).values()], 1)


def _unflat(like: Any, flat: Tensor) -> Any:
    """Undoes `_flat`."""
    tensors = conditions.tensors_of(like)
    parts = flat.split([tensor[0].numel() for tensor in tensors.values()], 1)
    return conditions.with_tensors(
        like, {name: part.view(-1, *tensors[name].shape[1:]) for name, part in zip(tensors, parts, strict=True)}
    )
