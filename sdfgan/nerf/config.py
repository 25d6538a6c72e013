"""The configuration of a radiance-field run: its fields are the flags of `sdfgan train-nerf`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sdfgan.errors import UserError
from sdfgan.training.config import (
    AtMost,
    Between,
    Config,
    Count,
    Device,
    Essential,
    Faces,
    Formerly,
    MeshCells,
    Natural,
    NotNegative,
    Positive,
    Rule,
    Scale,
    Section,
    Share,
    Texels,
    VideoFormat,
    Weight,
    check_mesh_flags,
    flag_of,
    from_json,
    settings_of,
)

Model = Literal["fast", "surface", "nerf", "mip-nerf", "mip-nerf-360", "ref-nerf"]

GRID_MODELS = ("fast", "surface")  # of a hash grid, marched through an occupancy grid
CLASSIC_MODELS = ("nerf", "mip-nerf", "mip-nerf-360", "ref-nerf")
POINT_MODELS = ("fast", "surface", "nerf")  # the others' cones are not differentiable in their rays

_Reduction = Rule("be in (0, 1]", lambda x: 0 < x <= 1, "> 0, <= 1")


@dataclass(frozen=True)
class NerfConfig(Config):
    """Train a radiance field of a scene from posed images; the run ends with scores, videos and a mesh.

    Many defaults depend on the model and the device; a run's config.json says what they were.
    """

    data: Annotated[Path | None, Section("Run"), Essential] = None
    """Folder of the scene: transforms_train.json (Blender), transforms.json (instant-ngp, nerfstudio) or COLMAP's
    sparse/0."""
    dataset_name: str | None = None
    """Name of the scene's folder inside --data."""
    output_dir: Annotated[Path | None, Essential] = None
    """Run folder. Default: runs/nerf-001, -002 ..."""
    resume: Annotated[Path | None, Essential] = None
    """Continue this run or checkpoint, with its own settings."""
    dry_run: Annotated[bool, Essential] = False
    """Load the scene, report what would be done, and stop."""
    seed: Annotated[Natural, Essential] = 0
    """Random seed."""

    image_scale: Annotated[float, _Reduction, Section("Data"), Essential] = 1.0
    """Scale the images down to this share of their width and height."""
    scene_scale: Scale = 1.0
    """Scales the cube around an object (half side 1.5); for images without alpha, the radius of the sphere that is not
    contracted, which otherwise reaches to the farthest camera."""
    background: Annotated[Literal["auto", "white", "black"], Essential] = "auto"
    """Background behind images with alpha. auto: white for these, black for photographs."""
    random_background: bool | None = None
    """Composite images with alpha onto random colours in training, so that no geometry passes for background."""
    near: Weight | None = None
    """Where rays begin, in scene units (the cube's half side). Default: at the cube; in unbounded scenes 0.2, and 0.05
    for fast."""
    far: Scale | None = None
    """Where rays end. Default: where they leave the cube; 1000 in unbounded scenes."""

    model: Annotated[Model, Section("Model"), Essential] = "fast"
    """fast: hash grid and occupancy grid. surface: a signed distance in such a grid, for clean meshes. nerf: the
    original. mip-nerf: cones. mip-nerf-360: proposals and distortion loss. ref-nerf: mip-nerf-360 with reflected
    directions and predicted normals."""
    width: Annotated[int | None, Positive, AtMost(4096)] = None
    """Units per layer."""
    layers: Annotated[int | None, Positive, AtMost(64)] = None
    """Layers before the density."""
    octaves: Annotated[int | None, Between(1, 32)] = None
    """Frequencies of the positional encoding."""
    proposal_width: Annotated[int | None, Positive, AtMost(4096)] = None
    """Units per layer of the proposal network."""
    proposal_layers: Annotated[int, Positive, AtMost(64)] = 4
    """Layers of the proposal network."""
    coarse_samples: Annotated[int | None, Positive, AtMost(4096)] = None
    """Samples per ray of the first pass, or of each proposal."""
    fine_samples: Annotated[int | None, Positive, AtMost(4096)] = None
    """Samples per ray of the last pass."""
    hash_levels: Annotated[int | None, Between(1, 32)] = None
    """Levels of the hash grid."""
    hash_table: Annotated[int | None, Between(1, 24)] = None
    """Binary logarithm of the entries of a level's table."""
    hash_finest: Annotated[int | None, Between(1, 65536)] = None
    """Cells across the scene of the finest level."""
    grid_resolution: Annotated[int | None, Between(1, 512)] = None
    """Cells across the scene of the occupancy grid."""
    march_steps: Annotated[int | None, Positive, AtMost(2**16)] = None
    """Samples across the diagonal of the scene's cube when marching through the occupancy grid."""
    visual_hull: bool | None = None
    """Classic models, images with alpha: sample rays only where every image that looks there shows something."""
    exposure: Annotated[bool, Essential] = False
    """Learn a factor on the red, green and blue of each training image, for photographs whose exposure or white balance
    varies. Their geometric mean is 1; other views are seen at that."""
    refine_cameras: Annotated[bool, Essential] = False
    """Correct the pose of each training image by a small rotation and translation, learnt with the scene: for poses
    that are a little wrong, as those of phones are. Writes the corrected cameras into the run folder."""
    srgb: bool = True
    """Ref-NeRF: add diffuse and specular light in linear colours, then convert to sRGB."""
    ide_levels: Annotated[int, Between(1, 5)] = 5
    """Ref-NeRF: levels of the directional encoding."""

    surface_density: Annotated[Literal["volsdf", "neus"], Essential] = "neus"
    """surface: how a distance becomes a density, by the formula of VolSDF or of NeuS."""
    thickness: Scale = 0.1
    """surface: width of the density around the surface at the beginning, in scene units (the cube's half side)."""
    thickness_final: Scale = 0.002
    """surface: the same at the end."""
    sphere_radius: Annotated[float | None, Positive, AtMost(1)] = None
    """surface: radius of the sphere that training begins with, in scene units. Default: 0.7; in unbounded scenes, whose
    cameras must be outside of it, 0.4."""
    coarse_levels: Annotated[int, Between(1, 32)] = 4
    """surface: levels of the hash grid in use at the beginning; finer ones follow one by one."""
    coarse_share: Share = 0.5
    """surface: share of the steps after which all levels are in use."""

    distortion_weight: Annotated[Weight | None, Section("Losses")] = None
    """Weight of the distortion loss of mip-NeRF 360, which concentrates the weights along a ray."""
    opacity_weight: Weight = 0.0
    """Weight of the entropy of ray opacities, which makes objects opaque."""
    ray_entropy_weight: Weight = 0.0
    """Weight of the entropy of the density along rays (InfoNeRF), also such as no camera has: against fog if views are
    few."""
    interlevel_weight: Weight = 1.0
    """Weight of the interlevel loss, by which proposals learn."""
    eikonal_weight: Weight = 0.1
    """surface: weight of the loss on gradients whose length is not 1."""
    curvature_weight: Weight = 0.02
    """surface: weight of the loss on normals that turn within a cell of the finest grid."""
    mask_weight: Weight = 0.1
    """surface: weight of the cross entropy of opacity and the images' alpha, where they have it."""
    bottleneck_noise: Weight = 0.02
    """Ref-NeRF: standard deviation of noise on the bottleneck in training."""
    normal_weight: Weight | None = None
    """Ref-NeRF: weight of the difference between predicted normals and those of the density, by which both learn."""
    predicted_normal_weight: Weight = 0.02
    """Ref-NeRF: weight of the same difference, by which predicted normals alone learn."""
    normal_deviation: Weight = 0.03
    """Ref-NeRF: by how much wider Gaussians are for the normals of the density, in scene units (the cube's half
    side)."""
    normal_share: Annotated[float, _Reduction] = 0.25
    """Ref-NeRF: share of a step's rays for which the normals of the density are made for that loss."""
    orientation_weight: Weight = 0.1
    """Ref-NeRF: weight of the loss on visible normals that face away from the camera."""
    prop_normal: bool = False
    """Ref-NeRF: apply the loss on predicted normals to the proposal network's density, too."""

    steps: Annotated[Count | None, Section("Schedule"), Essential] = None
    """Training steps."""
    rays: Annotated[int | None, Positive, AtMost(2**24), Essential] = None
    """Rays per step, over all processes."""
    samples: Annotated[int | None, Positive, AtMost(2**28)] = None
    """fast: samples evaluated per step; the number of rays adapts to it, up to --rays."""
    surface_steps: Annotated[Natural, Essential] = 0
    """surface: of the steps, the last so many see the surface itself, raycast with exact edges, instead of its
    volume."""
    learning_rate: Annotated[Scale | None, Essential, Formerly("lr")] = None
    """Adam's largest learning rate."""
    learning_rate_final: Annotated[float | None, Positive, AtMost(1), Formerly("lr_final")] = None
    """Final learning rate as a share of the largest; it falls exponentially."""
    warmup_steps: Natural | None = None
    """Steps over which the learning rate rises, from 1%."""
    camera_learning_rate: Scale = 1e-3
    """--refine-cameras: Adam's largest learning rate of rotations (radians) and translations (scene units); it rises
    and falls as the other one does."""
    gradient_clip: Annotated[float, Formerly("grad_clip")] = -1.0
    """Largest norm of the gradient; negative: not clipped."""
    center_crop_steps: Natural = 0
    """First steps, which use only the middle half of the images."""
    checkpoint_interval: Count | None = None
    """Steps between checkpoints."""

    evaluate_interval: Annotated[Natural | None, Section("Evaluation")] = None
    """Steps between evaluations of some validation views; 0: only at the end."""
    evaluate_views: Natural | None = None
    """Validation and test views, each, that are scored at the end, evenly chosen; 0: all."""
    lpips: Path | None = None
    """Weights of LPIPS (state dictionary of lpips.LPIPS(net="alex"), .pth or safetensors): adds LPIPS to the final
    scores."""

    video_frames: Annotated[int, NotNegative, AtMost(10**6), Section("Final images"), Essential] = 60
    """Frames of the orbit; 0: no videos."""
    video_scale: Scale | None = None
    """Size of videos, as a share of the training images'. Default: 1; on a CPU at most 320 pixels."""
    video_format: VideoFormat = "mp4"
    """Format of videos: mp4 needs ffmpeg; gif and webp do not, and play in web pages."""
    fps: Count = 24
    """Frames per second of videos."""
    render_depth: Annotated[bool, Essential] = False
    """Also make videos of depth."""
    render_normal: Annotated[bool, Essential] = False
    """Also make videos of normals."""
    render_test: bool = False
    """Also make a video along the test (or validation) poses."""
    mesh_resolution: Annotated[MeshCells, Essential] = 128
    """Grid cells per axis of the mesh made at the end; 0: none."""
    faces: Annotated[Faces, Essential] = 0
    """Maximum number of triangles of the mesh, which is then simplified; 0: all. Needs the extra sdfgan[meshes]."""
    texture_resolution: Annotated[Texels, Essential] = 0
    """Side in texels of the texture of the mesh (GLB); 0: colours at its vertices instead. Needs the extra
    sdfgan[meshes]."""
    mesh_level: Scale | None = None
    """Density at the surface of the mesh, per scene unit. Default: one that absorbs half of the light within two
    cells."""

    device: Annotated[Device, Section("Hardware"), Essential] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "amp", "bf16", "fp16"] = "auto"
    """Precision of the networks' matrix products. amp: bf16, or fp16 where a GPU lacks it. auto: fp32 on a CPU and for
    fast, else amp."""
    chunk_size: Annotated[int | None, Positive, AtMost(2**24), Formerly("chunk")] = None
    """Rays processed at a time; more take more memory. On a CPU chunks run in parallel."""

    @property
    def scene(self) -> Path:
        """The scene's folder."""
        if self.data is None and self.dataset_name is None:
            raise UserError("--data: the folder of a scene is needed")
        return (self.data or Path(".")) / (self.dataset_name or ".")

    def defaults(self, on_cpu: bool) -> dict[str, Any]:
        """What the device and the model decide where it is not given; also what only other models use."""
        found = {**_FAST[on_cpu], **_CLASSIC[on_cpu], **_COMMON[on_cpu], **_MODELS[self.model][on_cpu]}
        if self.refine_cameras:
            found["visual_hull"] = False  # what it cuts off is empty for ever, however cameras are corrected later
        return found if self.model in GRID_MODELS else {**found, "samples": None}

    def resolved(self) -> ResolvedNerfConfig:
        """The same with the device and everything that depends on it and on the model decided, and checked."""
        import torch

        from sdfgan.training.device import resolve_device

        if self.model not in _MODELS:
            raise UserError(f"--model must be one of {', '.join(_MODELS)}, got {self.model}")
        if not isinstance(self, ResolvedNerfConfig):
            self._check_used()
        check_mesh_flags(self)
        device = resolve_device(self.device)
        on_cpu = device.type == "cpu"
        precision = self.precision
        if precision == "auto":
            # The networks behind a hash grid are so small that casts take longer than they save.
            precision = "fp32" if on_cpu or self.model in GRID_MODELS else "amp"
        if precision == "amp":
            precision = "bf16" if on_cpu or torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        given = {name: value for name, value in self.values().items() if value is not None}
        chosen = {**self.values(), **self.defaults(on_cpu), **given, "device": str(device), "precision": precision}
        config = ResolvedNerfConfig(**chosen)
        config.check()
        return config

    def unused(self) -> set[str]:
        """See `Config.unused`."""
        return set(self._unused())

    def _unused(self) -> dict[str, tuple[str, ...]]:
        """The settings that the model has no use for, and the models that have."""
        others = {models: names for models, names in _ONLY_OF.items() if self.model not in models}
        return {name: models for models, names in others.items() for name in names.split()}

    def _check_used(self) -> None:
        """Raises UserError for a flag that the model has no use for."""
        for name, models in self._unused().items():
            usual = settings_of(NerfConfig)[name].field.default, *(one.get(name) for one in _MODELS[self.model])
            if getattr(self, name) not in usual:
                raise UserError(f"{flag_of(name)} is for --model {' or '.join(models)}, got {self.model}")

    @classmethod
    def from_json(cls, values: Any, source: Path) -> ResolvedNerfConfig:
        """The configuration of a run, which `to_json` made. Raises UserError, naming `source`, for what is none."""
        model: Any = values.get("model") if isinstance(values, dict) else None
        if model in list(_MODELS):  # which compares anything, as a dictionary does not
            usual = cls(model=model)
            defaults, unused = usual.defaults(on_cpu=True), usual.unused()
            # What its model does not use was null in earlier versions.
            values = {k: defaults.get(k) if v is None and k in unused else v for k, v in values.items()}
            for name in ("visual_hull", "predicted_normal_weight", "normal_deviation"):
                values.setdefault(name, False if name == "visual_hull" else 0.0)  # earlier versions had none
        return from_json(ResolvedNerfConfig, values, source, "a train-nerf configuration")


