"""The GAN that learns a family of 3D shapes from photographs."""

from typing import TYPE_CHECKING

from sdfgan._lazy import lazy

if TYPE_CHECKING:
    from sdfgan.gan.config import GanConfig, ResolvedGanConfig
    from sdfgan.gan.discriminators import DISCRIMINATORS, Discriminator
    from sdfgan.gan.job import train
    from sdfgan.gan.models import load_generator, make_generator, sample_latents
else:
    __getattr__, __dir__ = lazy(__file__)

__all__ = [
    "DISCRIMINATORS",
    "Discriminator",
    "GanConfig",
    "ResolvedGanConfig",
    "load_generator",
    "make_generator",
    "sample_latents",
    "train",
]
