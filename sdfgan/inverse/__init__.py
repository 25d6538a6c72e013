"""Inverse rendering: fields from images, by gradient descent through `raycast.render`."""

from typing import TYPE_CHECKING

from sdfgan._lazy import lazy

if TYPE_CHECKING:
    from sdfgan.inverse.config import FitImageConfig
    from sdfgan.inverse.job import train
    from sdfgan.inverse.target import load_target
else:
    __getattr__, __dir__ = lazy(__file__)

__all__ = ["FitImageConfig", "load_target", "train"]
