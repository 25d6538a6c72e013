"""What can be set about a GAN run: the fields here are the flags of `train_gan.py` and the keys of `config.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sdfgan.errors import UserError
from sdfgan.gan.curricula import Stage, check_stages, load_curriculum
from sdfgan.training.config import (
    AtMost,
    Azimuths,
    Colour,
    Config,
    Count,
    Device,
    Elevations,
    Essential,
    FieldOfView,
    Formerly,
    Frequency,
    MeshCells,
    Natural,
    NearFar,
    NotNegative,
    Positive,
    PowerOfTwo,
    Scale,
    Section,
    Share,
    VideoFormat,
    Weight,
    flag_of,
    from_json,
)


@dataclass(frozen=True)
class GanConfig(Config):
    """Train a GAN whose generator is a signed-distance field, from images alone.

    Defaults may differ between a CPU and a GPU: a small network on a CPU (five to nine minutes on two cores), a larger
    one on a GPU.
    """

    output_dir: Annotated[Path | None, Section("Run"), Essential] = None
    """Folder of the run; runs/gan-001, -002 ... if not given."""
    resume: Annotated[Path | None, Essential] = None
    """Continue a run exactly: its folder, or one of its checkpoints. Other settings come from the run; --data says
    where its images are if they have moved."""
    load_dir: Path | None = None
    """Start a new run from the networks of another run or checkpoint."""
    dry_run: Annotated[bool, Essential] = False
    """Set everything up, report what would be done, and stop. No run is written; the built-in images are rendered and
    cached."""
    curriculum: Annotated[str | None, Essential] = None
    """Settings by name (aircraft, celeba, carla, cats, dfr, growing) or from a JSON file. Flags override its settings,
    but not what its stages change."""
    stages: tyro.conf.Suppress[tuple[Stage, ...]] = ()
    """What changes at which step; comes from the curriculum."""
    seed: Annotated[Natural, Essential] = 0
    """Random seed: on a CPU the same seed gives the same run, whatever the number of threads."""

    data: Annotated[Path | None, Section("Data"), Essential] = None
    """Folder, zip or WebDataset shards (.tar) of images. Default: a built-in set, see --shapes."""
    shapes: Annotated[Literal["chairs", "aircraft", "mugs", "solids"], Essential] = "chairs"
    """The built-in set: objects of several parts and colours, or coloured solids of seven kinds."""
    data_layout: Literal["auto", "plain", "shapenet", "celeba", "cats", "carla"] = "auto"
    """How the images are organised, cropped and flipped. auto: ShapeNet renderings are recognised, else plain."""
    data_cache: Literal["auto", "memory", "none"] = "auto"
    """Where decoded images are kept. none: they are decoded again each time. auto: in memory if they fit."""
    label: int | None = None
    """Learn only from images with this label (of a data set with labels)."""
    channels: Annotated[Literal[3, 4], Essential] = 4
    """What the discriminator sees: RGBA, or RGB on black (for photographs without a silhouette)."""
    background: Annotated[Colour | None, Essential] = None
    """Plain background colour (RGB in 0..1) of images without alpha: it becomes transparent."""
    mirror: Annotated[bool, Essential] = True
    """Flip real images horizontally at random. Turn it off for objects whose left and right differ."""
    dataset_size: Annotated[int | None, Positive, AtMost(10**7)] = None
    """Number of images of the built-in set to train on."""

    fov: Annotated[FieldOfView, Section("Camera")] = 25.0
    """Field of view, degrees."""
    poses: Annotated[str, Essential] = "uniform"
    """Distribution of camera poses: uniform, gaussian, truncated_gaussian, spherical_uniform, hybrid, fixed; data: the
    poses of the images, if the data set has them; learned: cameras that nobody knows are learned with the shapes, as
    shares of bins of --elevation and --azimuth, which should be wide, such as 0 60 and 0 360."""
    elevation: Annotated[Elevations, Essential] = (10.0, 30.0)
    """Range of the cameras' elevations (angles above the horizon), degrees."""
    azimuth: Annotated[Azimuths, Essential] = (0.0, 360.0)
    """Range of the cameras' azimuths (angles around the vertical axis; 0 is the front), degrees."""
    near_far: NearFar | None = None
    """Where rays sample a pi-gan, in units of the camera's distance. Default: inside the bounding sphere."""

    generator: Annotated[Literal["film-siren", "mlp", "dfr", "pi-gan"], Section("Generator"), Essential] = "film-siren"
    """The field: sine layers modulated by the latent, or an MLP of encoded points. dfr: the field of the older project.
    pi-gan: a radiance field, rendered as a volume; its trunk layers are those before the density; no eikonal term."""
    width: Annotated[int | None, Positive, AtMost(4096), Essential] = None
    """Units per layer of the field."""
    trunk_layers: Annotated[int | None, Positive, AtMost(64)] = None
    """Sine layers shared by shape and texture. Default: 3; 8 for pi-gan."""
    sdf_layers: Annotated[int, Positive, AtMost(64)] = 1
    """Sine layers of the shape branch."""
    texture_layers: Annotated[int, Positive, AtMost(64)] = 1
    """Sine layers of the texture branch."""
    latent_size: Annotated[int, Positive, AtMost(4096)] = 64
    """Length of the latent."""
    latent_std: Weight = 1.0
    """Standard deviation of the latent."""
    texture_latent_size: Annotated[int, NotNegative, AtMost(4096)] = 0
    """Length of a second latent that controls the texture alone; 0: one latent controls shape and texture."""
    mapping_width: Annotated[int, Positive, AtMost(4096)] = 128
    """Units per layer of the mapping network."""
    omega_first: Frequency = 5.0
    """Frequency of the first sine layer."""
    omega_hidden: Frequency = 10.0
    """Frequency of the other sine layers of shape. Higher values give finer detail, but also ripples."""
    omega_texture: Frequency = 3.0
    """Frequency of the texture layers. Higher values give finer patterns."""
    color_space: Literal["rgb", "hsv", "palette"] | None = None
    """Colour space of the texture branch's outputs; with palette they mix four colours that each shape has. Default:
    palette for film-siren, else rgb."""
    symmetric_from: Annotated[int | None, NotNegative, AtMost(10**9)] = None
    """For classes whose left and right are alike, as of aircraft and cars: from this step on (a seventh of all, say) a
    plane is sought every 100 steps; once one is clearly best, all shapes are alike about it. Default: never."""
    shared_film: bool = False
    """One modulation for all layers of the dfr generator, as in its earlier versions."""
    octaves: Annotated[int, Positive, AtMost(32)] = 5
    """Frequencies of the positional encoding of the mlp."""
    activation: Literal["softplus", "relu"] = "softplus"
    """Non-linearity of the mlp, or of the density of pi-gan."""
    weight_norm: bool = False
    """Weight normalisation in the mlp."""
    renderer: Literal["sdfgan", "dfr"] = "sdfgan"
    """dfr: the older project's renderer, for comparison."""
    light: Literal["headlight", "random"] = "headlight"
    """random: for each image a light from the viewer's side, and ambient light; for images whose lighting varies."""
    march_steps: Annotated[int, Positive, AtMost(4096)] = 24
    """Maximum evaluations of the field per ray in training; for pi-gan the coarse samples, which place as many fine
    ones."""

    discriminator: Annotated[
        Literal["lean", "small", "residual", "progressive", "strided", "stylegan2"], Section("Discriminator"), Essential
    ] = "lean"
    """lean: the fastest; small: the same with more layers; residual: dfr's; progressive, strided: pi-GAN's, which can
    grow; stylegan2."""
    discriminator_channels: Annotated[int, Positive, AtMost(4096)] = 32
    """Channels of the discriminator's first layer; they double with each halving of the image."""
    discriminator_max_channels: Annotated[int, Positive, AtMost(4096), Formerly("discriminator_most_channels")] = 512
    """Maximum channels of a layer of the discriminator."""
    fade_steps: Natural = 0
    """Steps over which a new resolution of a curriculum fades in."""
    ada_target: Share = 0.0
    """Adaptive augmentation for small data sets: target for the mean sign of the real logits, such as 0.6; 0: none."""
    ada_images: Annotated[Count, Formerly("ada_pictures")] = 100_000
    """Images over which its probability can rise from 0 to 1."""
    instance_noise: Weight = 0.0
    """Standard deviation of noise added to all images, falling to 0."""
    instance_noise_steps: Natural = 1000
    """Steps until the instance noise reaches 0."""
    blur: Weight = 0.0
    """Blur of all images, standard deviation in pixels, falling to 0."""
    blur_steps: Natural = 1000
    """Steps until the blur reaches 0."""

    gan_loss: Annotated[Literal["logistic", "hinge", "wgan-gp", "wgan-sn", "sphere"], Section("Losses")] = "logistic"
    """Adversarial loss."""
    r1_gamma: Annotated[Weight | None, Essential] = None
    """Weight of R1, the penalty on the discriminator's gradient; too small, surfaces ripple and crumple. Default, by
    the first resolution: 5 up to 32 pixels, 20 at 64, 80 at 128 for logistic and hinge, 0 for the others."""
    r1_final: Annotated[float | None, Positive, AtMost(1)] = None
    """Share of --r1-gamma left at the end; it falls by halves. Default: 0.25; 1 where stages set --r1-gamma."""
    r1_interval: Count = 8
    """R1 is applied every so many steps (and as many times stronger)."""
    r1_of: Literal["logit", "probability"] = "logit"
    """What R1 takes the gradient of. probability: as dfr did."""
    gradient_penalty: Weight = 10.0
    """Weight of wgan-gp's penalty."""
    top_k_interval: Natural = 0
    """Steps in which the share of fakes that the generator learns from falls by 1%; 0: it learns from all fakes."""
    top_k_floor: Share = 0.6
    """Smallest share of fakes that the generator learns from."""
    latent_weight: Weight = 0.0
    """Weight of the identity loss: the discriminator predicts a fake's latent, and both networks minimise the error."""
    pose_weight: Weight = 0.0
    """The same for the direction from which a fake is seen; keeps all shapes in one canonical pose."""
    back_face_weight: Weight = 0.0
    """Weight of the penalty on visible normals that face away from the camera."""
    eikonal_weight: Annotated[Weight | None, Essential] = None
    """Weight of (|gradient| - 1)^2, which keeps the field a distance. Default: 0.5; 0 for pi-gan."""
    eikonal_final: Weight | None = None
    """Weight of the eikonal term at the end; it changes linearly over the run. Default: constant."""
    eikonal_points: Annotated[int, NotNegative, AtMost(10**6)] = 32
    """Random points per image for the eikonal term, besides those on the surface, and for the minimal-surface term."""
    minimal_surface_weight: Weight = 0.0
    """Weight of the mean of exp(-12 |sdf|) at these random points, against surfaces where none should be."""

    steps: Annotated[Count | None, Section("Schedule"), Essential] = None
    """Training steps (one update of each network)."""
    batch_size: Annotated[int | None, Positive, AtMost(65_536), Essential] = None
    """Images per step."""
    resolution: Annotated[int | None, PowerOfTwo, AtMost(1024), Essential] = None
    """Side of the training images in pixels, a power of two from 16."""
    learning_rate_generator: Annotated[Weight | None, Formerly("lr_generator")] = None
    """Adam's learning rate of the generator; too large, surfaces crumple. Default, by the first resolution: 5e-4 up to
    32 pixels, 2.5e-4 above."""
    learning_rate_discriminator: Annotated[Weight, Formerly("lr_discriminator")] = 5e-4
    """Adam's learning rate of the discriminator."""
    mapping_rate: Weight = 1.0
    """Learning rate of the mapping network as a share of the generator's. pi-GAN specifies 0.05, but its code does not
    apply it."""
    beta1: Share = 0.0
    """Adam's first-moment decay."""
    beta2: Share = 0.99
    """Adam's second-moment decay."""
    decay_start: Share = 0.5
    """Fraction of the steps after which learning rates fall, linearly to 5%."""
    discriminator_steps: Count = 1
    """Updates of the discriminator for each of the generator's."""
    gradient_clip: Scale = 10.0
    """Largest norm of the generator's gradient."""
    gradient_clip_discriminator: Scale | None = None
    """Largest norm of the discriminator's gradient. Default: not clipped."""
    ema_decay: Share = 0.998
    """Decay of the moving average of the generator from which images are made."""
    ema_decay_slow: Share = 0.9995
    """Decay of a second, slower moving average."""
    sample_interval: Count = 250
    """Steps between grids of samples in the run folder."""
    checkpoint_interval: Count = 250
    """Steps between checkpoints."""

    evaluate_images: Annotated[int, NotNegative, AtMost(10**7), Section("Evaluation"), Essential] = 2000
    """Generated and real images, each, that are compared at start and end; 0: do not evaluate."""
    evaluate_interval: Natural = 0
    """Steps between evaluations during training; 0: only at start and end."""
    evaluate_shapes: Annotated[int, NotNegative, AtMost(10**6)] = 0
    """Generated and true shapes, each, between which MMD, coverage and 1-NNA are measured, in runs on the built-in set;
    0: none."""
    inception: Path | None = None
    """Inception weights (safetensors, or a weights-only .pth): evaluations then give FID, KID, precision and recall.
    Default: the file that $SDFGAN_INCEPTION names, or the one in the cache folder, if any."""

    view_resolution: Annotated[int, Positive, AtMost(1024), Section("Final images")] = 128
    """Side in pixels of each view in the images and the video made at the end."""
    video_frames: Annotated[int, NotNegative, AtMost(10**6)] = 48
    """Frames of the turntable made at the end; 0: none."""
    video_format: VideoFormat = "mp4"
    """Format of the video: mp4 needs ffmpeg; gif and webp do not, and play in web pages."""
    mesh_resolution: Annotated[MeshCells, Essential] = 128
    """Grid cells per axis of the meshes made at the end; 0: none."""

    device: Annotated[Device, Section("Hardware"), Essential] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Arithmetic of the discriminator. Default: bf16 on GPUs that have it. The field is in fp32, except that a GPU may
    trace rays, which needs no gradient, with fp16 matrix products."""
    deterministic: bool = False
    """Reproducible results on a GPU too, as far as torch can; slower. Results on a CPU are always reproducible."""
    chunk_size: Count | None = None
    """Maximum images processed at a time (gradients of chunks are averaged). Default: 8; on a GPU all, except
    for pi-gan."""
    cuda_graphs: bool = True
    """On a GPU, replay the discriminator's part of a step from CUDA graphs: the same results, with fewer launches."""
    recompute: bool = False
    """Render each chunk again for its gradient instead of keeping all graphs: memory is that of one chunk."""

    def defaults(self, on_cpu: bool) -> dict[str, Any]:
        """What is decided, where it is not given, by the device and by other settings."""
        first = self.stages[0].changes if self.stages else {}
        is_volume = self.generator == "pi-gan"
        resolution = self.resolution or first.get("resolution", 32 if on_cpu else 64)
        return {
            "steps": 2800 if on_cpu else 20000,
            "batch_size": first.get("batch_size", 16 if on_cpu else 32),
            "resolution": resolution,
            "dataset_size": 8192 if on_cpu else 32768,
            "width": 64 if on_cpu else 128,
            "precision": "fp32" if on_cpu else "bf16",
            "trunk_layers": 8 if is_volume else 3,
            "color_space": "palette" if self.generator == "film-siren" else "rgb",
            "eikonal_weight": 0.0 if is_volume else 0.5,
            "learning_rate_generator": 5e-4 if resolution <= 32 else 2.5e-4,
            "r1_gamma": _r1_gamma(resolution) if self.gan_loss in ("logistic", "hinge") else 0.0,
            "r1_final": 1.0 if any("r1_gamma" in stage.changes for stage in self.stages) else 0.25,
        }

    def resolved(self) -> ResolvedGanConfig:
        """The same with curriculum, device and everything that depends on them decided, and checked; UserError."""
        config = self
        if self.curriculum is not None and not self.stages:
            curriculum = load_curriculum(self.curriculum, self)
            self._check_given(curriculum.stages)
            ours = {name: value for name, value in curriculum.settings.items() if not self.is_explicit(name)}
            if ours.get("generator", self.generator) != "film-siren":
                ours.pop("symmetric_from", None)  # of which others have no use
            config = dataclasses.replace(config, stages=curriculum.stages, **ours)
        config._check_used()
        import torch

        from sdfgan.training.device import resolve_device

        device = resolve_device(config.device)
        on_cpu = device.type == "cpu"
        given = {name: value for name, value in config.values().items() if value is not None}
        chosen = {**config.values(), **config.defaults(on_cpu), **given, "device": str(device)}
        if config.generator == "pi-gan":
            chosen["eikonal_points"] = 0
        if config.precision is None and not (on_cpu or torch.cuda.is_bf16_supported(including_emulation=False)):
            chosen["precision"] = "fp32"
        if config.chunk_size is None:
            first = config.stages[0].changes if config.stages else {}
            most = first.get("chunk_size", 8 if on_cpu or config.generator == "pi-gan" else chosen["batch_size"])
            chosen["chunk_size"] = largest_part(chosen["batch_size"], most)
        resolved = ResolvedGanConfig(**chosen)
        resolved.check()
        return resolved

    def _check_used(self) -> None:
        """Raises UserError for a flag that the generator has no use for."""
        for generator, names in _ONLY_FOR.items():
            for name in names:
                if getattr(self, name) != DEFAULTS[name] and self.generator != generator:
                    raise UserError(f"{flag_of(name)} is for --generator {generator}, not {self.generator}")
        if self.generator == "pi-gan" and self.eikonal_points not in (DEFAULTS["eikonal_points"], 0):
            raise UserError("--eikonal-points is for surfaces: --generator pi-gan has no eikonal term")

    def _check_given(self, stages: tuple[Stage, ...]) -> None:
        """Raises UserError for a flag that a stage of the curriculum would silently set to something else."""
        for stage in stages:
            for name, value in stage.changes.items():
                if self.is_explicit(name) and getattr(self, name) != value:
                    raise UserError(
                        f"{flag_of(name)} {getattr(self, name)}: --curriculum {self.curriculum} sets it to "
                        f"{value} at step {stage.step}; leave it out, or write a curriculum (JSON) of your own"
                    )

    def kept(self) -> set[str]:
        """See `Config.kept`: what was given against a curriculum."""
        if self.curriculum is None:
            return set()
        try:
            settings = load_curriculum(self.curriculum, self).settings
        except UserError:  # it was a file, which is gone
            return set()
        return {name for name, value in settings.items() if getattr(self, name) == DEFAULTS[name] != value}

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**super().to_json(), "stages": [stage.to_json() for stage in self.stages]}

    @classmethod
    def from_json(cls, values: Any, source: Path) -> ResolvedGanConfig:
        """The configuration of a run, which `to_json` made. Raises UserError, naming `source`, for what is none."""
        what, own, listed = "a GAN configuration", values, []
        if isinstance(values, dict):
            own = {**_FORMER, **{name: value for name, value in values.items() if name != "stages"}}
            listed = values.get("stages", [])
        try:
            stages = tuple(Stage.from_json(one, cls) for one in (listed if isinstance(listed, list) else [listed]))
        except ValueError as error:
            raise UserError(f"{source}: not {what} of this version: {error}") from error
        return from_json(ResolvedGanConfig, own, source, what, stages=stages)


