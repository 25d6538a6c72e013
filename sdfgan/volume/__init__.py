"""Volumes that emit and absorb light: sampling rays through them, and pictures of them."""

from sdfgan.volume.contraction import contract, contract_gaussians, expand
from sdfgan.volume.field import Places, Radiance, Rays, SdfVolume, VolumeField
from sdfgan.volume.render import Level, VolumeRendering, render
from sdfgan.volume.sampling import Sampling

__all__ = [
    "Level",
    "Places",
    "Radiance",
    "Rays",
    "Sampling",
    "SdfVolume",
    "VolumeField",
    "VolumeRendering",
    "contract",
    "contract_gaussians",
    "expand",
    "render",
]
