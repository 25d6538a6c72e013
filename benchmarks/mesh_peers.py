"""Meshes beside other libraries: signs of distances to broken meshes, marching cubes, points of a surface.

And those libraries' signed distances, which `mesh_distances.py` times. Each is optional; what is not installed is said
before the work (`bench.missing`) and is an error of its variant alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines import dense_grid
from measure import Comparison, lazily
from options import Options
from sdfgan import fields
from torus import torus

Distances = Callable[[], np.ndarray]  # [N], negative inside
_TRUST = 0.002  # a point nearer to a torus of flat faces may be on either side of the round one
_PLATE = (0.7, 0.6, 0.002)
_BESIDE = (0.4, 0.0, 0.1)  # of the second torus of two
_STEPS = {"trimesh": 20}  # a slow one is given every so many points
_SECTIONS = 64  # of a torus, in which points are counted


def by_trimesh(vertices: Tensor, faces: Tensor, points: Tensor) -> Distances:
    """Whether a ray meets the surface an odd number of times."""
    import trimesh  # which asks rtree

    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    return lambda: -mesh.nearest.signed_distance(points.cpu().numpy())


def by_libigl(vertices: Tensor, faces: Tensor, points: Tensor) -> Distances:
    """Fast winding numbers, as ours."""
    import igl

    arrays = vertices.double().numpy(), faces.long().numpy()

    def run() -> np.ndarray:
        queries = points.cpu().double().numpy()
        squares = igl.point_mesh_squared_distance(queries, *arrays)[0]
        return np.sqrt(squares) * np.where(igl.fast_winding_number(*arrays, queries) > 0.5, -1, 1)

    return run


def by_open3d(vertices: Tensor, faces: Tensor, points: Tensor) -> Distances:
    """Whether a ray meets the surface an odd number of times."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene(nthreads=torch.get_num_threads())
    scene.add_triangles(vertices.float().numpy(), faces.numpy().astype(np.uint32))
    return lambda: scene.compute_signed_distance(points.cpu().numpy(), nthreads=torch.get_num_threads()).numpy()


def by_pysdf(vertices: Tensor, faces: Tensor, points: Tensor) -> Distances:
    """Rays, several of them."""
    from pysdf import SDF

    distance = SDF(vertices.float().numpy(), faces.numpy().astype(np.uint32))
    return lambda: -distance(points.cpu().numpy(), n_threads=torch.get_num_threads())


DISTANCES: dict[str, Callable[[Tensor, Tensor, Tensor], Distances]] = {
    "libigl": by_libigl,
    "open3d": by_open3d,
    "pysdf": by_pysdf,
    "trimesh": by_trimesh,
}


def mesh_signs(options: Options) -> Iterator[Comparison]:
    """Wrong signs of distances to broken meshes and a thin plate, among points that are clearly on one side."""
    generator = torch.Generator().manual_seed(0)
    vertices, faces = torus(96, 48, 0.7, 0.25)
    count = 500 if options.quick else 5000
    uniform = 2 * torch.rand(count, 3, generator=generator) - 1
    near = vertices[torch.randint(len(vertices), (count,), generator=generator)]
    points = torch.cat([uniform, near + 0.03 * torch.randn(count, 3, generator=generator)])
    ring = fields.Torus(0.7, 0.25).rotated(axis=(1.0, 0.0, 0.0), angle=math.pi / 2)
    for name, mesh in _broken(vertices, faces, generator).items():
        true = ring.sdf(points)
        if name == "two that intersect":
            true = torch.minimum(true, ring.sdf(points - points.new_tensor(_BESIDE)))
        yield _signs(name, *mesh, points, true, _TRUST)
    size = torch.tensor(_PLATE)
    beside = torch.cat([uniform, uniform * (size + 0.01)])
    yield _signs("a plate .004 thick", *_box(size), beside, fields.Box(_PLATE).sdf(beside), 1e-4)


