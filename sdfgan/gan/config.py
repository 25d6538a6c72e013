"""What can be set about a GAN run: the fields here are the flags of `train_gan.py` and the keys of `config.json`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from sdfgan.cameras import POSE_DISTRIBUTIONS
from sdfgan.checks import check_cells
from sdfgan.data.images import check_background
from sdfgan.errors import UserError
from sdfgan.gan.curricula import Stage, check_stages, load_curriculum
from sdfgan.gan.discriminators import DISCRIMINATORS
from sdfgan.gan.losses import ADVERSARIAL_LOSSES
from sdfgan.images import VideoFormat
from sdfgan.inception import MIN_IMAGES
from sdfgan.training.device import resolve_device
from sdfgan.training.settings import check_sizes, typed_values


@dataclass(frozen=True)
class GanConfig:
    """Train a GAN whose generator is a signed-distance field, from pictures alone.

    Where a CPU and a GPU have different defaults, the device decides: small on a CPU (about nine minutes on two
    cores), larger on a GPU.
    """

    output_dir: Path | None = None
    """Folder of the run; runs/gan-001, -002 ... if not given."""
    curriculum: str | None = None
    """Settings by name (celeba, carla, cats, dfr, growing) or from a JSON file. Flags that are given go before its
    settings; what its stages change cannot be given."""
    stages: tyro.conf.Suppress[tuple[Stage, ...]] = ()
    """What changes at which step; it comes from the curriculum."""

    data: Path | None = None
    """Folder, zip or WebDataset shards (.tar) of pictures. Without it: the built-in set of coloured solids."""
    data_layout: Literal["auto", "plain", "shapenet", "celeba", "cats", "carla"] = "auto"
    """How the pictures are laid out, cropped and flipped. auto: ShapeNet renderings are recognised, else plain."""
    data_cache: Literal["auto", "memory", "none"] = "auto"
    """Where decoded pictures are kept. none: they are read again each time. auto: in memory while they fit."""
    label: int | None = None
    """Learn only from pictures with this label (of a data set with labels)."""
    channels: Literal[3, 4] = 4
    """What the discriminator sees: RGBA, or RGB on black (for photographs without a silhouette)."""
    background: tuple[float, float, float] | None = None
    """Plain background colour (RGB in 0..1) of pictures without alpha: it becomes transparent."""
    resume: Path | None = None
    """Continue a run exactly: its folder, or one of its checkpoints. Other settings come from the run; --data says
    where its pictures are if they have moved."""
    load_dir: Path | None = None
    """Start a new run from the networks of another run or checkpoint."""
    dry_run: bool = False
    """Set everything up, say what would be done, and stop. No run is written; the built-in pictures are made and
    cached."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Arithmetic of the discriminator. Default: bf16 on GPUs that have it. The field is in fp32, except that a GPU may
    march, which has no gradient, with fp16 matrices."""
    deterministic: bool = False
    """The same numbers from the same seed on a GPU too, where torch can; slower. A CPU always gives them."""
    seed: int = 0
    """Seed of everything random: the same seed gives the same run on a CPU, whatever its number of threads."""

    steps: int | None = None
    """Training steps (one update of each network). Default: 2800 on a CPU, 20000 on a GPU."""
    batch_size: int | None = None
    """Pictures per step. Default: 16 on a CPU, 32 on a GPU."""
    resolution: int | None = None
    """Side of the training pictures, a power of two from 16. Default: 32 on a CPU, 64 on a GPU."""
    dataset_size: int | None = None
    """Pictures of the built-in set to train on. Default: 8192 on a CPU, 32768 on a GPU."""
    chunk_size: int | None = None
    """Most pictures that are processed together (gradients of chunks are averaged). Default: 8; on a GPU all, except
    for pi-gan."""
    cuda_graphs: bool = True
    """On a GPU, replay the discriminator's part of a step from CUDA graphs: the same numbers, with fewer launches."""
    recompute: bool = False
    """Render twice rather than keep the graph of all chunks: memory is that of one chunk."""

    fov: float = 25.0
    """Field of view, degrees."""
    poses: str = "uniform"
    """Distribution of camera poses: uniform, gaussian, truncated_gaussian, spherical_uniform, hybrid, fixed; or data,
    which are the poses of the pictures where the data set has them."""
    elevation: tuple[float, float] = (10.0, 30.0)
    """Range of elevations, degrees."""
    azimuth: tuple[float, float] = (0.0, 360.0)
    """Range of azimuths, degrees."""
    mirror: bool = True
    """Flip real pictures left to right at random. Turn it off for things with a left and a right."""
    march_steps: int = 24
    """Most evaluations of the field per ray in training; of pi-gan as many again, which the first ones place."""
    near_far: tuple[float, float] | None = None
    """Where rays ask a pi-gan, in distances of the camera from the origin. Default: in the ball around the object."""

    renderer: Literal["sdfgan", "dfr"] = "sdfgan"
    """dfr: the older project's renderer, for comparison."""
    light: Literal["headlight", "random"] = "headlight"
    """random: a light from the viewer's side for each picture, and ambient light; for pictures whose light differs."""
    generator: Literal["film-siren", "mlp", "dfr", "pi-gan"] = "film-siren"
    """The field: sine layers modulated by the latent, or an MLP of encoded points. dfr is that of the older project,
    pi-gan is a radiance field, rendered as a volume: trunk_layers are those before the density; no eikonal term."""
    latent_size: int = 64
    """Length of the latent."""
    latent_std: float = 1.0
    """Standard deviation of the latent."""
    texture_latent_size: int = 0
    """Length of a second latent that drives the texture alone; 0: one latent drives shape and texture."""
    width: int | None = None
    """Units per layer of the field. Default: 64 on a CPU, 128 on a GPU."""
    trunk_layers: int | None = None
    """Sine layers shared by shape and texture. Default: 3; 8 for pi-gan."""
    sdf_layers: int = 1
    """Sine layers of the shape branch."""
    texture_layers: int = 1
    """Sine layers of the texture branch."""
    mapping_width: int = 128
    """Units per layer of the mapping network."""
    omega_first: float = 5.0
    """Frequency of the first sine layer."""
    omega_hidden: float = 10.0
    """Frequency of the other sine layers of shape. Higher carves finer detail, and ripples."""
    omega_texture: float = 3.0
    """Frequency of the texture layers. Higher paints finer patterns."""
    color_space: Literal["rgb", "hsv"] = "rgb"
    """What the texture branch puts out."""
    shared_film: bool = False
    """One modulation for all layers of the dfr generator, as its earlier versions had."""
    octaves: int = 5
    """Frequencies of the positional encoding of the mlp."""
    activation: Literal["softplus", "relu"] = "softplus"
    """Non-linearity of the mlp, or of the density of pi-gan."""
    weight_norm: bool = False
    """Weight normalisation in the mlp."""
    discriminator: Literal["small", "residual", "progressive", "strided", "stylegan2"] = "small"
    """small: the fastest; residual: dfr's; progressive, strided: pi-GAN's, which can grow; stylegan2."""
    discriminator_channels: int = 32
    """Channels of the discriminator's first layer; they double with each halving of the picture."""
    discriminator_most_channels: int = 512
    """Most channels of a layer of the discriminator."""
    fade_steps: int = 0
    """Steps over which a new resolution of a curriculum fades in."""

    lr_generator: float = 5e-4
    """Adam's learning rate of the generator. Above about 7e-4 surfaces crumple."""
    lr_discriminator: float = 5e-4
    """Adam's learning rate of the discriminator."""
    mapping_rate: float = 1.0
    """Learning rate of the mapping network as a share of the generator's. pi-GAN meant 0.05, but did not apply it."""
    beta1: float = 0.0
    """Adam's first-moment decay."""
    beta2: float = 0.99
    """Adam's second-moment decay."""
    decay_start: float = 0.5
    """Fraction of the steps after which learning rates fall, linearly to 5%."""
    gan_loss: Literal["logistic", "hinge", "wgan-gp", "wgan-sn", "sphere"] = "logistic"
    """What the two networks play for."""
    discriminator_steps: int = 1
    """Updates of the discriminator for each of the generator's."""
    r1_gamma: float | None = None
    """Weight of R1, the penalty on the discriminator's gradient. 1 or less lets surfaces ripple. Default: 5 for
    logistic and hinge, 0 for the others."""
    r1_interval: int = 8
    """R1 every so many steps (and as many times stronger)."""
    r1_of: Literal["logit", "probability"] = "logit"
    """What R1 takes the gradient of. probability: as dfr did."""
    gradient_penalty: float = 10.0
    """Weight of wgan-gp's penalty."""
    top_k_interval: int = 0
    """Steps in which the share of fakes that the generator learns from falls by 1%; 0: it learns from all."""
    top_k_floor: float = 0.6
    """The share at which that ends."""
    latent_weight: float = 0.0
    """Weight of the identity loss: the discriminator guesses a fake's latent, for both networks' good."""
    pose_weight: float = 0.0
    """The same for the direction from which a fake is seen; keeps shapes in one canonical pose."""
    back_face_weight: float = 0.0
    """Weight of the penalty on visible normals that face away."""
    eikonal_weight: float | None = None
    """Weight of (|gradient| - 1)^2, which keeps the field a distance. Default: 0.5; 0 for pi-gan."""
    eikonal_final: float | None = None
    """Weight that the eikonal term changes to, linearly over the run. Default: it stays."""
    eikonal_points: int = 32
    """Random points per picture for the eikonal term, besides the surface."""
    gradient_clip: float = 10.0
    """Largest norm of the generator's gradient."""
    gradient_clip_discriminator: float | None = None
    """Largest norm of the discriminator's gradient. Default: it is not limited."""
    ada_target: float = 0.0
    """Adaptive augmentation for small sets: the mean sign of real logits to hold, 0.6 for example; 0: none."""
    ada_pictures: int = 100_000
    """Pictures in which its probability can go from 0 to 1."""
    instance_noise: float = 0.0
    """Standard deviation of noise on all pictures, falling to 0."""
    instance_noise_steps: int = 1000
    """Steps until then."""
    blur: float = 0.0
    """Blur of all pictures, standard deviation in pixels, falling to 0."""
    blur_steps: int = 1000
    """Steps until then."""
    ema_decay: float = 0.998
    """Decay of the moving average of the generator that pictures are made from."""
    ema_decay_slow: float = 0.9995
    """Decay of a second, slower average, kept beside it."""

    sample_interval: int = 250
    """Steps between grids of samples in the run folder."""
    checkpoint_interval: int = 250
    """Steps between checkpoints."""
    evaluate_images: int = 2000
    """Pictures on each side when distances are measured, at start and end; 0: do not evaluate."""
    evaluate_interval: int = 0
    """Steps between evaluations during training; 0: only at start and end."""
    inception: Path | None = None
    """Inception weights (safetensors, or a weights-only .pth): evaluations then give FID, KID, precision and recall.
    Default: the file that $SDFGAN_INCEPTION names, or that is in the cache folder, if any."""
    evaluate_shapes: int = 0
    """Shapes on each side of the set metrics (MMD, coverage, 1-NNA), in runs on the built-in set; 0: none."""
    view_resolution: int = 128
    """Side of each view in the pictures and the video made at the end."""
    video_frames: int = 48
    """Frames of the turntable made at the end; 0: none."""
    video_format: VideoFormat = "mp4"
    """Its format: mp4 needs ffmpeg; gif and webp do not, and show in web pages."""
    mesh_resolution: int = 128
    """Grid cells per axis of the meshes made at the end; 0: none."""

    def resolved(self) -> GanConfig:
        """The same with curriculum, device and everything that depends on them decided, and checked; UserError."""
        config = self
        if self.curriculum is not None and not self.stages:
            curriculum = load_curriculum(self.curriculum, self)
            self._check_given(curriculum.stages)
            ours = {name: value for name, value in curriculum.settings.items() if getattr(self, name) == DEFAULTS[name]}
            config = dataclasses.replace(self, stages=curriculum.stages, **ours)
        config._check_used()
        if config.generator == "pi-gan":
            config = dataclasses.replace(config, eikonal_points=0)
        device = resolve_device(config.device)
        small = device.type == "cpu"
        first = config.stages[0].changes if config.stages else {}
        defaults: dict[str, Any] = {
            "steps": 2800 if small else 20000,
            "batch_size": first.get("batch_size", 16 if small else 32),
            "resolution": first.get("resolution", 32 if small else 64),
            "dataset_size": 8192 if small else 32768,
            "width": 64 if small else 128,
            "precision": "bf16" if not small and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32",
            "trunk_layers": 8 if config.generator == "pi-gan" else 3,
            "eikonal_weight": 0.0 if config.generator == "pi-gan" else 0.5,
            "r1_gamma": ADVERSARIAL_LOSSES[config.gan_loss].r1_gamma,
        }
        chosen = {name: value for name, value in defaults.items() if getattr(config, name) is None}
        config = dataclasses.replace(config, device=str(device), **chosen)
        assert config.batch_size is not None
        if config.chunk_size is None:
            most = first.get("chunk_size", 8 if small or config.generator == "pi-gan" else config.batch_size)
            config = dataclasses.replace(config, chunk_size=largest_part(config.batch_size, most))
        check_cells("--mesh-resolution", config.mesh_resolution)
        config.check()
        return config

    def chunk_of(self, processes: int) -> int:
        """Pictures of a chunk when so many processes share a batch."""
        assert self.batch_size is not None and self.chunk_size is not None
        return largest_part(self.batch_size // processes, self.chunk_size)

    def at(self, step: int) -> GanConfig:
        """The settings in force at a step; the last stage goes on for ever."""
        changes: dict[str, Any] = {}
        for stage in self.stages:
            if stage.step <= step:
                changes |= stage.changes
                if "batch_size" in stage.changes and "chunk_size" not in stage.changes:
                    changes["chunk_size"] = largest_part(changes["batch_size"], self.chunk_size or 1)
        return dataclasses.replace(self, stages=(), **changes) if changes else self

    def stage_start(self, step: int) -> int:
        """The step at which the resolution in force at `step` came."""
        start, resolution = 0, self.at(0).resolution
        for stage in self.stages:
            if stage.step <= step and stage.changes.get("resolution", resolution) != resolution:
                start, resolution = stage.step, stage.changes["resolution"]
        return start

    @property
    def resolutions(self) -> list[int]:
        """ViewRange of the training pictures, in the order in which they come."""
        assert self.resolution is not None
        first = self.at(0).resolution
        assert first is not None
        return [first, *(s.changes["resolution"] for s in self.stages if s.step > 0 and "resolution" in s.changes)]

    def check(self) -> None:
        """Raises UserError for settings that make no sense, at any stage."""
        check_settings(self)
        check_stages(self.stages)
        for stage in self.stages:
            try:
                check_settings(self.at(stage.step))
            except UserError as error:
                raise UserError(f"stage of step {stage.step}: {error}") from None
        sides = sorted(set(self.resolutions))
        if len(sides) > 1 and not DISCRIMINATORS[self.discriminator].grows:
            raise UserError(
                f"--discriminator {self.discriminator} takes one resolution, got {sides}: use progressive or strided"
            )

    def _check_used(self) -> None:
        """Raises UserError for a flag that the generator has no use for."""
        for generator, names in _ONLY_FOR.items():
            for name in names:
                if getattr(self, name) != DEFAULTS[name] and self.generator != generator:
                    raise UserError(f"--{name.replace('_', '-')} is for --generator {generator}, not {self.generator}")
        if self.generator == "pi-gan" and self.eikonal_points not in (DEFAULTS["eikonal_points"], 0):
            raise UserError("--eikonal-points is for surfaces: --generator pi-gan has no eikonal term")

    def _check_given(self, stages: tuple[Stage, ...]) -> None:
        """Raises UserError for a flag that a stage of the curriculum would silently set to something else."""
        for stage in stages:
            for name, value in stage.changes.items():
                if getattr(self, name) not in (DEFAULTS[name], value):
                    raise UserError(
                        f"--{name.replace('_', '-')} {getattr(self, name)}: --curriculum {self.curriculum} sets it to "
                        f"{value} at step {stage.step}; leave it out, or write a curriculum (JSON) of your own"
                    )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["stages"] = [stage.to_json() for stage in self.stages]
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any], source: Path) -> GanConfig:
        """Undo `to_json`. Raises UserError, naming `source`, for what is no GAN configuration."""
        what = "a GAN configuration"
        own = {k: v for k, v in values.items() if k != "stages"} if isinstance(values, dict) else values
        typed = typed_values(cls, own, source, what)
        try:
            listed = values.get("stages", [])
            stages = tuple(Stage.from_json(stage) for stage in (listed if isinstance(listed, list) else [listed]))
            config = cls(**typed, stages=stages)
            missing = [name for name in _RESOLVED if getattr(config, name) is None]
            if missing:
                raise ValueError(f"{missing[0]} is missing")
            config.check()
        except (ValueError, UserError) as error:
            raise UserError(f"{source}: not {what} of this version: {error}") from error
        return config


