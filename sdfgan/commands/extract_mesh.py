"""`sdfgan extract-mesh`: coloured meshes of the shapes that a trained generator makes."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from sdfgan.commands.arguments import parse_seeds, require_positive, run_folder
from sdfgan.errors import UserError
from sdfgan.gan import load_generator, sample_latents
from sdfgan.gan.config import resolve_device
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.training.progress import progress


@dataclass(frozen=True)
class ExtractMeshConfig:
    """Extract coloured meshes of shapes of a trained generator, in world units, by marching cubes."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    seeds: str = "0-2"
    """Which shapes: numbers and ranges, such as 0,3,8-12."""
    resolution: int = 128
    """Grid cells along each side of the box from -1 to 1."""
    format: Literal["glb", "obj", "ply"] = "glb"
    """File format; all three hold the colours."""
    truncation: float = 1.0
    """Scale of the latents: less than 1 gives more typical, less varied shapes."""
    output_dir: Path | None = None
    """Folder to write shape-SEED.FORMAT to. Default: meshes in the run folder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@torch.no_grad()
def run(config: ExtractMeshConfig) -> None:
    """Write the meshes, and say where they are. A shape without a surface is left out, and that is said."""
    seeds = parse_seeds(config.seeds)
    require_positive(resolution=config.resolution)
    if not math.isfinite(config.truncation):
        raise UserError(f"--truncation must be a number, got {config.truncation}")
    folder = config.output_dir or run_folder(config.run) / "meshes"
    device = resolve_device(config.device)
    generator, trained = load_generator(config.run)
    generator = generator.to(device)
    latents = sample_latents(trained, seeds, config.truncation).to(device)
    made = 0
    with progress(len(seeds), "meshes") as bar:
        for seed, latent in zip(seeds, latents.split(1), strict=True):
            try:
                mesh = marching_cubes(generator, generator.condition(latent), config.resolution)
            except UserError as error:
                print(f"seed {seed}: no mesh: {error}", file=sys.stderr)
            else:
                export_mesh(mesh, folder / f"shape-{seed}.{config.format}")
                made += 1
            bar.advance()
    if made == 0:
        raise UserError(f"{config.run}: none of the {len(seeds)} shapes has a surface")
    print(f"wrote {made} of {len(seeds)} meshes to {folder}")
