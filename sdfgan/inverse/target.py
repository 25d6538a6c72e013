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
from sdfgan.meshes import Model, normalise, read_mesh, read_model, render_model
from sdfgan.training.progress import progress

_FILL = 0.85  # radius of the ball that a mesh is scaled into
_SUPERSAMPLE = 2  # rays of a pixel along each side


def load_target(path: Path) -> tuple[trimesh.Trimesh, Model]:
    """A mesh moved and scaled into the ball of radius 0.85 around the origin, and the same as it looks.

    Says what of its colours is not shown. Raises UserError.
    """
    if not path.is_file():
        former = "; the scene of two spheres is now examples/inverse_rendering.py" * (path.name == "csg")
        raise UserError(f"{path}: no such file; TARGET must be a mesh{former}")
    mesh = read_mesh(path)
    mesh.update_faces(np.isfinite(mesh.triangles).all((1, 2)))
    model, notes = read_model(path, 1 - _FILL)
    for note in notes:
        print(note)
    return normalise(mesh, "ball", 1 - _FILL)[0], model


def target_images(model: Model, axes: Tensor, resolution: int) -> dict[int, Tensor]:
    """Images [N, 4, R, R] of a model from cameras [N, 3, 3] on their device, by their resolution and its parts."""
    images = []
    with progress(len(axes), "rendering the mesh") as bar:
        for camera in axes.split(1):
            images.append(render_model(model, camera, resolution, supersample=_SUPERSAMPLE).to(axes))
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
