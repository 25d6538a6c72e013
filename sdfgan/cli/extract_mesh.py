"""`sdfgan extract-mesh`: coloured meshes, or volumes, of the shapes that a trained generator makes."""

from __future__ import annotations

import sys

import torch

from sdfgan import conditions
from sdfgan.cli.arguments import output_path, run_folder
from sdfgan.cli.flags import ExtractMeshConfig
from sdfgan.cli.shapes import load_shapes
from sdfgan.errors import UserError
from sdfgan.meshes import export_mesh, export_volume, marching_cubes, sample_grid
from sdfgan.training.progress import progress


@torch.no_grad()
def run(config: ExtractMeshConfig) -> None:
    """Write the meshes, and say where they are. A shape without a surface is left out, and that is said."""
    shapes = load_shapes(config)
    folder = output_path(config.output_dir, run_folder(config.run) / "meshes", folder=True)
    made = 0
    with progress(len(shapes.seeds), "meshes") as bar:
        for index, seed in enumerate(shapes.seeds):
            condition = conditions.rows(shapes.condition, slice(index, index + 1))
            path = folder / f"shape-{seed}.{config.format}"
            if config.format == "mrc":
                export_volume(-sample_grid(shapes.generator, condition, config.mesh_resolution), path)
                made += 1
            else:
                try:
                    mesh = marching_cubes(shapes.generator, condition, config.mesh_resolution)
                except UserError as error:
                    print(f"seed {seed}: no mesh: {error}", file=sys.stderr)
                else:
                    export_mesh(mesh, path)
                    made += 1
            bar.advance()
    if made == 0:
        raise UserError(f"{config.run}: none of the {len(shapes.seeds)} shapes has a surface")
    print(f"wrote {made} of {len(shapes.seeds)} meshes to {folder}")
