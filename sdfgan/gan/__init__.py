"""The GAN that learns a family of 3D shapes from photographs."""

from sdfgan.gan.config import GanConfig
from sdfgan.gan.discriminators import DISCRIMINATORS, Discriminator
from sdfgan.gan.job import train
from sdfgan.gan.models import load_generator, make_generator, sample_latents

__all__ = [
    "DISCRIMINATORS",
    "Discriminator",
    "GanConfig",
    "load_generator",
    "make_generator",
    "sample_latents",
    "train",
]
