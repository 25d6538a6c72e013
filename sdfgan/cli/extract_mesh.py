"""`sdfgan extract-mesh`: coloured meshes, or volumes, of what a run has learned: shapes, one shape, or a scene."""

from __future__ import annotations

import sys
from functools import partial

import torch

from sdfgan import conditions
from sdfgan.cli.arguments import output_path, run_folder
from sdfgan.cli.flags import ExtractMeshConfig
from sdfgan.cli.shapes import load_shapes, with_colours
from sdfgan.cli.single import Kind, SceneRun, load_solid, refuse, run_kind
from sdfgan.errors import UserError
from sdfgan.gan.report import shape_mesh
from sdfgan.meshes import export_mesh, export_volume, sample_grid
from sdfgan.meshes.atlas import finished
from sdfgan.nerf.mesh import scene_mesh, scene_surface
from sdfgan.sdf.report import solid_mesh
from sdfgan.training.config import check_mesh_flags
from sdfgan.training.progress import progress


@torch.no_grad()
def run(config: ExtractMeshConfig) -> None:
    """Write the meshes, and say where they are. A shape without a surface is left out, and that is said."""
    check_mesh_flags(config, config.format)
    kind = run_kind(config.run)
    if kind != "gan":
        _write_one(config, kind)
        return
    refuse(config, "train-gan", "data")
    shapes = load_shapes(config)
    coloured = with_colours(shapes)
    folder = output_path(config.output_dir, run_folder(config.run) / "meshes", folder=True)
    asked, made = (config.faces, config.texture_resolution), 0
    with progress(len(shapes.seeds), "meshes") as bar:
        for index, seed in enumerate(shapes.seeds):
            condition = conditions.rows(coloured, slice(index, index + 1))
            path = folder / f"shape-{seed}.{config.format}"
            if config.format == "mrc":
                export_volume(-sample_grid(shapes.generator, condition, config.mesh_resolution), path)
                made += 1
            else:
                try:
                    mesh = shape_mesh(shapes.generator, condition, config.mesh_resolution, f"seed {seed}")
                except UserError as error:
                    print(f"seed {seed}: no mesh: {error}", file=sys.stderr)
                else:
                    export_mesh(finished(mesh, shapes.generator, condition, *asked), path)
                    made += 1
            bar.advance()
    if made == 0:
        raise UserError(f"{config.run}: none of the {len(shapes.seeds)} shapes has a surface")
    print(f"wrote {made} of {len(shapes.seeds)} meshes to {folder}")


def _write_one(config: ExtractMeshConfig, kind: Kind) -> None:
    """The mesh of a run that has learned one shape, where the file's mesh or cameras lie. Raises UserError for none."""
    cells, asked = config.mesh_resolution, (config.faces, config.texture_resolution)
    if kind == "nerf":
        run = SceneRun.load(config)
        surface = scene_surface(run.model, run.config, cells)
        field = surface
        gains = run.gains() if config.texture_resolution else None
        scene = run.photographed() if config.texture_resolution else run.scene
        make = partial(scene_mesh, surface, cells, scene, *asked, gains)
    else:
        field = solid = load_solid(config)
        if solid.unsigned and config.format == "mrc":
            raise UserError(f"--format mrc: {config.run} has an unsigned field, which has no inside")
        make = partial(solid_mesh, solid, cells, *asked)
    folder = output_path(config.output_dir, run_folder(config.run) / "meshes", folder=True)
    path = folder / f"mesh.{config.format}"
    if config.format == "mrc":
        export_volume(-sample_grid(field, field.condition(None), cells), path)
    else:
        export_mesh(make(), path)
    print(f"wrote {path}")
