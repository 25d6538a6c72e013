"""What all commands of a trained generator share: flags, how shapes come from seeds, how they are rendered."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any, NamedTuple

import torch

from sdfgan import conditions
from sdfgan.cameras import DEFAULT_FOV
from sdfgan.cli.arguments import parse_seeds
from sdfgan.cli.flags import CameraFlags, MixFlags, ShapeFlags, VolumeFlags
from sdfgan.errors import UserError
from sdfgan.fields import Field, FilmSirenSDF, MlpSDF, PiGanField
from sdfgan.gan import truncation
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.models import load_generator, poses_of, sample_latents
from sdfgan.gan.views import ImageRenderer, ViewRange
from sdfgan.training.checkpoint import resolve_checkpoint
from sdfgan.training.config import flag_of
from sdfgan.training.device import resolve_device
from sdfgan.volume.sampling import Sampling

_MAX_SAMPLES = 4096
_ELEVATION = 20.0  # degrees, of cameras around one shape


class Shapes(NamedTuple):
    """A generator, and the shapes that were asked for."""

    generator: Field
    config: ResolvedGanConfig
    seeds: list[int]
    condition: Any  # one row per seed
    mean: Any  # of the conditions of many latents
    texture_seeds: list[int]
    colours: Any  # the conditions of these


@torch.no_grad()
def load_shapes(flags: ShapeFlags) -> Shapes:
    """The generator of a run, and the conditions of its seeds, truncated. Raises UserError."""
    seeds = parse_seeds(flags.seeds)
    textures = flags.texture_seeds if isinstance(flags, MixFlags) else ()
    colours = parse_seeds(textures, "--texture-seeds") if textures else []
    device = resolve_device(flags.device)
    weights = flags.weights.replace("-", "_")
    checkpoint = resolve_checkpoint(flags.run)  # once: a run that goes on has a newer one at any moment
    generator, config = load_generator(checkpoint, weights)  # type: ignore[arg-type]
    generator = generator.to(device)
    condition = generator.condition(sample_latents(config, [*seeds, *colours], flags.truncation).to(device))
    mean = None
    if flags.psi != 1:
        mean = truncation.cached_mean(checkpoint, generator, config, weights)
        condition = conditions.lerp(mean, condition, flags.psi)
    own, others = (conditions.rows(condition, part) for part in (slice(len(seeds)), slice(len(seeds), None)))
    return Shapes(generator, config, seeds, own, mean, colours, others)


def with_colours(shapes: Shapes) -> Any:
    """The condition of each shape with the colours of the texture seed that belongs to it. Raises UserError."""
    asked, given = len(shapes.seeds), len(shapes.texture_seeds)
    if given not in (0, 1, asked):
        raise UserError(f"--texture-seeds: one for all of the {asked} shapes or one for each, got {given}")
    if not given:
        return shapes.condition
    index = torch.arange(asked) % given
    return mixed(shapes.generator, shapes.condition, conditions.rows(shapes.colours, index))


def mixed(generator: Field, shapes: Any, colours: Any) -> Any:
    """The shapes of one condition with the colours of another. Raises UserError for a generator that has no layers of
    colour alone."""
    if not isinstance(generator, FilmSirenSDF | MlpSDF):
        kinds = "the generators film-siren and mlp have layers of colour alone"
        raise UserError(f"colours cannot be exchanged: {kinds}, {type(generator).__name__} does not")
    return generator.mixed(shapes, colours)


def view_range_of(flags: CameraFlags, config: ResolvedGanConfig | None) -> ViewRange:
    """From where a run's shapes are looked at. Raises UserError for invalid angles."""
    elevation, azimuths = flags.elevation, flags.azimuth_range
    if config is None:
        low, high = map(math.radians, azimuths or (0, 360))
        view_range = ViewRange(math.radians(_ELEVATION), (low, high))
    else:
        if azimuths is not None:
            config = dataclasses.replace(config, azimuth=azimuths)
        view_range = ViewRange.of(poses_of(config))
    return view_range if elevation is None else dataclasses.replace(view_range, elevation=math.radians(elevation))


def renderer_of(flags: VolumeFlags, generator: Field, config: ResolvedGanConfig | None) -> ImageRenderer:
    """What renders shapes as the flags say; prints which of them mean nothing for a surface. Raises UserError."""
    samples = flags.samples * flags.ray_step_multiplier
    if samples > _MAX_SAMPLES:
        raise UserError(f"--samples: at most {_MAX_SAMPLES} along a ray, got {samples:g}")
    fov = DEFAULT_FOV if config is None else math.radians(config.fov)
    if isinstance(generator, PiGanField):
        generator.view_locked = flags.lock_view_dependence
        count = max(1, round(samples))
        return ImageRenderer(generator, fov, sampling=Sampling((count, count), merge=True))
    for field in dataclasses.fields(VolumeFlags):
        if getattr(flags, field.name) != field.default:
            reason = "rays are traced until they hit, and colours do not depend on the viewing direction"
            print(f"{flag_of(field.name)} has no effect on a surface: {reason}", file=sys.stderr)
    return ImageRenderer(generator, fov)
