"""Meshes into the unit ball or box, and back."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
import trimesh
from torch import Tensor

Array = TypeVar("Array", np.ndarray, Tensor)
SHAPES = ("ball", "box")


class Placement(NamedTuple):
    """Where a normalised mesh lay: original = normalised / scale + centre. Distances scale likewise."""

    centre: tuple[float, float, float]
    scale: float

    def normalised(self, points: Array) -> Array:
        """Original points [..., 3] to normalised ones."""
        return (points - self._centre(points)) * self.scale

    def original(self, points: Array) -> Array:
        """Normalised points [..., 3] to original ones."""
        return points / self.scale + self._centre(points)

    def _centre(self, like: Array) -> Array:
        return like.new_tensor(self.centre) if isinstance(like, Tensor) else np.asarray(self.centre)


def normalise(mesh: trimesh.Trimesh, shape: str = "ball", margin: float = 0.1) -> tuple[trimesh.Trimesh, Placement]:
    """A copy of a mesh in the ball of radius 1 - margin around the origin, or in the cube of that half side.

    The centre is that of the bounding box of the vertices that faces use. Coordinates are moved and scaled in float64,
    before anything is rounded to float32.

    Raises ValueError for another shape, a margin outside [0, 1), or a mesh whose used vertices are all one point.
    """
    if shape not in SHAPES:
        raise ValueError(f"normalise: shape must be one of {', '.join(SHAPES)}, got {shape!r}")
    if not 0 <= margin < 1:
        raise ValueError(f"normalise: margin must be in [0, 1), got {margin}")
    used = mesh.vertices[np.unique(mesh.faces)]
    low, high = used.min(0), used.max(0)
    centre = (low + high) / 2
    extent = np.linalg.norm(used - centre, axis=1).max() if shape == "ball" else (high - low).max() / 2
    if not 0 < extent < math.inf:
        raise ValueError(f"normalise: the mesh must have an extent, got {extent}")
    placement = Placement(tuple(centre.tolist()), float((1 - margin) / extent))
    return trimesh.Trimesh(placement.normalised(mesh.vertices), mesh.faces, process=False), placement
