"""The configuration of a radiance-field run: its fields are the flags of `sdfgan train-nerf`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from sdfgan.checks import check_cells
from sdfgan.errors import UserError
from sdfgan.images import VideoFormat
from sdfgan.training.device import resolve_device
from sdfgan.training.settings import check_sizes, typed_values

Model = Literal["fast", "nerf", "mip-nerf", "mip-nerf-360", "ref-nerf"]


@dataclass(frozen=True)
class NerfConfig:
    """Learn a scene from posed pictures; the run folder ends with scores, videos and a mesh.

    What is None has a default that depends on the model and the device; a run's config.json says what it was.
    """

    data: Path | None = None
    """Folder of the scene: transforms_train.json (Blender), transforms.json (instant-ngp, nerfstudio) or COLMAP's
    sparse/0."""
    dataset_name: str | None = None
    """Name of the scene's folder inside --data."""
    output_dir: Path | None = None
    """Run folder. Default: runs/nerf-001, -002 ..."""
    resume: Path | None = None
    """Continue this run folder, or this checkpoint, as it was configured."""
    model: Model = "fast"
    """fast: hash grid and occupancy grid. nerf: the original. mip-nerf: cones. mip-nerf-360: proposals and distortion
    loss. ref-nerf: mip-nerf-360 with reflected directions and predicted normals."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of everything random."""
    dry_run: bool = False
    """Load the scene, say what would be done, and stop."""

    steps: int | None = None
    """Updates."""
    rays: int | None = None
    """Rays per update, over all processes."""
    samples: int | None = None
    """fast: places asked per update; the number of rays adapts to it, up to --rays."""
    chunk: int | None = None
    """Rays at a time; more take more memory. On a CPU chunks run in parallel."""
    lr: float | None = None
    """Adam's largest learning rate."""
    lr_final: float | None = None
    """Share of it at the end; it falls exponentially."""
    warmup_steps: int | None = None
    """Steps in which it rises, from 1%."""
    grad_clip: float = -1.0
    """Largest norm of the gradient; negative: not limited."""
    precision: Literal["auto", "fp32", "amp", "bf16", "fp16"] = "auto"
    """Of the networks' products. amp: bf16, or fp16 where a GPU lacks it. auto: fp32 on a CPU and for
    fast, else amp."""

    image_scale: float = 1.0
    """Reduce the pictures to this share of their sides."""
    scene_scale: float = 1.0
    """Share of the half side (1.5) of the cube around an object; without alpha of the radius of the ball that is not
    contracted, which otherwise reaches to the farthest camera."""
    background: Literal["auto", "white", "black"] = "auto"
    """Behind pictures with alpha. auto: white for these, black for photographs."""
    random_background: bool | None = None
    """Train pictures with alpha on random colours, so that nothing hides as background."""
    near: float | None = None
    """Where rays begin, in scene units (the cube's half side). Default: at the cube; in unbounded scenes 0.2, and 0.05
    for fast."""
    far: float | None = None
    """Where they end. Default: where they leave the cube; 1000 in unbounded scenes."""
    center_crop_steps: int = 0
    """Steps at the start that use the middle half of the pictures only."""

    width: int | None = None
    """Units per layer."""
    layers: int | None = None
    """Layers before the density."""
    octaves: int | None = None
    """Frequencies of the positional encoding."""
    proposal_width: int | None = None
    """Units per layer of the proposal network."""
    proposal_layers: int = 4
    """Its layers."""
    coarse_samples: int | None = None
    """Samples per ray of the first pass, or of each proposal."""
    fine_samples: int | None = None
    """Samples per ray of the last pass."""
    hash_levels: int | None = None
    """Levels of the hash grid."""
    hash_table: int | None = None
    """Binary logarithm of the entries of a level's table."""
    hash_finest: int | None = None
    """Cells across the scene of the finest level."""
    grid_resolution: int | None = None
    """Cells across the scene of the occupancy grid."""
    march_steps: int | None = None
    """Samples across the diagonal of the scene's cube when marching through the occupancy grid."""

    interlevel_weight: float = 1.0
    """Weight of the proposals' loss."""
    distortion_weight: float | None = None
    """Weight of the loss that draws a ray's weights together."""
    opacity_weight: float = 0.0
    """Weight of the entropy of the rays' opacities, which makes an object solid."""
    srgb: bool = True
    """Ref-NeRF: add light in linear colours, then convert to sRGB."""
    ide_levels: int = 5
    """Ref-NeRF: levels of the directional encoding."""
    bottleneck_noise: float = 0.02
    """Ref-NeRF: noise on what the second network sees, in training."""
    normal_weight: float = 3e-4
    """Ref-NeRF: weight of the difference of predicted normals from the density's."""
    orientation_weight: float = 0.1
    """Ref-NeRF: weight of the loss on visible normals that face away."""
    prop_normal: bool = False
    """Ref-NeRF: the proposal network's density shall agree with the predicted normals, too."""

    evaluate_interval: int | None = None
    """Steps between evaluations of some validation views; 0: only at the end."""
    checkpoint_interval: int | None = None
    """Steps between checkpoints."""
    evaluate_views: int | None = None
    """Held-out views of each kind, evenly chosen, that are scored at the end; 0: all. Default: 25 on a CPU, all on a
    GPU."""
    video_frames: int = 60
    """Frames of the orbit; 0: no videos."""
    video_scale: float | None = None
    """Size of videos, as a share of the training pictures'. Default: 1; on a CPU at most 320 pixels."""
    video_format: VideoFormat = "mp4"
    """Format of videos: mp4 needs ffmpeg; gif and webp do not, and show in web pages."""
    fps: int = 24
    """Frames per second of videos."""
    render_depth: bool = False
    """Also make videos of depth."""
    render_normal: bool = False
    """Also make videos of normals."""
    render_test: bool = False
    """Also make a video along the test (or validation) poses."""
    mesh_resolution: int = 128
    """Grid cells per axis of the mesh made at the end; 0: none."""
    mesh_level: float | None = None
    """Density of its surface, per scene unit. Default: one that ends half of the light within two grid cells."""
    lpips: Path | None = None
    """Weights of LPIPS (the state of lpips.LPIPS(net="alex"), .pth or safetensors): the final scores then have it."""

    @property
    def scene(self) -> Path:
        """The scene's folder."""
        if self.data is None and self.dataset_name is None:
            raise UserError("--data: the folder of a scene is needed")
        return (self.data or Path(".")) / (self.dataset_name or ".")

    def resolved(self) -> NerfConfig:
        """The same with the device and everything that depends on it and on the model decided, and checked."""
        device = resolve_device(self.device)
        small = device.type == "cpu"
        defaults = {**_COMMON[small], **_MODELS.get(self.model, ({}, {}))[small]}
        chosen = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        precision = self.precision
        if precision == "auto":
            # The networks of "fast" are so small that casts take longer than they save.
            precision = "fp32" if small or self.model == "fast" else "amp"
        if precision == "amp":
            precision = "bf16" if small or torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        config = dataclasses.replace(self, device=str(device), precision=precision, **chosen)
        check_cells("--mesh-resolution", config.mesh_resolution)
        config.check()
        return config

    def check(self) -> None:
        """Raises UserError for settings that make no sense."""
        if self.model not in _MODELS:
            raise UserError(f"--model must be one of {', '.join(_MODELS)}, got {self.model}")
        for name in _POSITIVE.split():
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} must be positive, got {value}")
        for name in _NOT_NEGATIVE.split():
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, got {value}")
        if self.lr_final is not None and self.lr_final > 1:
            raise UserError(f"--lr-final must be at most 1, got {self.lr_final}")
        if self.near is not None and self.far is not None and self.far <= self.near:
            raise UserError(f"--far must be more than --near, got {self.far} and {self.near}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise UserError(f"--{name.replace('_', '-')} must be between {least} and {most}, got {value}")
        check_sizes(self)
        for models, names in _ONLY_OF.items():
            for name in () if self.model in models else names.split():
                default = next(field.default for field in dataclasses.fields(self) if field.name == name)
                usual = default, *(defaults.get(name) for defaults in _MODELS[self.model])
                if getattr(self, name) not in usual:
                    flag = name.replace("_", "-")
                    raise UserError(f"--{flag} is for --model {' or '.join(models)}, got {self.model}")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        values = dataclasses.asdict(self)
        return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}

    @classmethod
    def from_json(cls, values: Any, source: Path) -> NerfConfig:
        """Undo `to_json`. Raises UserError, naming `source`, for what is no such configuration."""
        what = "a train-nerf configuration"
        config = cls(**typed_values(cls, values, source, what))
        try:
            config.check()
        except UserError as error:
            raise UserError(f"{source}: not {what} of this version: {error}") from error
        return config


