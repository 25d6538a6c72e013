"""`sdfgan interpolate`: a video in which one shape becomes the next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sdfgan import conditions
from sdfgan.cameras import orbit_path
from sdfgan.commands.arguments import MAX_PIXELS, output_path, require_between, require_positive, run_folder
from sdfgan.commands.shapes import CameraFlags, load_shapes, sides_of, viewer_of
from sdfgan.errors import UserError
from sdfgan.gan.generator import sample_latents
from sdfgan.gan.views import Show
from sdfgan.images import VIDEO_SUFFIXES, NoVideo, check_animation, video_problem


@dataclass(frozen=True)
class InterpolateConfig(CameraFlags):
    """Make a video that goes from shape to shape and back to the first."""

    seeds: tuple[str, ...] = ("0-3",)
    """The shapes to go through: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    space: Literal["w", "z"] = "w"
    """Where to go straight: w, the mapping network's outputs (FiLM codes); z, the latents, along great circles."""
    frames: int = 24
    """Frames from one shape to the next."""
    fps: int = 24
    """Frames per second."""
    turns: float | None = None
    """How often the camera goes round in all; 0: it stands still. Default: once, or within the azimuths of a run that
    has not learned from all round."""
    azimuth: float | None = None
    """Where the camera starts, degrees. Default: 30; of a run that has not learned from all round the middle."""
    show: Literal["colour", "depth", "normals"] = "colour"
    """What is shown."""
    resolution: int = 256
    """Side of the video in pixels."""
    output: Path | None = None
    """File to write: .mp4, .gif or .webp. Default: renders/interpolation.mp4 in the run folder, or
    interpolation-2.mp4 ..."""


def run(config: InterpolateConfig) -> None:
    """Write the video, and say where it is."""
    require_between(1, MAX_PIXELS, resolution=config.resolution)
    require_positive(frames=config.frames, fps=config.fps)
    require_between(-360, 360, azimuth=config.azimuth)
    require_between(-1000, 1000, turns=config.turns)
    shapes = load_shapes(config)
    output = output_path(config.output, run_folder(config.run) / "renders" / "interpolation.mp4")
    if output.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"--output: a video is written as {' or '.join(VIDEO_SUFFIXES)}, got {output}")
    if (problem := video_problem(output)) is not None:
        raise NoVideo(problem)
    if len(shapes.seeds) < 2:
        raise UserError(f"--seeds: at least two shapes are needed to go from one to the next, got {len(shapes.seeds)}")
    device = next(shapes.generator.parameters()).device
    latents = sample_latents(shapes.config, shapes.seeds, config.truncation).to(device)
    total = len(shapes.seeds) * config.frames
    check_animation(output, total * config.resolution**2)

    @torch.no_grad()
    def condition_at(frame: int) -> Any:
        index, share = frame // config.frames, frame % config.frames / config.frames
        ends = [index, (index + 1) % len(shapes.seeds)]
        if config.space == "w":
            a, b = (conditions.rows(shapes.condition, slice(end, end + 1)) for end in ends)
            return conditions.lerp(a, b, share)
        a, b = (latents[end : end + 1] for end in ends)
        condition = shapes.generator.condition(slerp(a, b, share))
        return condition if shapes.mean is None else conditions.lerp(shapes.mean, condition, config.psi)

    sides = sides_of(config, shapes.config)
    start = sides.slant if config.azimuth is None else math.radians(config.azimuth)
    if config.turns is None:
        path = sides.turntable(total, start)
    else:
        path = orbit_path(total, sides.elevation, start=start, turns=config.turns)
    viewer = viewer_of(config, shapes.generator, shapes.config)
    show: Show = config.show
    viewer.video(output, condition_at, path, config.resolution, config.fps, show)
    print(f"wrote {output}")


def slerp(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """Rows [B, L] between a and b: norms linearly, directions along the great circle."""
    norms = [x.norm(dim=1, keepdim=True).clamp(min=1e-8) for x in (a, b)]
    first, second = a / norms[0], b / norms[1]
    angle = (first * second).sum(1, keepdim=True).clamp(-1 + 1e-7, 1 - 1e-7).acos()
    mixed = (((1 - share) * angle).sin() * first + (share * angle).sin() * second) / angle.sin()
    return mixed * torch.lerp(norms[0], norms[1], share)
