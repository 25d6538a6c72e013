"""Exposures: a factor on the red, green and blue of each training image, learnt with the scene."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdfgan.errors import UserError
from sdfgan.training.checkpoint import Saved, unpack_module


class Exposures(nn.Module):
    """Factors on the colours of images; none has one if there are no images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        if images:
            self.logs = nn.Parameter(torch.zeros(images, 3))

    @property
    def gains(self) -> Tensor:
        """[images, 3], of a geometric mean of 1: how bright the scene is, nobody could tell otherwise."""
        return (self.logs - self.logs.mean(0)).exp()

    def forward(self, image: Tensor) -> Tensor:
        """[R, 3] of the images [R]."""
        return self.gains[image]


def saved_gains(saved: Saved, images: int) -> Tensor:
    """The factors [images, 3] of a run that learnt them. Raises UserError if these were of another number of images."""
    logs = saved.tensors.get("exposures.logs")
    if logs is not None and len(logs) != images:
        raise UserError(f"{saved.folder}: has exposures of {len(logs)} training images, and the scene has {images}")
    exposures = Exposures(images)
    unpack_module(exposures, saved.tensors, "exposures", saved.folder)
    return exposures.gains.detach()
