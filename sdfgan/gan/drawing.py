"""Images of a generator as training sees them: with what its losses need besides colours.

`--renderer dfr` is how dfr, an older project, makes images, kept so that its recipe can be compared with ours.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.fields.base import Field
from sdfgan.fields.pi_gan import PiGanField
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.raycast import Lighting, Room, render
from sdfgan.raycast.dfr_images import dfr_images
from sdfgan.raycast.lighting import tensor_like
from sdfgan.volume.render_images import render_images
from sdfgan.volume.sampling import Sampling


class GeneratedImages(NamedTuple):
    """B images, premultiplied on black."""

    rgb: Tensor  # [B, 3, R, R]
    alpha: Tensor  # [B, 1, R, R]
    normals: Tensor  # [B, 3, R, R]; 0 where no point is
    gradients: Tensor  # [N, 3] of the field at the samples
    valid: Tensor | None = None  # [N] bool: which of these count; None: all
    image: Tensor | None = None  # [N] int64: of which image each of these is, ascending; None: unknown

    def split(self, count: int) -> list[GeneratedImages]:
        """So many equal parts of the batch; the host waits for how many samples each has."""
        if count == 1:
            return [self]
        assert self.image is not None
        samples = torch.bincount(self.image // (len(self.rgb) // count), minlength=count).tolist()
        valid = (None,) * count if self.valid is None else self.valid.split(samples)
        of_images = (values.chunk(count) for values in (self.rgb, self.alpha, self.normals))
        return list(map(GeneratedImages, *of_images, self.gradients.split(samples), valid))

    def channels(self, count: int) -> Tensor:
        """[B, count, R, R]: RGBA or RGB."""
        return self.rgb if count == 3 else torch.cat([self.rgb, self.alpha], 1)


def draw_lights(axes: Tensor, config: ResolvedGanConfig, random: torch.Generator) -> Tensor:
    """[B, 6] for images from `axes` [B, 3, 3]: ambient, head and fixed light, and the direction to that."""
    if config.light == "headlight":
        return tensor_like(axes, (0.0, 1.0, 0.0, 0.0, 1.0, 0.0)).expand(len(axes), 6)
    light = Lighting.random(axes, random)
    parts = [torch.as_tensor(x).expand(len(axes))[:, None] for x in (light.ambient, light.headlight, light.fixed)]
    return torch.cat([*parts, torch.as_tensor(light.direction)], 1)


def draw(
    generator: Field,
    condition: Any,
    axes: Tensor,
    config: ResolvedGanConfig,
    lights: Tensor | None = None,
    seed: int | None = None,
    room: Room | None = None,
) -> GeneratedImages:
    """Images of a condition from cameras [B, 3, 3], as the discriminator sees them.

    lights: see `draw_lights`; None: headlights. seed: of places in the strata of a volume; None: their middles. room:
    see `raycast.render`; volumes and dfr's images need none.
    """
    fov = math.radians(config.fov)
    if config.renderer == "dfr":
        return GeneratedImages(*dfr_images(generator, condition, axes, config.resolution, fov))
    if isinstance(generator, PiGanField):
        return _draw_volume(generator, condition, axes, config, fov, seed)
    rendering = render(
        sdf=generator,
        axes=axes,
        condition=condition,
        resolution=config.resolution,
        fov=fov,
        steps=config.march_steps,
        light=None
        if lights is None or config.light == "headlight"
        else Lighting(lights[:, 0], lights[:, 1], lights[:, 2], lights[:, 3:]),
        # Pieces sum in another order: what is to be the same bit for bit must not depend on how much memory is free.
        memory="unbounded" if config.deterministic or axes.device.type == "cpu" else "auto",
        room=room,
    )
    made = (rendering.rgb, rendering.alpha, rendering.normals, rendering.field.gradient)
    return GeneratedImages(*made, rendering.valid, rendering.image)


def _draw_volume(
    generator: PiGanField, condition: Any, axes: Tensor, config: ResolvedGanConfig, fov: float, seed: int | None
) -> GeneratedImages:
    """`march_steps` evaluations of a ray place as many others, and both make the image (pi-GAN)."""
    sampling = Sampling((config.march_steps, config.march_steps), stratified=seed is not None, merge=True)
    random = None if seed is None else torch.Generator(axes.device).manual_seed(seed)
    options: dict[str, Any] = {"resolution": config.resolution, "fov": fov, "near_far": generator.near_far}
    made = render_images(generator, axes, condition, sampling=sampling, generator=random, **options)
    return GeneratedImages(made.rgb, made.alpha, made.normals, made.field.gradient[:0])
