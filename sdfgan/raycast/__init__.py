"""Surfaces of signed-distance fields: tracing rays to them and making differentiable images of them."""

from sdfgan.raycast.lighting import Lighting
from sdfgan.raycast.memory import evaluate
from sdfgan.raycast.multiscale import SurfaceSamples, multiscale
from sdfgan.raycast.photographs import PhotographRays
from sdfgan.raycast.render import RayColors, Rendering, render, render_rays
from sdfgan.raycast.room import Room
from sdfgan.raycast.sphere_trace import Rays, Traced, sphere_trace

__all__ = [
    "Lighting",
    "PhotographRays",
    "RayColors",
    "Rays",
    "Rendering",
    "Room",
    "SurfaceSamples",
    "Traced",
    "evaluate",
    "multiscale",
    "render",
    "render_rays",
    "sphere_trace",
]
