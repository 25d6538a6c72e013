"""`sdfgan interpolate`: a video in which one shape becomes the next."""

from __future__ import annotations

import math
from typing import Any

import torch

from sdfgan import conditions
from sdfgan.cameras import orbit_path
from sdfgan.cli.arguments import output_path, run_folder
from sdfgan.cli.flags import InterpolateConfig
from sdfgan.cli.shapes import load_shapes, renderer_of, view_range_of
from sdfgan.errors import UserError
from sdfgan.gan.models import sample_latents
from sdfgan.images import VIDEO_SUFFIXES, check_animation, require_video


def run(config: InterpolateConfig) -> None:
    """Write the video, and say where it is."""
    shapes = load_shapes(config)
    output = output_path(config.output, run_folder(config.run) / "renders" / "interpolation.mp4")
    if output.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(f"--output: a video is written as {' or '.join(VIDEO_SUFFIXES)}, got {output}")
    require_video(output)
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

    view_range = view_range_of(config, shapes.config)
    start = view_range.slant if config.azimuth is None else math.radians(config.azimuth)
    if config.turns is None:
        path = view_range.turntable(total, start)
    else:
        path = orbit_path(total, view_range.elevation, start=start, turns=config.turns)
    renderer = renderer_of(config, shapes.generator, shapes.config)
    renderer.video(output, condition_at, path, config.resolution, config.fps, config.show)
    print(f"wrote {output}")


def slerp(a: torch.Tensor, b: torch.Tensor, share: float) -> torch.Tensor:
    """Rows [B, L] between a and b: norms linearly, directions along the great circle."""
    norms = [x.norm(dim=1, keepdim=True).clamp(min=1e-8) for x in (a, b)]
    first, second = a / norms[0], b / norms[1]
    angle = (first * second).sum(1, keepdim=True).clamp(-1 + 1e-7, 1 - 1e-7).acos()
    mixed = (((1 - share) * angle).sin() * first + (share * angle).sin() * second) / angle.sin()
    return mixed * torch.lerp(norms[0], norms[1], share)