# What `resolved` decides, so that a run's configuration has it.
_RESOLVED = (
    "steps", "batch_size", "resolution", "dataset_size", "width", "precision", "trunk_layers", "eikonal_weight",
    "r1_gamma", "chunk_size",
)  # fmt: skip
_ONLY_FOR = {"mlp": ("octaves", "weight_norm"), "dfr": ("shared_film",)}


def largest_part(whole: int, most: int) -> int:
    """The largest divisor of `whole` that is at most `most`; 1 where there is none, which `check` says."""
    return next((part for part in range(min(whole, most), 0, -1) if whole % part == 0), 1)


DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(GanConfig)}


# ---------------------------------------------------------------------- what settings must be, alone and together

_POSITIVE = """steps batch_size dataset_size chunk_size march_steps latent_size width trunk_layers sdf_layers
    texture_layers mapping_width discriminator_channels discriminator_most_channels discriminator_steps r1_interval
    sample_interval checkpoint_interval view_resolution octaves ada_pictures omega_first omega_hidden
    omega_texture gradient_clip gradient_clip_discriminator"""
_NOT_NEGATIVE = """texture_latent_size r1_gamma eikonal_weight eikonal_points evaluate_images evaluate_interval
    evaluate_shapes seed lr_generator lr_discriminator video_frames fade_steps gradient_penalty top_k_interval
    latent_weight mapping_rate pose_weight back_face_weight instance_noise instance_noise_steps blur blur_steps
    latent_std eikonal_final"""
_FRACTIONS = "decay_start ema_decay ema_decay_slow beta1 beta2 ada_target top_k_floor"
_MAX = {
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
    if config.inception is not None and 0 < config.evaluate_images < MIN_IMAGES:
        raise UserError(f"--inception: FID needs --evaluate-images {MIN_IMAGES}, got {config.evaluate_images}")
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
    for name, most in _MAX.items():
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