@dataclass(frozen=True, kw_only=True)
class ResolvedNerfConfig(NerfConfig):
    """Settings of which none is left to be decided, as those of a run are. None is only what the scene decides."""

    precision: Literal["fp32", "bf16", "fp16"]
    steps: int
    rays: int
    chunk_size: int
    learning_rate: float
    learning_rate_final: float
    warmup_steps: int
    random_background: bool
    width: int
    layers: int
    octaves: int
    proposal_width: int
    coarse_samples: int
    fine_samples: int
    hash_levels: int
    hash_table: int
    hash_finest: int
    grid_resolution: int
    march_steps: int
    distortion_weight: float
    normal_weight: float
    visual_hull: bool
    evaluate_interval: int
    evaluate_views: int
    checkpoint_interval: int

    def check(self) -> None:
        """Raises UserError for settings that do not go together."""
        if self.near is not None and self.far is not None and self.far <= self.near:
            raise UserError(f"--far must be more than --near, got {self.far} and {self.near}")
        if self.thickness_final > self.thickness:
            both = f"{self.thickness_final} and {self.thickness}"
            raise UserError(f"--thickness-final must not be more than --thickness, got {both}")
        if self.model == "surface" and self.coarse_levels > self.hash_levels:
            both = f"{self.coarse_levels} and {self.hash_levels}"
            raise UserError(f"--coarse-levels must not be more than --hash-levels, got {both}")
        if self.surface_steps > self.steps:
            raise UserError(f"--surface-steps must not be more than --steps, got {self.surface_steps} and {self.steps}")
        if self.refine_cameras and self.surface_steps:
            raise UserError(f"--surface-steps must be 0 with --refine-cameras, got {self.surface_steps}")
        if self.refine_cameras and self.visual_hull:
            raise UserError("--visual-hull must be False with --refine-cameras: it needs exact cameras")


