"""`sdfgan extract-mesh`: coloured meshes, or volumes, of the shapes that a trained generator makes."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from sdfgan import conditions
from sdfgan.checks import FEWEST_CELLS, MAX_CELLS
from sdfgan.commands.arguments import output_path, require_between, run_folder
from sdfgan.commands.shapes import ShapeFlags, load_shapes
from sdfgan.errors import UserError
from sdfgan.meshes import export_mesh, export_volume, marching_cubes, sample_grid
from sdfgan.training.progress import progress


@dataclass(frozen=True)
class ExtractMeshConfig(ShapeFlags):
    """Extract coloured meshes of shapes of a trained generator, in world units, by marching cubes; or volumes."""

    seeds: tuple[str, ...] = ("0-2",)
    """Which shapes: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    resolution: int = 128
    """Grid cells along each side of the box from -1 to 1."""
    format: Literal["glb", "obj", "ply", "stl", "mrc"] = "glb"
    """File format; glb, obj and ply hold the colours. mrc: the field itself on the grid, negated, so that the surface
    is at level 0 and the inside above it."""
    output_dir: Path | None = None
    """Folder to write shape-SEED.FORMAT to. Default: meshes in the run folder, or meshes-2 ..."""


@torch.no_grad()
def run(config: ExtractMeshConfig) -> None:
    """Write the meshes, and say where they are. A shape without a surface is left out, and that is said."""
    require_between(FEWEST_CELLS, MAX_CELLS, resolution=config.resolution)
    shapes = load_shapes(config)
    folder = output_path(config.output_dir, run_folder(config.run) / "meshes", folder=True)
    made = 0
    with progress(len(shapes.seeds), "meshes") as bar:
        for index, seed in enumerate(shapes.seeds):
            condition = conditions.rows(shapes.condition, slice(index, index + 1))
            path = folder / f"shape-{seed}.{config.format}"
            if config.format == "mrc":
                export_volume(-sample_grid(shapes.generator, condition, config.resolution), path)
                made += 1
            else:
                try:
                    mesh = marching_cubes(shapes.generator, condition, config.resolution)
                except UserError as error:
                    print(f"seed {seed}: no mesh: {error}", file=sys.stderr)
                else:
                    export_mesh(mesh, path)
                    made += 1
            bar.advance()
    if made == 0:
        raise UserError(f"{config.run}: none of the {len(shapes.seeds)} shapes has a surface")
    print(f"wrote {made} of {len(shapes.seeds)} meshes to {folder}")
