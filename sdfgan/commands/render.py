"""`sdfgan render`: pictures and turntables of the shapes that a trained generator makes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor

from sdfgan.cameras import orbit_path, rotate_axes
from sdfgan.commands.arguments import parse_seeds, require_positive, run_folder
from sdfgan.errors import UserError
from sdfgan.gan import load_generator, sample_latents
from sdfgan.gan.config import resolve_device
from sdfgan.pictures import VideoWriter, colour_depth, colour_normals, image_grid, save_image
from sdfgan.raycast import render
from sdfgan.raycast.render import Rendering
from sdfgan.training.progress import progress

_RAYS_AT_ONCE = 2**18
_WHITE = (1.0, 1.0, 1.0)


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
    shapes = _Shapes(config, seeds)
    if config.mode == "turntable":
        _turntable(shapes, config, output)
    else:
        _grid(shapes, config, output)
    print(f"wrote {output}")


def _output(config: RenderConfig) -> Path:
    suffixes = (".mp4",) if config.mode == "turntable" else (".png", ".jpg")
    output = config.output or run_folder(config.run) / "renders" / f"{config.mode}{suffixes[0]}"
    if output.suffix.lower() not in suffixes:
        raise UserError(f"--output: {config.mode} is written as {' or '.join(suffixes)}, got {output}")
    return output


class _Shapes:
    """A generator and the latents of some seeds, rendered a few pictures at a time."""

    def __init__(self, config: RenderConfig, seeds: list[int]) -> None:
        device = resolve_device(config.device)
        generator, trained = load_generator(config.run)
        self.generator, self.trained = generator.to(device), trained
        self.latents = sample_latents(trained, seeds, config.truncation).to(device)
        self._resolution = config.resolution
        self._at_once = max(1, _RAYS_AT_ONCE // config.resolution**2)

    def render(self, latents: Tensor, axes: Tensor) -> Iterator[Rendering]:
        """Pictures of `latents` [B, L] from cameras `axes` [B, 3, 3], a few at a time."""
        batches = zip(latents.split(self._at_once), axes.to(latents.device).split(self._at_once), strict=True)
        for some_latents, some_axes in batches:
            yield render(
                sdf=self.generator,
                axes=some_axes,
                condition=self.generator.condition(some_latents),
                resolution=self._resolution,
                fov=math.radians(self.trained.fov),
                background=_WHITE,
            )


@torch.no_grad()
def _grid(shapes: _Shapes, config: RenderConfig, output: Path) -> None:
    turn, elevation = _circle(config.views), math.radians(config.elevation)
    axes = rotate_axes((torch.full_like(turn, elevation), turn)).repeat(len(shapes.latents), 1, 1)
    latents = shapes.latents.repeat_interleave(config.views, 0)
    pictures: list[Tensor] = []
    with progress(len(latents), config.mode) as bar:
        for rendering in shapes.render(latents, axes):
            if config.mode == "depth":
                picture = rendering.depth  # coloured below, when the range of all of them is known
            elif config.mode == "normals":
                picture = colour_normals(rendering.normals, rendering.alpha)
            else:
                picture = rendering.rgb
            pictures.append(picture.cpu())
            bar.advance(len(picture))
    images = torch.cat(pictures)
    save_image(output, image_grid(colour_depth(images) if config.mode == "depth" else images, config.views))


@torch.no_grad()
def _turntable(shapes: _Shapes, config: RenderConfig, output: Path) -> None:
    all_axes = rotate_axes(orbit_path(config.frames, math.radians(config.elevation)))
    columns = math.ceil(math.sqrt(len(shapes.latents)))
    with VideoWriter(output, config.fps) as video, progress(config.frames, "turntable") as bar:
        for axes in all_axes:
            renderings = shapes.render(shapes.latents, axes.expand(len(shapes.latents), 3, 3))
            video.add(image_grid(torch.cat([rendering.rgb.cpu() for rendering in renderings]), columns))
            bar.advance()


def _circle(views: int) -> Tensor:
    return 2 * math.pi * torch.arange(views) / views
