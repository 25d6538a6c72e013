"""What can be set about a GAN run: the fields here are the flags of `train_gan.py` and the keys of `config.json`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sdfgan.errors import UserError


@dataclass(frozen=True)
class GanConfig:
    """Train a GAN whose generator is a signed-distance field, from pictures alone.

    Fields that are `None` here depend on the device: small on a CPU (about five minutes on two cores), larger on a GPU.
    """

    output_dir: Path | None = None
    """Folder of the run; runs/gan-001, -002 ... if not given."""
    data: Path | None = None
    """Folder (any depth) or zip of pictures. Without it: the built-in set of coloured solids."""
    background: tuple[float, float, float] | None = None
    """Plain background colour (RGB in 0..1) of pictures without alpha: it becomes transparent."""
    resume: Path | None = None
    """Continue a run exactly: its folder, or one of its checkpoints. Other settings come from the run."""
    load_dir: Path | None = None
    """Start a new run from the networks of another run or checkpoint."""
    dry_run: bool = False
    """Set everything up, say what would be done, and stop without writing anything."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the discriminator; the field itself is always evaluated in fp32."""
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
    """Pictures that are processed together; the chunks of a batch run in parallel on a CPU. Default: 8; GPU: all."""

    fov: float = 25.0
    """Field of view, degrees."""
    poses: str = "uniform"
    """Distribution of camera poses: uniform, gaussian, truncated_gaussian, spherical_uniform, hybrid or fixed."""
    elevation: tuple[float, float] = (10.0, 30.0)
    """Range of elevations, degrees."""
    azimuth: tuple[float, float] = (0.0, 360.0)
    """Range of azimuths, degrees."""
    mirror: bool = True
    """Flip real pictures left to right at random. Turn it off for things with a left and a right."""
    march_steps: int = 24
    """Most evaluations of the field per ray in training."""

    latent_size: int = 64
    """Length of the latent."""
    texture_latent_size: int = 0
    """Length of a second latent that drives the texture alone; 0: one latent drives shape and texture."""
    width: int | None = None
    """Units per layer of the field. Default: 64 on a CPU, 128 on a GPU."""
    trunk_layers: int = 3
    """Sine layers shared by shape and texture."""
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
    discriminator_channels: int = 32
    """Channels of the discriminator's first layer; they double with each halving of the picture, up to 512."""

    lr_generator: float = 5e-4
    """Adam's learning rate of the generator. Above about 7e-4 surfaces crumple."""
    lr_discriminator: float = 5e-4
    """Adam's learning rate of the discriminator."""
    beta1: float = 0.0
    """Adam's first-moment decay."""
    beta2: float = 0.99
    """Adam's second-moment decay."""
    decay_start: float = 0.5
    """Fraction of the steps after which learning rates fall, linearly to 5%."""
    r1_gamma: float = 5.0
    """Weight of R1, the penalty on the discriminator's gradient. 1 or less lets surfaces ripple."""
    r1_interval: int = 8
    """R1 every so many steps (and as many times stronger)."""
    eikonal_weight: float = 0.5
    """Weight of (|gradient| - 1)^2, which keeps the field a distance."""
    eikonal_points: int = 32
    """Random points per picture for the eikonal term, besides the surface."""
    gradient_clip: float = 10.0
    """Largest norm of the generator's gradient."""
    ema_decay: float = 0.998
    """Decay of the moving average of the generator that pictures are made from."""

    sample_interval: int = 250
    """Steps between grids of samples in the run folder."""
    checkpoint_interval: int = 250
    """Steps between checkpoints."""
    evaluate_images: int = 2000
    """Pictures on each side of the sliced-Wasserstein distance at start and end; 0: do not evaluate."""
    view_resolution: int = 128
    """Side of each view in the pictures and the video made at the end."""
    video_frames: int = 48
    """Frames of the turntable made at the end."""
    mesh_resolution: int = 128
    """Grid cells per axis of the meshes made at the end."""

    def resolved(self) -> GanConfig:
        """The same with everything that depends on the device decided, and checked. Raises UserError."""
        device = resolve_device(self.device)
        small = device.type == "cpu"
        defaults = {
            "steps": 2800 if small else 20000,
            "batch_size": 16 if small else 32,
            "resolution": 32 if small else 64,
            "dataset_size": 8192 if small else 32768,
            "width": 64 if small else 128,
        }
        chosen = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        config = dataclasses.replace(self, device=str(device), **chosen)  # type: ignore[arg-type]
        assert config.batch_size is not None
        if config.chunk_size is None:
            chunk = min(8, config.batch_size) if small else config.batch_size
            config = dataclasses.replace(config, chunk_size=chunk)
        config._check()
        return config

    def _check(self) -> None:
        assert self.resolution is not None and self.batch_size is not None and self.chunk_size is not None
        if self.resolution < 16 or self.resolution & (self.resolution - 1):
            raise UserError(f"--resolution must be a power of two from 16, got {self.resolution}")
        positive = (
            "steps batch_size dataset_size chunk_size march_steps latent_size width trunk_layers sdf_layers "
            "texture_layers mapping_width discriminator_channels r1_interval sample_interval checkpoint_interval "
            "view_resolution video_frames"
        )
        for name in positive.split():
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        not_negative = "texture_latent_size r1_gamma eikonal_weight eikonal_points evaluate_images seed"
        for name in (*not_negative.split(), "lr_generator", "lr_discriminator", "mesh_resolution"):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        if self.batch_size % self.chunk_size:
            raise UserError(
                f"--batch-size must be a multiple of --chunk-size, got {self.batch_size} and {self.chunk_size}"
            )
        for name in ("decay_start", "ema_decay", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"--{name.replace('_', '-')} must be between 0 and 1, got {getattr(self, name)}")
        if not 1 <= self.fov <= 150:
            raise UserError(f"--fov must be between 1 and 150 degrees, got {self.fov}")
        if self.resume is not None and self.load_dir is not None:
            raise UserError("--resume and --load-dir exclude each other: continue a run, or start a new one from it")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = dataclasses.asdict(self)
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any], source: Path) -> GanConfig:
        """Undo `to_json`. Raises UserError, naming `source`, for what is no GAN configuration."""
        known = {field.name: field for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UserError(f"{source}: not a GAN configuration of this version: unknown field {unknown[0]!r}")
        try:
            paths = {k: Path(v) for k, v in values.items() if "Path" in str(known[k].type) and v is not None}
            tuples = {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
            config = cls(**{**values, **paths, **tuples})
            config._check()
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"{source}: not a GAN configuration of this version: {error}") from error
        return config


def resolve_device(name: str) -> torch.device:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means here. Raises UserError if there is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: this machine (or this build of torch) has no CUDA device")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UserError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices")
    return device
