"""`sdfgan render`: pictures and videos of the shapes that a trained generator makes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sdfgan.cameras import rotate_axes
from sdfgan.commands.arguments import MAX_PIXELS, output_path, require_between, require_positive, run_folder
from sdfgan.commands.shapes import CameraFlags, Shapes, load_shapes, sides_of, viewer_of
from sdfgan.errors import UserError
from sdfgan.gan.views import ImageRenderer, Show, ViewRange, sheet, shown
from sdfgan.images import VIDEO_SUFFIXES, NoVideo, check_animation, save_image, video_problem
from sdfgan.training.progress import progress

_VIDEOS = ("turntable", "orbit", "front")
_MAX_AT_ONCE = 2**27  # pixels of a sheet or frame, which is in memory as a whole: some gigabytes


@dataclass(frozen=True)
class RenderConfig(CameraFlags):
    """Render shapes of a trained generator: sheets, single pictures, videos; colours, depth or normals."""

    mode: Literal["grid", "seeds", "images", "turntable", "orbit", "front", "depth", "normals"] = "grid"
    """grid: one row per seed, seen from several sides. seeds: one picture of each. images: the same as files.
    Videos of all seeds: turntable goes round, or swings where the run has not learned from all round; orbit also goes
    up and down; front swings to both sides. depth, normals: a grid of these."""
    show: Literal["colour", "depth", "normals"] = "colour"
    """What is shown, in any mode but depth and normals."""
    resolution: int = 256
    """Side of each picture in pixels."""
    frames: int = 72
    """Frames of a video."""
    fps: int = 24
    """Frames per second of a video."""
    azimuth: float | None = None
    """Where the camera stands in modes seeds and images, and how far it swings in front, degrees. Default: 30; of a run
    that has not learned from all round the middle of its azimuths, and as far as they go."""
    views: int = 6
    """ViewRange from which each shape is seen in a grid."""
    output: Path | None = None
    """File to write: .png or .jpg; videos: .mp4, .gif or .webp. Default: renders/MODE.png (videos: .mp4; images: a
    folder) in the run folder, or MODE-2.png ..."""


def run(config: RenderConfig) -> None:
    """Write the pictures or video, and say where they are."""
    require_between(1, MAX_PIXELS, resolution=config.resolution)
    require_positive(frames=config.frames, fps=config.fps, views=config.views)
    require_between(-360, 360, azimuth=config.azimuth)
    if config.mode in ("depth", "normals") and config.show not in ("colour", config.mode):
        raise UserError(f"--mode {config.mode} shows {config.mode}, not --show {config.show}: leave one of them out")
    shapes = load_shapes(config)
    output = _output(config)
    count = len(shapes.seeds) * (config.views if config.mode in ("grid", "depth", "normals") else 1)
    if config.mode != "images" and count * config.resolution**2 > _MAX_AT_ONCE:
        most = math.isqrt(_MAX_AT_ONCE // count)
        raise UserError(f"--resolution: {count} pictures in one can have {most} px each, got {config.resolution}")
    viewer, sides = viewer_of(config, shapes.generator, shapes.config), sides_of(config, shapes.config)
    show: Show = config.mode if config.mode in ("depth", "normals") else config.show
    if config.mode in _VIDEOS:
        check_animation(output, config.frames * count * config.resolution**2)
        viewer.video(output, lambda frame: shapes.condition, _path(config, sides), config.resolution, config.fps, show)
    elif config.mode in ("seeds", "images"):
        _single(viewer, config, shapes, sides, show, output)
    else:
        _grid(viewer, config, shapes, sides, show, output)
    print(f"wrote {output}")


def _output(config: RenderConfig) -> Path:
    suffixes = VIDEO_SUFFIXES if config.mode in _VIDEOS else (".png", ".jpg")
    name = config.mode if config.mode == "images" else f"{config.mode}{suffixes[0]}"
    default = run_folder(config.run) / "renders" / name
    output = output_path(config.output, default, folder=config.mode == "images")
    if config.mode != "images" and output.suffix.lower() not in suffixes:
        raise UserError(f"--output: {config.mode} is written as {' or '.join(suffixes)}, got {output}")
    if config.mode in _VIDEOS and (problem := video_problem(output)) is not None:
        raise NoVideo(problem)
    return output


def _path(config: RenderConfig, sides: ViewRange) -> tuple[Tensor, Tensor]:
    if config.mode == "front":
        reach = sides.reach if config.azimuth is None else math.radians(config.azimuth)
        phase = 2 * math.pi * torch.arange(config.frames) / config.frames
        return torch.full_like(phase, sides.elevation), sides.front + reach * phase.sin()
    return sides.turntable(config.frames, swing=sides.swing if config.mode == "orbit" else 0.0)


def _single(
    viewer: ImageRenderer, config: RenderConfig, shapes: Shapes, sides: ViewRange, show: Show, output: Path
) -> None:
    azimuth = sides.slant if config.azimuth is None else math.radians(config.azimuth)
    axes = rotate_axes((torch.tensor([sides.elevation]), torch.tensor([azimuth]))).expand(len(shapes.seeds), 3, 3)
    with progress(len(axes), config.mode) as bar:
        if config.mode == "seeds":
            pictures = shown(viewer.look(shapes.condition, axes, config.resolution, bar.advance), show)
            save_image(output, sheet(pictures, math.ceil(math.sqrt(len(pictures))), show))
            return
        seeds = iter(shapes.seeds)
        for batch in viewer.batches(shapes.condition, axes, config.resolution, bar.advance):
            for picture in shown([batch], show, viewer.span):
                save_image(output / f"shape-{next(seeds)}.png", picture)


def _grid(
    viewer: ImageRenderer, config: RenderConfig, shapes: Shapes, sides: ViewRange, show: Show, output: Path
) -> None:
    wanted = viewer.views(shapes.condition, config.views, sides)
    with progress(len(wanted[1]), config.mode) as bar:
        renderings = viewer.look(*wanted, config.resolution, on_progress=bar.advance)
    save_image(output, sheet(shown(renderings, show), config.views, show))
