"""Radiance fields of scenes from posed pictures: `train` makes a run folder, `load_model` reads one."""

from sdfgan.nerf.config import NerfConfig
from sdfgan.nerf.job import train
from sdfgan.nerf.models import load_model

__all__ = ["NerfConfig", "load_model", "train"]
