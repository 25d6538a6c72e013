"""`sdfgan render`: pictures and turntables of the shapes that a trained generator makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from sdfgan.commands.arguments import parse_seeds, require_positive, run_folder
from sdfgan.errors import UserError
from sdfgan.gan import load_generator, sample_latents
from sdfgan.gan.config import resolve_device
from sdfgan.gan.views import Viewer, colours
from sdfgan.pictures import colour_depth, colour_normals, image_grid, save_image
from sdfgan.training.progress import progress


@dataclass(frozen=True)
class RenderConfig:
    """Render shapes of a trained generator: a grid of views, a turntable video, depth or normals."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    mode: Literal["grid", "turntable", "depth", "normals"] = "grid"
    """grid, depth and normals: one row per seed, seen from several sides. turntable: a video of all seeds."""
    seeds: str = "0-7"
    """Which shapes: numbers and ranges, such as 0,3,8-12."""
    resolution: int = 256
    """Side of each picture in pixels."""
    truncation: float = 1.0
    """Scale of the latents: less than 1 gives more typical, less varied shapes."""
    frames: int = 72
    """Frames of the turntable."""
    fps: int = 24
    """Frames per second of the turntable."""
    elevation: float = 20.0
    """Height of the camera above the horizon, degrees."""
    views: int = 6
    """Sides from which each shape is seen."""
    output: Path | None = None
    """File to write. Default: renders/MODE.png (turntable: .mp4) in the run folder."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(config: RenderConfig) -> None:
    """Write the picture or video, and say where it is."""
    seeds = parse_seeds(config.seeds)
    require_positive(resolution=config.resolution, frames=config.frames, fps=config.fps, views=config.views)
    if not -90 <= config.elevation <= 90:
        raise UserError(f"--elevation must be between -90 and 90 degrees, got {config.elevation}")
    if not math.isfinite(config.truncation):
        raise UserError(f"--truncation must be a number, got {config.truncation}")
    output = _output(config)
    device = resolve_device(config.device)
    generator, trained = load_generator(config.run)
    viewer = Viewer(generator.to(device), math.radians(trained.fov))
    latents = sample_latents(trained, seeds, config.truncation).to(device)
    elevation = math.radians(config.elevation)
    if config.mode == "turntable":
        viewer.turntable(output, latents, elevation, config.resolution, config.frames, config.fps)
    else:
        _grid(viewer, config, latents, elevation, output)
    print(f"wrote {output}")


def _output(config: RenderConfig) -> Path:
    suffixes = (".mp4",) if config.mode == "turntable" else (".png", ".jpg")
    output = config.output or run_folder(config.run) / "renders" / f"{config.mode}{suffixes[0]}"
    if output.suffix.lower() not in suffixes:
        raise UserError(f"--output: {config.mode} is written as {' or '.join(suffixes)}, got {output}")
    return output


def _grid(viewer: Viewer, config: RenderConfig, latents: Tensor, elevation: float, output: Path) -> None:
    wanted = viewer.views(latents, config.views, elevation)
    with progress(len(wanted[0]), config.mode) as bar:
        renderings = viewer.look(*wanted, config.resolution, on_progress=bar.advance)
    if config.mode == "depth":
        images = colour_depth(torch.cat([rendering.depth.cpu() for rendering in renderings]))
    elif config.mode == "normals":
        images = torch.cat([colour_normals(rendering.normals, rendering.alpha).cpu() for rendering in renderings])
    else:
        images = colours(renderings)
    save_image(output, image_grid(images, config.views))
