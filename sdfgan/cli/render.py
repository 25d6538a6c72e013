"""`sdfgan render`: images and videos of what a run has learned: a generator's shapes, one shape, or a scene."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdfgan import conditions
from sdfgan.cameras import rotate_axes
from sdfgan.cli.arguments import output_path, run_folder
from sdfgan.cli.flags import RenderConfig
from sdfgan.cli.shapes import Shapes, load_shapes, mixed, renderer_of, view_range_of, with_colours
from sdfgan.cli.single import SceneRun, load_solid, refuse, run_kind
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.gan.views import ImageRenderer, ViewRange, sheet, shown
from sdfgan.images import VIDEO_SUFFIXES, check_animation, require_video, save_image
from sdfgan.training.progress import progress

_VIDEOS = ("turntable", "orbit", "front")
_MAX_AT_ONCE = 2**27  # pixels of a sheet or frame, which is in memory as a whole: some gigabytes


def run(config: RenderConfig) -> None:
    """Write the images or video, and say where they are."""
    kind = run_kind(config.run)
    if kind == "gan":
        refuse(config, "train-gan", "data")
    elif config.mode == "mix":
        raise UserError(
            f"--mode mix: {config.run} has one {'scene' if kind == 'nerf' else 'shape'}, and no other colours"
        )
    scene = SceneRun.load(config) if kind == "nerf" else None
    shapes = load_shapes(config) if kind == "gan" else None
    output = _output(config)
    count = (1 if shapes is None else len(shapes.seeds)) * (config.views if config.mode == "grid" else 1)
    if shapes is not None and config.mode == "mix":
        count = (1 + len(shapes.seeds)) * (1 + len(shapes.texture_seeds or shapes.seeds))
    if config.mode != "images" and count * config.resolution**2 > _MAX_AT_ONCE:
        most = math.isqrt(_MAX_AT_ONCE // count)
        raise UserError(f"--resolution: {count} images in one can have {most} px each, got {config.resolution}")
    if config.mode in _VIDEOS:
        check_animation(output, config.frames * count * config.resolution**2)
    if scene is not None:
        scene.render(config, config.frames if config.mode in _VIDEOS else None, output)
        print(f"wrote {output}")
        return
    generator, trained, seeds, condition = shapes[:4] if shapes else _solid(config)
    renderer, view_range = renderer_of(config, generator, trained), view_range_of(config, trained)
    if shapes is not None and config.mode == "mix":
        _mix(renderer, config, shapes, view_range, output)
        print(f"wrote {output}")
        return
    if shapes is not None:
        condition = with_colours(shapes)
    if config.mode in _VIDEOS:
        renderer.video(
            output, lambda frame: condition, camera_path(config, view_range), config.resolution, config.fps, config.show
        )
    elif config.mode in ("seeds", "images"):
        _single(renderer, config, seeds, condition, view_range, output)
    else:
        _grid(renderer, config, condition, view_range, output)
    print(f"wrote {output}")


def _solid(config: RenderConfig) -> tuple[Field, None, list[int], Any]:
    """The one shape of a run of train-sdf, as if it were that of seed 0."""
    field = load_solid(config)
    shown = field.shell() if field.unsigned else field
    return shown, None, [0], shown.condition(None)


def _output(config: RenderConfig) -> Path:
    suffixes = VIDEO_SUFFIXES if config.mode in _VIDEOS else (".png", ".jpg")
    name = config.mode if config.mode == "images" else f"{config.mode}{suffixes[0]}"
    default = run_folder(config.run) / "renders" / name
    output = output_path(config.output, default, folder=config.mode == "images")
    if config.mode != "images" and output.suffix.lower() not in suffixes:
        raise UserError(f"--output: {config.mode} is written as {' or '.join(suffixes)}, got {output}")
    if config.mode in _VIDEOS:
        require_video(output)
    return output


def camera_path(config: RenderConfig, view_range: ViewRange) -> tuple[Tensor, Tensor]:
    if config.mode == "front":
        reach = view_range.reach if config.azimuth is None else math.radians(config.azimuth)
        phase = 2 * math.pi * torch.arange(config.frames) / config.frames
        return torch.full_like(phase, view_range.elevation), view_range.front + reach * phase.sin()
    return view_range.turntable(config.frames, swing=view_range.swing if config.mode == "orbit" else 0.0)


def _mix(renderer: ImageRenderer, config: RenderConfig, shapes: Shapes, view_range: ViewRange, output: Path) -> None:
    """A table: the shapes of its rows with the colours of its columns; those that they are of come first."""
    colours = shapes.colours if shapes.texture_seeds else shapes.condition
    both, rows = conditions.cat([shapes.condition, colours]), torch.arange(len(shapes.seeds))
    columns = len(rows) + torch.arange(conditions.count(colours))
    table = torch.cartesian_prod(rows, torch.cat([rows[:1], columns])).view(len(rows), -1, 2)
    table[:, 0, 1] = rows  # in its own colours
    shape, colour = torch.cat([torch.stack([columns, columns], 1), table.flatten(0, 1)]).unbind(1)
    condition = mixed(shapes.generator, conditions.rows(both, shape), conditions.rows(both, colour))
    images = _images(renderer, config, condition, view_range)
    corner = torch.full_like(images[:1], 1.0 if config.show == "colour" else 0.0)
    save_image(output, sheet(torch.cat([corner, images]), 1 + len(columns), config.show))


def _axes(config: RenderConfig, view_range: ViewRange, count: int) -> Tensor:
    """[count, 3, 3]: the one side that images of modes seeds, images and mix show."""
    azimuth = view_range.slant if config.azimuth is None else math.radians(config.azimuth)
    return rotate_axes((torch.tensor([view_range.elevation]), torch.tensor([azimuth]))).expand(count, 3, 3)


def _images(renderer: ImageRenderer, config: RenderConfig, condition: Any, view_range: ViewRange) -> Tensor:
    """[N, 3, R, R]: one of each shape."""
    axes = _axes(config, view_range, conditions.count(condition))
    with progress(len(axes), config.mode) as bar:
        return shown(renderer.look(condition, axes, config.resolution, bar.advance), config.show)


def _single(
    renderer: ImageRenderer,
    config: RenderConfig,
    seeds: list[int],
    condition: Any,
    view_range: ViewRange,
    output: Path,
) -> None:
    if config.mode == "seeds":
        images = _images(renderer, config, condition, view_range)
        save_image(output, sheet(images, math.ceil(math.sqrt(len(images))), config.show))
        return
    axes, names = _axes(config, view_range, len(seeds)), iter(seeds)
    with progress(len(axes), config.mode) as bar:
        for batch in renderer.batches(condition, axes, config.resolution, bar.advance):
            for image in shown([batch], config.show, renderer.span):
                save_image(output / f"shape-{next(names)}.png", image)


def _grid(renderer: ImageRenderer, config: RenderConfig, condition: Any, view_range: ViewRange, output: Path) -> None:
    wanted = renderer.views(condition, config.views, view_range)
    with progress(len(wanted[1]), config.mode) as bar:
        renderings = renderer.look(*wanted, config.resolution, on_progress=bar.advance)
    save_image(output, sheet(shown(renderings, config.show), config.views, config.show))