def _broken(v: Tensor, f: Tensor, random: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    chance = torch.rand(len(f), generator=random)
    third, fifth = chance < 1 / 3, f[chance < 0.2].clone()
    fifth[::2] = fifth[::2].flip(1)
    return {
        "whole": (v, f),
        "a twentieth missing": (v, f[chance >= 0.05]),
        "a third flipped": (v, torch.where(third[:, None], f.flip(1), f)),
        "inside out": (v, f.flip(1)),
        "a fifth duplicated": (v, torch.cat([f, fifth])),
        "two that intersect": (torch.cat([v, v + v.new_tensor(_BESIDE)]), torch.cat([f, f + len(v)])),
    }


def _box(size: Tensor) -> tuple[Tensor, Tensor]:
    import trimesh

    made = trimesh.creation.box((2 * size).numpy())
    return torch.from_numpy(np.float32(made.vertices)), torch.from_numpy(np.int32(made.faces))


def _signs(name: str, vertices: Tensor, faces: Tensor, points: Tensor, true: Tensor, trust: float) -> Comparison:
    sure = (true.abs() > trust).numpy()
    inside = (true < 0).numpy()

    def ours(repaired: bool) -> Distances:
        import trimesh

        from sdfgan.meshes import GroundTruth, repair

        mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
        exact = GroundTruth(repair(mesh)[0] if repaired else mesh)
        return lambda: exact.signed_distance(points).numpy()

    def examine(name: str, answer: np.ndarray) -> dict[str, Any]:
        step = _STEPS.get(name, 1)
        return {"wrong_signs_percent": 100 * float(((answer < 0) != inside[::step])[sure[::step]].mean())}

    variants: dict[str, Callable[[], Any]] = {
        "sdfgan": lazily(partial(ours, False)),
        "sdfgan, repaired": lazily(partial(ours, True)),
        **{
            peer: lazily(partial(make, vertices, faces, points[:: _STEPS.get(peer, 1)].contiguous()))
            for peer, make in DISTANCES.items()
        },
    }
    config = {"mesh": name, "faces": len(faces), "points": len(points)}
    scale = {peer: float(step) for peer, step in _STEPS.items()}
    return Comparison("mesh_signs", config, variants, tuple(DISTANCES), examine=examine, scale=scale, most_rounds=3)


def marching(options: Options) -> Iterator[Comparison]:
    """From a field to its mesh: ours evaluates what may hold the surface; the others are given every point's value."""
    import trimesh

    from sdfgan.meshes import marching_cubes

    resolution = 32 if options.quick else 128
    ring = fields.Torus(0.6, 0.22).rotated(axis=(1.0, 0.3, 0.0), angle=0.6)
    cell = 2 / resolution

    def values() -> np.ndarray:
        return dense_grid(lambda points, _: ring.sdf(points), resolution).numpy()

    def placed(vertices: np.ndarray, faces: np.ndarray) -> Any:
        return trimesh.Trimesh(vertices * cell - 1, faces, process=False)

    def by_skimage() -> Any:
        from skimage.measure import marching_cubes as triangulate

        return placed(*triangulate(values(), 0.0, gradient_direction="descent")[:2])

    def by_mcubes() -> Any:
        import mcubes

        return placed(*mcubes.marching_cubes(values(), 0.0))

    def by_igl() -> Any:
        import igl

        count = resolution + 1
        ticks = np.arange(count, dtype=np.float64)
        z, y, x = np.meshgrid(ticks, ticks, ticks, indexing="ij")
        corners = np.stack([x, y, z], -1).reshape(-1, 3)
        flat = np.asfortranarray(values()).ravel(order="F").astype(np.float64)
        return placed(*igl.marching_cubes(flat, corners, count, count, count, 0.0)[:2])

    def examine(_: str, mesh: Any) -> dict[str, Any]:
        off = ring.sdf(torch.from_numpy(np.float32(mesh.vertices))).abs().max().item() / cell
        return {"farthest_vertex_cells": off, "watertight": bool(mesh.is_watertight), "faces_made": len(mesh.faces)}

    variants: dict[str, Callable[[], Any]] = {
        "sdfgan": lambda: marching_cubes(ring, None, resolution),
        "scikit-image": by_skimage,
        "pymcubes": by_mcubes,
        "libigl": by_igl,
    }
    config = {"field": "torus", "cells": f"{resolution}^3"}
    yield Comparison("marching", config, variants, tuple(variants)[1:], examine=examine)


def surface_points(options: Options) -> Iterator[Comparison]:
    """A million random points of a mesh of 102,400 faces, uniform by area."""
    import trimesh

    from sdfgan.meshes import GroundTruth

    vertices, faces = torus(*((64, 16) if options.quick else (320, 160)), 0.7, 0.25)
    count = 10_000 if options.quick else 1_000_000
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    exact, arrays = GroundTruth(mesh), (vertices.double().numpy(), faces.long().numpy())

    def by_open3d_legacy() -> Callable[[], Any]:
        import open3d

        vectors = open3d.utility.Vector3dVector(arrays[0]), open3d.utility.Vector3iVector(faces.numpy())
        own = open3d.geometry.TriangleMesh(*vectors)
        return lambda: np.asarray(own.sample_points_uniformly(count).points)

    def by_igl() -> Callable[[], Any]:
        import igl

        return lambda: igl.random_points_on_mesh(count, *arrays)[2]

    def examine(_: str, points: Any) -> dict[str, Any]:
        """Counts of equal sections of the torus scatter as those of independent points do: 1 is right."""
        angle = np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) % 1
        counts = np.bincount((angle * _SECTIONS).astype(int) % _SECTIONS, minlength=_SECTIONS)
        return {"scatter": float(np.sqrt(np.mean((counts - count / _SECTIONS) ** 2) / (count / _SECTIONS)))}

    variants: dict[str, Callable[[], Any]] = {
        "sdfgan": lambda: exact.surface(count)[0].numpy(),
        "trimesh": lambda: trimesh.sample.sample_surface(mesh, count)[0],
        "open3d": lazily(by_open3d_legacy),
        "libigl": lazily(by_igl),
    }
    config = {"faces": len(faces), "points": count}
    yield Comparison("surface_points", config, variants, tuple(variants)[1:], examine=examine)
