"""What all commands that look at a trained generator share: its flags, and how shapes come from seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
import tyro

from sdfgan.commands.arguments import parse_seeds
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.gan import codes
from sdfgan.gan.config import GanConfig
from sdfgan.gan.generator import load_generator, sample_latents
from sdfgan.training.device import resolve_device


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
    """The same in the space of the mapping network's outputs: 0 is the mean shape, 0.7 a usual choice."""
    weights: Literal["ema", "ema-slow", "raw"] = "ema"
    """Which generator: the moving average, the slower one, or what was last trained."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""


class Shapes(NamedTuple):
    """A generator, and the shapes that were asked for."""

    generator: Field
    config: GanConfig
    seeds: list[int]
    condition: Any  # one row per seed
    mean: Any  # of the conditions of many latents


@torch.no_grad()
def load_shapes(flags: ShapeFlags) -> Shapes:
    """The generator of a run, and the conditions of its seeds, truncated. Raises UserError."""
    seeds = parse_seeds(flags.seeds)
    for name in ("truncation", "psi"):
        if not math.isfinite(getattr(flags, name)):
            raise UserError(f"--{name} must be a number, got {getattr(flags, name)}")
    device = resolve_device(flags.device)
    weights = flags.weights.replace("-", "_")
    generator, config = load_generator(flags.run, weights)  # type: ignore[arg-type]
    generator = generator.to(device)
    condition = generator.condition(sample_latents(config, seeds, flags.truncation).to(device))
    mean = None
    if flags.psi != 1:
        mean = codes.cached_mean(flags.run, generator, config, weights)
        condition = codes.lerp(mean, condition, flags.psi)
    return Shapes(generator, config, seeds, condition, mean)
