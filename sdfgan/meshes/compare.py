"""How far apart two meshes are."""

from __future__ import annotations

import trimesh
from scipy.spatial import cKDTree


def chamfer_distance(a: trimesh.Trimesh, b: trimesh.Trimesh, points: int = 20_000, seed: int = 0) -> float:
    """Mean distance from random points of each surface to the nearest of the other, averaged over both; world units."""
    clouds = [trimesh.sample.sample_surface(mesh, points, seed=seed)[0] for mesh in (a, b)]
    there, back = (cKDTree(p).query(q)[0].mean() for p, q in (clouds, clouds[::-1]))
    return float(there + back) / 2
