"""Fit a network to a mesh and use it: distances, an image of it cut open, a new mesh. Arguments: MESH FOLDER."""

import sys
from pathlib import Path
from typing import Any

import torch
import trimesh

from sdfgan import cameras, fields, images, meshes, raycast, sdf
from sdfgan.sdf import train
from sdfgan.sdf.config import SdfConfig


def fit(mesh: Path, folder: Path, resolution: int = 256, **settings: Any) -> sdf.MeshSDF:
    train(SdfConfig(input=mesh, output_dir=folder / "run", **settings))  # as `sdfgan train-sdf MESH` does
    solid = sdf.load(folder / "run").requires_grad_(False)  # in the unit ball; `placement` says where it was

    points = 2 * torch.rand(5, 3) - 1
    distance, gradient = solid.sdf_and_gradient(points)
    surface = points - distance[:, None] * gradient  # the nearest points of the surface, nearly
    print("distances", distance.tolist(), "after the step to the surface", solid.sdf(surface).tolist())

    half = fields.Subtraction(solid, fields.Box((1.0, 1.0, 1.0)).translated((0.0, 0.0, 1.0)))
    axes = cameras.rotate_axes((torch.tensor([0.4]), torch.tensor([0.6])))
    image = raycast.render(sdf=half, axes=axes, resolution=resolution, background=(1.0, 1.0, 1.0))
    images.save_image(folder / "half.png", image.rgb[0])
    meshes.export_mesh(meshes.marching_cubes(half, None, resolution // 2), folder / "half.glb")
    return solid


if __name__ == "__main__":
    mesh, folder = (Path(one) for one in sys.argv[1:3]) if len(sys.argv) > 2 else (Path("torus.stl"), Path())
    if len(sys.argv) < 3:
        trimesh.creation.torus(1.0, 0.4).export(mesh)
    fit(mesh, folder)
