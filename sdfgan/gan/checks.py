"""What settings of a GAN run must be, by themselves and together."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sdfgan.cameras import POSE_DISTRIBUTIONS
from sdfgan.checks import check_cells
from sdfgan.data.images import check_background
from sdfgan.errors import UserError
from sdfgan.inception import FEWEST_PICTURES
from sdfgan.training.settings import check_sizes

if TYPE_CHECKING:
    from sdfgan.gan.config import GanConfig

_POSITIVE = """steps batch_size dataset_size chunk_size march_steps latent_size width trunk_layers sdf_layers
    texture_layers mapping_width discriminator_channels discriminator_most_channels discriminator_steps r1_interval
    sample_interval checkpoint_interval view_resolution octaves ada_pictures omega_first omega_hidden
    omega_texture gradient_clip gradient_clip_discriminator"""
_NOT_NEGATIVE = """texture_latent_size r1_gamma eikonal_weight eikonal_points evaluate_images evaluate_interval
    evaluate_shapes seed lr_generator lr_discriminator video_frames fade_steps gradient_penalty top_k_interval
    latent_weight mapping_rate pose_weight back_face_weight instance_noise instance_noise_steps blur blur_steps
    latent_std eikonal_final"""
_FRACTIONS = "decay_start ema_decay ema_decay_slow beta1 beta2 ada_target top_k_floor"
_MOST = {
    "resolution": 1024, "view_resolution": 1024, "width": 4096, "mapping_width": 4096,
    "latent_size": 4096, "texture_latent_size": 4096, "trunk_layers": 64, "sdf_layers": 64, "texture_layers": 64,
    "octaves": 32, "discriminator_channels": 4096, "discriminator_most_channels": 4096, "seed": 2**63 - 1,
}  # fmt: skip


def check_settings(config: GanConfig) -> None:
    """Raises UserError for settings, those of one stage, that make no sense."""
    assert config.resolution is not None and config.batch_size is not None and config.chunk_size is not None
    if config.resolution < 16 or config.resolution & (config.resolution - 1):
        raise UserError(f"--resolution must be a power of two from 16, got {config.resolution}")
    _check_numbers(config)
    check_background(config.background)
    check_cells("--mesh-resolution", config.mesh_resolution)
    for name, limit in (("elevation", 90.0), ("azimuth", math.inf)):
        low, high = getattr(config, name)
        if not -limit <= low <= high <= limit:
            within = " within -90 and 90" if limit == 90 else ""
            raise UserError(f"--{name} must be LOW HIGH in degrees{within}, got {low:g} {high:g}")
    if config.batch_size % config.chunk_size:
        raise UserError(
            f"--batch-size must be a multiple of --chunk-size, got {config.batch_size} and {config.chunk_size}"
        )
    if config.chunk_size == 1 and config.discriminator in ("small", "stylegan2"):
        raise UserError(
            f"--chunk-size must be at least 2 with --discriminator {config.discriminator}, which compares the "
            f"pictures of a chunk (a divisor of --batch-size, {config.batch_size}); got 1"
        )
    if config.evaluate_shapes and config.data is not None:
        raise UserError("--evaluate-shapes compares with the solids of the built-in set: not for --data")
    if config.inception is not None and 0 < config.evaluate_images < FEWEST_PICTURES:
        raise UserError(f"--inception: FID needs --evaluate-images {FEWEST_PICTURES}, got {config.evaluate_images}")
    if config.poses not in (*POSE_DISTRIBUTIONS, "data"):
        raise UserError(f"--poses must be one of {', '.join(POSE_DISTRIBUTIONS)}, data; got {config.poses!r}")
    if config.near_far is not None and not 0 <= config.near_far[0] < config.near_far[1]:
        raise UserError(f"--near-far must be NEAR FAR with 0 <= NEAR < FAR, got {config.near_far}")
    if not 1 <= config.fov <= 150:
        raise UserError(f"--fov must be between 1 and 150 degrees, got {config.fov}")
    if config.ada_target and config.gan_loss not in ("logistic", "hinge"):
        raise UserError(f"--ada-target needs logits with a sign: --gan-loss logistic or hinge, not {config.gan_loss}")
    if config.resume is not None and config.load_dir is not None:
        raise UserError("--resume and --load-dir exclude each other: continue a run, or start a new one from it")
    _check_generator(config)


def _check_numbers(config: GanConfig) -> None:
    check_sizes(config)
    for names, fits, words in (
        (_POSITIVE, lambda x: x > 0, "must be positive"),
        (_NOT_NEGATIVE, lambda x: x >= 0, "must not be negative"),
        (_FRACTIONS, lambda x: 0 <= x <= 1, "must be between 0 and 1"),
    ):
        for name in names.split():
            value = getattr(config, name)
            if value is not None and not fits(value):
                raise UserError(f"{_flag(name)} {words}, got {value}")
    for name, most in _MOST.items():
        if getattr(config, name) > most:
            raise UserError(f"{_flag(name)} must be at most {most}, got {getattr(config, name)}")


def _check_generator(config: GanConfig) -> None:
    if config.generator != "film-siren" and config.color_space != "rgb":
        raise UserError(f"--color-space hsv is for --generator film-siren, got {config.generator}")
    if config.generator == "dfr" and config.texture_latent_size:
        raise UserError("--texture-latent-size: the dfr generator has one latent")
    if config.light != "headlight" and (config.renderer == "dfr" or config.generator == "pi-gan"):
        raise UserError(f"--light {config.light} is for surfaces and our renderer: not for dfr's, nor for pi-gan")
    if config.generator != "pi-gan":
        return
    for name in ("texture_latent_size", "eikonal_weight", "back_face_weight"):
        if getattr(config, name):
            raise UserError(f"{_flag(name)} must be 0: --generator pi-gan has no surface to apply it to")
    if config.renderer != "sdfgan":
        raise UserError(f"--renderer {config.renderer} is for surfaces: not for --generator pi-gan")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
