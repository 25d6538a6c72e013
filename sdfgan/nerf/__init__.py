"""Radiance fields of scenes from posed pictures: `train` makes a run folder, `load_model` reads one."""

from sdfgan.nerf.config import NerfConfig
from sdfgan.nerf.loop import load_model, train

__all__ = ["NerfConfig", "load_model", "train"]
