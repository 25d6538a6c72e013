"""What inverse rendering minimises: a function of a field and a batch of images to a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from sdfgan.fields.base import Field, eikonal_loss
from sdfgan.raycast import Room, evaluate, render

_EIKONAL_POINTS = 1024


def image_loss(
    field: Field,
    latents: Tensor,
    axes: Tensor,
    target: Tensor,
    eikonal_weight: float,
    random: torch.Generator,
    room: Room | None = None,
) -> Tensor:
    """A scalar: the squared error of images [B, 4, R, R] from cameras [B, 3, 3], and (|gradient| - 1)^2, weighted, at
    their samples and at random points of the cube."""
    condition = field.condition(latents.expand(len(axes), -1))
    image = render(sdf=field, axes=axes, condition=condition, resolution=target.shape[-1], steps=100, room=room)
    free = (2 * torch.rand(_EIKONAL_POINTS, 3, generator=random) - 1).to(axes)
    gradients = torch.cat([image.field.gradient, evaluate(field, free, field.condition(latents)).gradient])
    return (image.rgba - target).square().mean() + eikonal_weight * eikonal_loss(gradients, image.valid)