_ONLY_OF: dict[tuple[str, ...], str] = {
    GRID_MODELS: "samples hash_levels hash_table hash_finest grid_resolution march_steps",
    ("surface",): "surface_density thickness thickness_final sphere_radius coarse_levels coarse_share eikonal_weight "
    "curvature_weight mask_weight surface_steps",
    ("fast", *CLASSIC_MODELS): "mesh_level",
    POINT_MODELS: "refine_cameras camera_learning_rate",
    CLASSIC_MODELS: "octaves coarse_samples fine_samples distortion_weight visual_hull",
    ("mip-nerf-360", "ref-nerf"): "proposal_width proposal_layers interlevel_weight",
    ("ref-nerf",): "srgb ide_levels bottleneck_noise normal_weight predicted_normal_weight normal_deviation "
    "normal_share orientation_weight prop_normal",
}

# Defaults on a GPU and on a CPU; _MODELS goes first.
_COMMON: tuple[dict[str, Any], dict[str, Any]] = (
    {"checkpoint_interval": 1000, "evaluate_interval": 1000, "evaluate_views": 0, "random_background": False},
    {"checkpoint_interval": 250, "evaluate_interval": 500, "evaluate_views": 25, "random_background": False},
)
_CLASSIC_GPU: dict[str, Any] = {
    "steps": 20000, "rays": 4096, "chunk_size": 4096,
    "learning_rate": 1e-3, "learning_rate_final": 0.01, "warmup_steps": 500, "width": 256,
    "layers": 8, "octaves": 10, "proposal_width": 256, "coarse_samples": 64, "fine_samples": 128,
    "distortion_weight": 0.0, "normal_weight": 3e-4, "visual_hull": False,
}  # fmt: skip
_CLASSIC_CPU: dict[str, Any] = {
    **_CLASSIC_GPU, "steps": 5000, "rays": 1024, "chunk_size": 512, "width": 64, "layers": 4, "octaves": 8,
    "proposal_width": 32, "coarse_samples": 16, "fine_samples": 24, "warmup_steps": 50,
    "learning_rate": 8e-3, "learning_rate_final": 0.03, "normal_weight": 0.0, "visual_hull": True,
}  # fmt: skip
_CLASSIC = (_CLASSIC_GPU, _CLASSIC_CPU)
_FAST: tuple[dict[str, Any], dict[str, Any]] = (
    {
        "steps": 5000, "rays": 16384, "samples": 2**18, "chunk_size": 16384,
        "learning_rate": 1e-2, "learning_rate_final": 0.03, "warmup_steps": 100,
        "width": 64, "layers": 1, "hash_levels": 16, "hash_table": 19, "hash_finest": 2048,
        "grid_resolution": 128, "march_steps": 1024, "distortion_weight": 0.0, "random_background": True,
    },
    {
        "steps": 2000, "rays": 4096, "samples": 2**15, "chunk_size": 2048,
        "learning_rate": 2e-2, "learning_rate_final": 0.03, "warmup_steps": 50,
        "width": 32, "layers": 1, "hash_levels": 8, "hash_table": 17, "hash_finest": 256,
        "grid_resolution": 64, "march_steps": 256, "distortion_weight": 0.0, "random_background": True,
    },
)  # fmt: skip
# Edges are as sharp as steps are short; smaller cells keep the samples around the surface few.
_SURFACE = (
    {**_FAST[0], "samples": 2**17, "march_steps": 2048, "grid_resolution": 256},
    {
        **_FAST[1], "samples": 2**14, "march_steps": 512, "grid_resolution": 128, "steps": 3000,
        "learning_rate": 1e-2,
    },
)  # fmt: skip
_PROPOSALS = {"distortion_weight": 5e-4}  # beside a squared error, which falls below the authors' Charbonnier loss
_MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fast": _FAST,
    "surface": _SURFACE,
    "nerf": _CLASSIC,
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
