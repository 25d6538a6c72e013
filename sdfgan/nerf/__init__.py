"""Radiance fields of scenes from posed images: `train` makes a run folder, `load_model` reads one,
`load_surface` the surface of one."""

from typing import TYPE_CHECKING

from sdfgan._lazy import lazy

if TYPE_CHECKING:
    from sdfgan.nerf.config import NerfConfig
    from sdfgan.nerf.job import train
    from sdfgan.nerf.mesh import load_surface
    from sdfgan.nerf.models import load_model
else:
    __getattr__, __dir__ = lazy(__file__)

__all__ = ["NerfConfig", "load_model", "load_surface", "train"]