_POSITIVE = """steps rays samples chunk lr lr_final image_scale scene_scale far width layers proposal_width
    proposal_layers coarse_samples fine_samples march_steps checkpoint_interval video_scale fps mesh_level"""
_NOT_NEGATIVE = """warmup_steps near center_crop_steps interlevel_weight distortion_weight opacity_weight
    bottleneck_noise normal_weight orientation_weight evaluate_interval evaluate_views video_frames"""
_RANGES = {
    "octaves": (1, 32), "hash_levels": (1, 32), "hash_table": (1, 24), "hash_finest": (1, 2**16),
    "grid_resolution": (1, 512), "ide_levels": (1, 5), "seed": (0, 2**63 - 1),
}  # fmt: skip
_ONLY_OF: dict[tuple[str, ...], str] = {
    ("fast",): "samples hash_levels hash_table hash_finest grid_resolution march_steps",
    ("nerf", "mip-nerf", "mip-nerf-360", "ref-nerf"): "octaves coarse_samples fine_samples distortion_weight",
    ("mip-nerf-360", "ref-nerf"): "proposal_width proposal_layers interlevel_weight",
    ("ref-nerf",): "srgb ide_levels bottleneck_noise normal_weight orientation_weight prop_normal",
}

# Defaults on a GPU and on a CPU; _MODELS goes first.
_COMMON: tuple[dict[str, Any], dict[str, Any]] = (
    {"checkpoint_interval": 1000, "evaluate_interval": 1000, "evaluate_views": 0, "random_background": False},
    {"checkpoint_interval": 250, "evaluate_interval": 500, "evaluate_views": 25, "random_background": False},
)
_CLASSIC_GPU: dict[str, Any] = {
    "steps": 20000, "rays": 4096, "chunk": 4096, "lr": 1e-3, "lr_final": 0.01, "warmup_steps": 500, "width": 256,
    "layers": 8, "octaves": 10, "proposal_width": 256, "coarse_samples": 64, "fine_samples": 128,
    "distortion_weight": 0.0,
}  # fmt: skip
_CLASSIC_CPU: dict[str, Any] = {
    **_CLASSIC_GPU, "steps": 6000, "rays": 512, "chunk": 128, "width": 96, "layers": 4, "octaves": 8,
    "proposal_width": 48, "coarse_samples": 24, "fine_samples": 32, "warmup_steps": 100, "lr": 2e-3, "lr_final": 0.1,
}  # fmt: skip
_FAST: tuple[dict[str, Any], dict[str, Any]] = (
    {
        "steps": 5000, "rays": 16384, "samples": 2**18, "chunk": 16384, "lr": 1e-2, "lr_final": 0.03,
        "warmup_steps": 100, "width": 64, "layers": 1, "hash_levels": 16, "hash_table": 19, "hash_finest": 2048,
        "grid_resolution": 128, "march_steps": 1024, "distortion_weight": 0.0, "random_background": True,
    },
    {
        "steps": 2000, "rays": 4096, "samples": 2**15, "chunk": 1024, "lr": 1e-2, "lr_final": 0.03,
        "warmup_steps": 50, "width": 32, "layers": 1, "hash_levels": 8, "hash_table": 17, "hash_finest": 256,
        "grid_resolution": 64, "march_steps": 256, "distortion_weight": 0.0, "random_background": True,
    },
)  # fmt: skip
_PROPOSALS = {"distortion_weight": 5e-4}  # beside a squared error, which falls below the authors' Charbonnier loss
_MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fast": _FAST,
    "nerf": (_CLASSIC_GPU, _CLASSIC_CPU),
    "mip-nerf": ({**_CLASSIC_GPU, "octaves": 16}, {**_CLASSIC_CPU, "octaves": 12}),
    "mip-nerf-360": (
        {**_CLASSIC_GPU, **_PROPOSALS, "octaves": 16, "fine_samples": 64},
        {**_CLASSIC_CPU, **_PROPOSALS, "octaves": 12},
    ),
    "ref-nerf": (
        {**_CLASSIC_GPU, **_PROPOSALS, "octaves": 16, "fine_samples": 64},
        {**_CLASSIC_CPU, **_PROPOSALS, "octaves": 12},
    ),
}