@dataclass(frozen=True, kw_only=True)
class ResolvedGanConfig(GanConfig):
    """Settings of which none is left to be decided, as those of a run are."""

    steps: int
    batch_size: int
    resolution: int
    chunk_size: int
    dataset_size: int
    width: int
    trunk_layers: int
    color_space: Literal["rgb", "hsv", "palette"]
    precision: Literal["fp32", "bf16", "fp16"]
    eikonal_weight: float
    r1_gamma: float
    r1_final: float
    learning_rate_generator: float

    def chunk_of(self, processes: int) -> int:
        """Images of a chunk when so many processes share a batch."""
        return largest_part(self.batch_size // processes, self.chunk_size)

    def at(self, step: int) -> ResolvedGanConfig:
        """The settings in force at a step; the last stage goes on for ever."""
        changes: dict[str, Any] = {}
        for stage in self.stages:
            if stage.step <= step:
                changes |= stage.changes
                if "batch_size" in stage.changes and "chunk_size" not in stage.changes:
                    changes["chunk_size"] = largest_part(changes["batch_size"], self.chunk_size)
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
        """Sides of the training images, in the order in which they come."""
        later = [stage.changes.get("resolution") for stage in self.stages if stage.step > 0]
        return [self.at(0).resolution, *filter(None, later)]

    def check(self) -> None:
        """Raises UserError for settings that make no sense, at any stage."""
        check_settings(self)
        check_stages(self.stages)
        for stage in self.stages:
            try:
                check_settings(self.at(stage.step))
            except UserError as error:
                raise UserError(f"stage of step {stage.step}: {error}") from None
        from sdfgan.gan.discriminators import DISCRIMINATORS

        sizes = sorted(set(self.resolutions))
        if len(sizes) > 1 and not DISCRIMINATORS[self.discriminator].grows:
            raise UserError(
                f"--discriminator {self.discriminator} takes one resolution, got {sizes}: use progressive or strided"
            )


def _r1_gamma(resolution: int) -> float:
    """5 up to 32 pixels, four times that at twice as many: the gradient spreads. So do Karras et al. 2020."""
    return 5.0 * max(1, resolution / 32) ** 2


_FORMER = {"shapes": "solids", "color_space": "rgb", "r1_final": 1.0}  # of runs from before these settings
_ONLY_FOR = {"film-siren": ("symmetric_from",), "mlp": ("octaves", "weight_norm"), "dfr": ("shared_film",)}


def largest_part(whole: int, most: int) -> int:
    """The largest divisor of `whole` that is at most `most`; 1 where there is none, which `check` says."""
    return next((part for part in range(min(whole, most), 0, -1) if whole % part == 0), 1)


DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(GanConfig)}


