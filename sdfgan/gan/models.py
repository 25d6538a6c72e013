"""The generator as a user meets it: made from a configuration, loaded from a run, given latents by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sdfgan.cameras import PoseDistribution, camera_distance, pose_distribution
from sdfgan.errors import UserError
from sdfgan.fields import Field, FilmSirenSDF, MlpSDF, PiGanField
from sdfgan.fields.dfr import DfrSDF
from sdfgan.gan.config import GanConfig, ResolvedGanConfig
from sdfgan.gan.poses import PoseHistogram, PoseLearner
from sdfgan.ops import Mirror
from sdfgan.ops.film_siren import check_mirror
from sdfgan.training.checkpoint import Saved, read_checkpoint, unpack_module
from sdfgan.training.config import chosen, flag_of

# Of pi-GAN's volume: density of its surface, density of a raw 1, and how steep the ball is that it begins with.
_SURFACE_DENSITY, _DENSITY_GAIN, _DENSITY_PRIOR = 10.0, 10.0, 10.0
# What must agree where networks are taken from another run.
_OF_NETWORKS = (
    *("generator", "width", "trunk_layers", "sdf_layers", "texture_layers", "latent_size", "texture_latent_size"),
    *("mapping_width", "color_space", "shared_film", "octaves", "activation", "weight_norm"),
    *("channels", "discriminator", "discriminator_channels", "discriminator_max_channels"),
)


def make_generator(config: ResolvedGanConfig) -> Field:
    """An untrained generator of a resolved configuration; initialised from torch's global generator."""
    if config.generator == "dfr":
        sizes = chosen(config, "width latent_size mapping_width omega_first omega_hidden")
        return DfrSDF(**sizes, shared=config.shared_film)
    if config.generator == "pi-gan":
        return PiGanField(
            config.width,
            config.trunk_layers,
            config.latent_size,
            config.mapping_width,
            level=_SURFACE_DENSITY / _DENSITY_GAIN,
            gain=_DENSITY_GAIN,
            prior=_DENSITY_PRIOR,
            activation=config.activation,
            extent=1.0 if config.channels == 4 else _reach(config),  # photographs with a background fill the image
            near_far=config.near_far,
        )
    layers = chosen(config, "width trunk_layers sdf_layers texture_layers latent_size texture_latent_size")
    if config.generator == "mlp":
        return MlpSDF(**layers, **chosen(config, "octaves activation weight_norm"))
    sines = chosen(config, "mapping_width omega_first omega_hidden omega_texture color_space")
    return FilmSirenSDF(**layers, **sines)


def _reach(config: ResolvedGanConfig) -> float:
    """How far from the origin the rays of an image can ask a volume that fills it."""
    if config.near_far is None:
        return math.sqrt(3)
    distance = camera_distance(math.radians(config.fov))
    cosine = distance / math.sqrt(distance**2 + 2)  # between the rays of a corner and of the middle
    return distance * max(math.sqrt(1 + t * t - 2 * t * cosine) for t in config.near_far)


Weights = Literal["ema", "ema_slow", "raw"]


def load_generator(path: str | Path, weights: Weights = "ema") -> tuple[Field, ResolvedGanConfig]:
    """The averaged generator (EMA) of a run folder's latest checkpoint, or of a checkpoint folder; on the CPU.

    `weights` may be "ema_slow", the slower average, or "raw", what was last trained. Raises UserError for what is
    missing, damaged or of another kind.
    """
    saved = read_checkpoint(Path(path))
    config = config_of(saved)
    generator = make_generator(config)
    unpack_module(generator, saved.tensors, "generator" if weights == "raw" else weights, saved.folder)
    if isinstance(generator, PiGanField):
        generator.measure_slope()
    if isinstance(generator, FilmSirenSDF):
        generator.mirror = mirror_of(saved)
    return generator.eval().requires_grad_(False), config


def config_of(saved: Saved) -> ResolvedGanConfig:
    """The configuration in a checkpoint. Raises UserError if it is not one of a GAN."""
    kind, config = saved.state.get("kind"), saved.state.get("config")
    if kind != "gan" or not isinstance(config, dict):
        where = "; the videos and the mesh of a scene are in its run folder" * (kind == "nerf")
        found = json.dumps(kind)
        raise UserError(f"{saved.folder}: expected a checkpoint of train_gan.py, got one of kind {found}{where}")
    return GanConfig.from_json(config, saved.folder)


def mirror_of(saved: Saved) -> Mirror | None:
    """The plane about which the shapes of a checkpoint are alike, if there is one. Raises UserError if it is none."""
    values = saved.state.get("mirror")
    if values is None:
        return None
    mirror = Mirror(*values) if isinstance(values, list) and len(values) == 3 else values
    try:
        check_mirror(mirror)
    except ValueError as error:
        raise UserError(f"{saved.folder}: {error}") from error
    return mirror


def require_alike(config: ResolvedGanConfig, saved: Saved) -> None:
    """Raises UserError, naming the flag, where the networks of a checkpoint are not of these settings."""
    theirs = config_of(saved)
    for name in _OF_NETWORKS:
        there, here = getattr(theirs, name), getattr(config, name)
        if there != here:
            flag = flag_of(name)
            raise UserError(f"{saved.folder}: its networks are of {flag} {there}, expected {here}: give {flag} {there}")


def poses_of(config: ResolvedGanConfig) -> PoseDistribution:
    """The poses that a run learned from; of those of a data set, or that it learns, uniform ones in their ranges."""
    spans = [(math.radians(span[0]), math.radians(span[1])) for span in (config.elevation, config.azimuth)]
    return pose_distribution("uniform" if config.poses in ("data", "learned") else config.poses, *spans)


def learned_poses(config: ResolvedGanConfig, tensors: dict[str, Tensor], source: Path) -> PoseHistogram | None:
    """What a run with `--poses learned` has learned, from its checkpoint's tensors; None of other runs. UserError."""
    if config.poses != "learned":
        return None
    ranges = poses_of(config)
    return PoseLearner(ranges.elevation, ranges.azimuth).load(tensors, source)


def sample_latents(config: ResolvedGanConfig, seeds: Sequence[int], truncation: float = 1.0) -> Tensor:
    """Latents [len(seeds), L] from N(0, (truncation latent_std)^2), each from its own seed: the same in any company."""
    size = config.latent_size + config.texture_latent_size
    rows = [torch.randn(size, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return truncation * config.latent_std * torch.stack(rows)
