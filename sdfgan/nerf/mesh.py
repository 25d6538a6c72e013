"""A learnt scene as a coloured mesh: the surface where its density passes a level."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import trimesh
from torch import Tensor

from sdfgan.data.scenes import Scene
from sdfgan.errors import UserError
from sdfgan.fields.base import Field
from sdfgan.fields.nerf import density_normals
from sdfgan.fields.surface_grid import SurfaceGrid
from sdfgan.meshes import marching_cubes, without_floaters
from sdfgan.meshes.atlas import finished
from sdfgan.meshes.isosurface import say_removed
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.models import SceneModel, SurfaceModel, load_model
from sdfgan.nerf.photographs import Photographs
from sdfgan.volume import RaySamples, VolumeField

_DEPTH = 20.0  # densities are told apart up to this many times the level


class DensitySurface(Field):
    """1 - density / level as a field: negative inside, no distance. Colours are those seen along the normal."""

    lipschitz = math.inf

    def __init__(self, volume: VolumeField, level: float, grid: Any = None, deviation: float | None = None) -> None:
        """`grid`: an occupancy grid; where it is empty there is nothing. `deviation`: of Gaussians to evaluate."""
        super().__init__()
        self.volume, self.level, self.grid, self.deviation = volume, level, grid, deviation

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """[N]; see `Field.sdf`."""
        density = self.volume.density(self._from_above(points)).float()
        if self.grid is not None:
            density = torch.where(self.grid.occupied[self.grid.cells(points)], density, 0.0)
        return 1 - (density / self.level).clamp(max=_DEPTH)

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Colours [N, 3] as seen from straight above each place of the surface."""
        places = self._from_above(points)
        _, normals = density_normals(self.volume.density, places, create_graph=False)
        return self.volume.radiance(places._replace(directions=-normals.contiguous())).rgb.float()

    def _from_above(self, points: Tensor) -> RaySamples:
        down = torch.zeros_like(points)
        down[:, 1] = -1
        covariances = None if self.deviation is None else torch.full_like(points, self.deviation**2)
        return RaySamples(points, down, covariances)


def scene_surface(model: SceneModel, config: ResolvedNerfConfig, cells: int) -> Field:
    """The surface of a scene, for meshes of so many cells along a side: of a surface model its own.

    Otherwise its density is the configuration's `mesh_level`, or ends half of the light within two cells of the grid.
    Models of cones are evaluated for Gaussians whose deviation is half a cell.
    """
    if isinstance(model, SurfaceModel):
        model.surface.measure_slope()
        return model.surface
    level = config.mesh_level or math.log(2) * cells / 4
    deviation = 1 / cells if model.cones else None
    surface = DensitySurface(model.field, level, getattr(model, "occupancy", None), deviation)
    surface.register_buffer("place", torch.zeros((), device=config.device))  # says where to evaluate
    return surface


def surface_mesh(surface: Field, cells: int) -> tuple[trimesh.Trimesh, int]:
    """The surface in the cube [-1, 1]^3 without its floaters, and their number. Raises UserError where there is none.

    Of a density cavities are kept: cameras may be in one, such as a room.
    """
    mesh = marching_cubes(surface, resolution=cells)
    return without_floaters(mesh, cavities=not isinstance(surface, SurfaceGrid))


def scene_mesh(
    surface: Field, cells: int, scene: Scene, faces: int = 0, texture: int = 0, gains: Tensor | None = None
) -> trimesh.Trimesh:
    """The same in the file's units with y up; says how many floaters were removed.

    With at most so many faces (0: all), and a texture of so many texels along a side (0: none): of the photographs'
    colours, divided by their exposures' factors `gains` [images, 3] if there are any, or of a density's own.
    """
    (mesh, removed), colours = surface_mesh(surface, cells), None
    if removed:
        print(f"mesh: {say_removed(mesh, removed)}")
    if texture and isinstance(surface, SurfaceGrid):
        colours = Photographs(scene.train, mesh, surface, gains).colours
    mesh = finished(mesh, surface, None, faces, texture, colours)
    mesh.apply_scale(float(scene.to_file[0, 0]))
    return mesh.apply_translation(scene.to_file[:, 3].numpy())


def load_surface(path: str | Path, device: str = "cpu") -> SurfaceGrid:
    """The surface of a run of `train-nerf --model surface`, or of its checkpoint: a `Field` in scene coordinates.

    Every renderer and `meshes.marching_cubes` take it. Its colours are as seen, so it needs no light; with
    `condition=cameras.orbit_camera(axes, fov)[..., 3]`, the places that images are seen from, they are those of the
    volume, else those along the normal. Raises UserError for anything else.
    """
    model, config = load_model(path, device)
    if not isinstance(model, SurfaceModel):
        raise UserError(f"{path}: a run of --model {config.model}, expected one of --model surface")
    model.surface.measure_slope()
    return model.surface
