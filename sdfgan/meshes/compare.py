"""How far apart two meshes are."""

from __future__ import annotations

import trimesh
from scipy.spatial import cKDTree

from sdfgan.metrics import chamfer


def chamfer_distance(a: trimesh.Trimesh, b: trimesh.Trimesh, points: int = 20_000, seed: int = 0) -> float:
    """Mean distance from random points of each surface to the nearest of the other, averaged over both; world units."""
    clouds = [trimesh.sample.sample_surface(mesh, points, seed=seed)[0] for mesh in (a, b)]
    return chamfer(*map(cKDTree, clouds))
