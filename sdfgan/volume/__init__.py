"""Volumes that emit and absorb light: sampling rays through them, and images of them."""

from sdfgan.fields.contraction import contract, contract_gaussians, expand
from sdfgan.fields.volume import Radiance, RaySamples, VolumeField
from sdfgan.volume.field import Rays, SdfVolume
from sdfgan.volume.occupancy import OccupancyGrid
from sdfgan.volume.render import Level, VolumeRendering, render
from sdfgan.volume.render_images import render_images
from sdfgan.volume.sampling import Sampling

render_pictures = render_images  # its former name, for one version

__all__ = [
    "Level",
    "OccupancyGrid",
    "Radiance",
    "RaySamples",
    "Rays",
    "Sampling",
    "SdfVolume",
    "VolumeField",
    "VolumeRendering",
    "contract",
    "contract_gaussians",
    "expand",
    "render",
    "render_images",
    "render_pictures",
]
