"""GANs that train in moments: their settings, trainers after some steps, and what must hold of any."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sdfgan.data.image_sets import Images, InMemory
from sdfgan.gan import GanConfig
from sdfgan.gan.data import TrainingData
from sdfgan.gan.job import GanJob

TINY = {
    "device": "cpu",
    "steps": 50,
    "resolution": 16,
    "batch_size": 4,
    "chunk_size": 2,
    "width": 16,
    "mapping_width": 16,
    "latent_size": 8,
    "discriminator_channels": 8,
    "discriminator_max_channels": 16,
    "march_steps": 12,
}


LONG = 50
lengths = pytest.mark.parametrize("steps", [2, pytest.param(LONG, marks=pytest.mark.slow)])


def trained(
    pictures: Images | Tensor, steps: int = LONG, augmented: float = 0.0, **options: Any
) -> tuple[GanJob, list[dict[str, float]]]:
    """A trainer after some steps, and the numbers of each. `augmented` is the probability of ADA at the start."""
    train = InMemory(pictures) if isinstance(pictures, Tensor) else pictures
    trainer = GanJob(GanConfig(**{**TINY, **options}).resolved(), TrainingData(train, train))
    trainer.precondition()
    trainer.augmented = augmented
    try:
        return trainer, [trainer.step() for _ in range(steps)]
    finally:
        trainer.close()


def check(logs: list[dict[str, float]], bound: float = 20.0) -> None:
    """All numbers finite, no step skipped, losses bounded, and the eikonal term held down."""
    for log in logs:
        assert all(math.isfinite(value) for value in log.values()), log
        assert log["skipped"] == 0
        assert abs(log["loss_d"]) < bound and abs(log["loss_g"]) < bound, log


def fit_quickly(self: Any, latent_std: float, random: torch.Generator) -> float:
    optimizer = torch.optim.Adam(self.parameters(), 5e-3)
    for _ in range(150):
        points = torch.rand(256, 3, generator=random) * 2 - 1
        latents = latent_std * torch.randn(256, self.latent_size, generator=random)
        value, gradient = self.sdf_and_gradient(points, self.condition(latents), torch.arange(256))
        loss = (value - points.norm(dim=-1) + 0.4).square().mean() + 0.1 * (gradient.norm(dim=-1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()
