"""What all commands that look at a trained generator share: flags, how shapes come from seeds, who looks at them."""

from __future__ import annotations

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro

from sdfgan import conditions
from sdfgan.cameras import PoseDistribution, pose_distribution
from sdfgan.commands.arguments import parse_seeds, require_between, require_positive
from sdfgan.errors import UserError
from sdfgan.fields import Field, PiGanField
from sdfgan.gan import truncation
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.generator import load_generator, sample_latents
from sdfgan.gan.views import ImageRenderer, ViewRange
from sdfgan.training.checkpoint import resolve_checkpoint
from sdfgan.training.device import resolve_device
from sdfgan.volume.sampling import Sampling

_MAX_SAMPLES = 4096


@dataclass(frozen=True)
class ShapeFlags:
    """Flags of every command that makes shapes of seeds."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folder (its newest checkpoint is used) or checkpoint folder."""
    seeds: tuple[str, ...] = ("0-7",)
    """Which shapes: numbers and ranges, such as 0,3,8-12 or 0 3 8-12."""
    truncation: float = 1.0
    """Scale of the latents: less than 1 gives more typical, less varied shapes."""
    psi: float = 1.0
    """The same in the space of the mapping network's outputs: 0 is the mean shape, 0.7 a usual choice. Of a run that
    learned several kinds of objects the mean lies between the kinds, and so do the shapes: 1 keeps them apart."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Which generator: the moving average, the slower one, or what was last trained."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


@dataclass(frozen=True, kw_only=True)
class VolumeFlags:
    """Flags of every command that makes pictures, for radiance fields (`--generator pi-gan`, imported pi-GANs)."""

    lock_view_dependence: bool = False
    """Colours of a radiance field as seen from the front, wherever the camera is."""
    samples: int = 48
    """Samples along each ray of a radiance field, and as many again where those found something."""
    ray_step_multiplier: float = 1.0
    """Multiplies --samples."""


@dataclass(frozen=True)
class CameraFlags(VolumeFlags, ShapeFlags):
    """Flags of commands that choose where the camera stands."""

    elevation: float | None = None
    """Height of the camera above the horizon, degrees. Default: the middle of those that the run learned from."""
    azimuth_range: tuple[float, float] | None = None
    """Azimuths in which cameras stay, degrees; 0 360: all round. Default: those that the run learned from."""


class Shapes(NamedTuple):
    """A generator, and the shapes that were asked for."""

    generator: Field
    config: ResolvedGanConfig
    seeds: list[int]
    condition: Any  # one row per seed
    mean: Any  # of the conditions of many latents


@torch.no_grad()
def load_shapes(flags: ShapeFlags) -> Shapes:
    """The generator of a run, and the conditions of its seeds, truncated. Raises UserError."""
    seeds = parse_seeds(flags.seeds)
    require_between(-10, 10, truncation=flags.truncation, psi=flags.psi)
    device = resolve_device(flags.device)
    weights = flags.weights.replace("-", "_")
    checkpoint = resolve_checkpoint(flags.run)  # once: a run that goes on has a newer one at any moment
    generator, config = load_generator(checkpoint, weights)  # type: ignore[arg-type]
    generator = generator.to(device)
    condition = generator.condition(sample_latents(config, seeds, flags.truncation).to(device))
    mean = None
    if flags.psi != 1:
        mean = truncation.cached_mean(checkpoint, generator, config, weights)
        condition = conditions.lerp(mean, condition, flags.psi)
    return Shapes(generator, config, seeds, condition, mean)


def poses_of(config: ResolvedGanConfig) -> PoseDistribution:
    """The poses that a run learned from; of those of a data set their ranges are known as far as they were given."""
    spans = [(math.radians(span[0]), math.radians(span[1])) for span in (config.elevation, config.azimuth)]
    return pose_distribution("uniform" if config.poses == "data" else config.poses, *spans)


def sides_of(flags: CameraFlags, config: ResolvedGanConfig) -> ViewRange:
    """From where a run's shapes are looked at. Raises UserError for angles that are none."""
    elevation, azimuths = flags.elevation, flags.azimuth_range
    require_between(-90, 90, elevation=elevation)
    if azimuths is not None and not (-math.inf < azimuths[0] <= azimuths[1] < math.inf):
        raise UserError(f"--azimuth-range must be LOW HIGH, low <= high, got {azimuths[0]} {azimuths[1]}")
    if azimuths is not None:
        config = dataclasses.replace(config, azimuth=azimuths)
    sides = ViewRange.of(poses_of(config))
    return sides if elevation is None else dataclasses.replace(sides, elevation=math.radians(elevation))


def viewer_of(flags: VolumeFlags, generator: Field, config: ResolvedGanConfig) -> ImageRenderer:
    """Who looks at shapes as the flags say; says which of them mean nothing for a surface. Raises UserError."""
    require_positive(samples=flags.samples, ray_step_multiplier=flags.ray_step_multiplier)
    samples = flags.samples * flags.ray_step_multiplier
    if samples > _MAX_SAMPLES:
        raise UserError(f"--samples: at most {_MAX_SAMPLES} along a ray, got {samples:g}")
    fov = math.radians(config.fov)
    if isinstance(generator, PiGanField):
        generator.view_locked = flags.lock_view_dependence
        count = max(1, round(samples))
        return ImageRenderer(generator, fov, sampling=Sampling((count, count), merge=True))
    for field in dataclasses.fields(VolumeFlags):
        if getattr(flags, field.name) != field.default:
            name = field.name.replace("_", "-")
            reason = "rays march until they hit, and colours do not depend on the direction of view"
            print(f"--{name} means nothing for a surface: {reason}", file=sys.stderr)
    return ImageRenderer(generator, fov)
