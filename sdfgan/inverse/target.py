"""The mesh that is to be found again, and its images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan.cameras import rotate_axes
from sdfgan.errors import UserError
from sdfgan.meshes import render_mesh
from sdfgan.meshes.materials import FolderResolver, no_ghostscript, unused_files, with_materials
from sdfgan.meshes.read import read_mesh
from sdfgan.training.progress import progress

_FILL = 0.85  # radius of the ball that a mesh is scaled into


def load_target(path: Path) -> trimesh.Trimesh:
    """A mesh moved and scaled into the ball of radius 0.85 around the origin. Raises UserError."""
    if not path.is_file():
        former = "; the scene of two spheres is now examples/inverse_rendering.py" * (path.name == "csg")
        raise UserError(f"{path}: no such file; TARGET must be a mesh{former}")
    mesh = _coloured(path, read_mesh(path))
    mesh.update_faces(np.isfinite(mesh.triangles).all((1, 2)))
    mesh.remove_unreferenced_vertices()
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(_FILL / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def _coloured(path: Path, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with the colours that trimesh reads; without them, and said so, where it reads another mesh."""
    try:
        with no_ghostscript():
            file, kind = with_materials(path)
            resolver = FolderResolver(str(path))
            found = trimesh.load(file, file_type=kind, force="mesh", process=False, resolver=resolver)
        if isinstance(found, trimesh.Trimesh) and len(found.faces) == len(mesh.faces):
            sizes = [(one.area, *one.bounds.flat) for one in (found, mesh)]
            if np.allclose(*sizes, 1e-5, equal_nan=True):
                for note in unused_files(path):
                    print(note)
                return found
    except Exception:  # of whatever kind; the mesh itself has been read
        pass
    print(f"{path}: colours, if it has any, cannot be read; the images are grey")
    return mesh


def target_images(mesh: trimesh.Trimesh, axes: Tensor, resolution: int) -> dict[int, Tensor]:
    """Images [N, 4, R, R] of a mesh from cameras [N, 3, 3] on their device, by their resolution and its parts."""
    images = []
    with progress(len(axes), "rendering the mesh") as bar:
        for camera in axes.split(1):
            images.append(render_mesh(mesh, camera, resolution).to(axes.device))
            bar.advance()
    whole = torch.cat(images)
    return {
        resolution // scale: torch.nn.functional.avg_pool2d(whole, scale) if scale > 1 else whole for scale in (1, 2, 4)
    }


def views_all_round(count: int) -> Tensor:
    """Axes [N, 3, 3] of cameras spread evenly over the sphere, a Fibonacci lattice without its poles."""
    height = 1 - (2 * torch.arange(count) + 1) / count
    azimuth = torch.arange(count) * math.pi * (3 - math.sqrt(5))
    return rotate_axes(((0.95 * height).asin(), azimuth))