def check_settings(config: ResolvedGanConfig) -> None:
    """Raises UserError for settings, those of one stage, that do not go together."""
    from sdfgan.cameras import POSE_DISTRIBUTIONS
    from sdfgan.inception import MIN_IMAGES

    if config.batch_size % config.chunk_size:
        raise UserError(
            f"--batch-size must be a multiple of --chunk-size, got {config.batch_size} and {config.chunk_size}"
        )
    if config.chunk_size == 1 and config.discriminator in ("lean", "small", "stylegan2"):
        raise UserError(
            f"--chunk-size must be at least 2 with --discriminator {config.discriminator}, which compares the "
            f"images of a chunk (a divisor of --batch-size, {config.batch_size}); got 1"
        )
    if config.evaluate_shapes and config.data is not None:
        raise UserError("--evaluate-shapes compares with the shapes of a built-in set: not for --data")
    if config.inception is not None and 0 < config.evaluate_images < MIN_IMAGES:
        raise UserError(f"--inception: FID needs --evaluate-images {MIN_IMAGES}, got {config.evaluate_images}")
    if config.poses not in (*POSE_DISTRIBUTIONS, "data", "learned"):
        raise UserError(f"--poses must be one of {', '.join(POSE_DISTRIBUTIONS)}, learned, data; got {config.poses!r}")
    if config.poses == "learned":
        for name in ("elevation", "azimuth"):
            low, high = getattr(config, name)
            if low == high:
                raise UserError(f"--poses learned: --{name} must be a range to learn within, got {low:g} {high:g}")
        if config.azimuth[1] - config.azimuth[0] > 360:
            low, high = config.azimuth
            raise UserError(f"--poses learned: --azimuth must be at most a full turn, got {low:g} {high:g}")
    if config.ada_target and config.gan_loss not in ("logistic", "hinge"):
        raise UserError(f"--ada-target needs logits with a sign: --gan-loss logistic or hinge, not {config.gan_loss}")
    if config.minimal_surface_weight and config.generator != "pi-gan" and not config.eikonal_points:
        raise UserError("--minimal-surface-weight needs random points: --eikonal-points must be at least 1, got 0")
    if config.resume is not None and config.load_dir is not None:
        raise UserError("--resume and --load-dir exclude each other: continue a run, or start a new one from it")
    _check_generator(config)


def _check_generator(config: ResolvedGanConfig) -> None:
    if config.generator != "film-siren" and config.color_space != "rgb":
        raise UserError(f"--color-space {config.color_space} is for --generator film-siren, got {config.generator}")
    if config.generator == "dfr" and config.texture_latent_size:
        raise UserError("--texture-latent-size: the dfr generator has one latent")
    if config.light != "headlight" and (config.renderer == "dfr" or config.generator == "pi-gan"):
        raise UserError(f"--light {config.light} is for surfaces and our renderer: not for dfr's, nor for pi-gan")
    for name in ("texture_latent_size", "eikonal_weight", "back_face_weight", "minimal_surface_weight"):
        if config.generator == "pi-gan" and getattr(config, name):
            raise UserError(f"{flag_of(name)} must be 0: --generator pi-gan has no surface to apply it to")
    if config.generator == "pi-gan" and config.renderer != "sdfgan":
        raise UserError(f"--renderer {config.renderer} is for surfaces: not for --generator pi-gan")
