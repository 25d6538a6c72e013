"""Inverse rendering: fields and scenes from images of them, by gradient descent through `raycast.render`."""

from sdfgan.inverse.config import FitImageConfig
from sdfgan.inverse.job import train
from sdfgan.inverse.target import load_target

__all__ = ["FitImageConfig", "load_target", "train"]
