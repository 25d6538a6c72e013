"""The settings of `sdfgan train-sdf`: a frozen dataclass whose fields are its flags, and the presets behind them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sdfgan.errors import UserError
from sdfgan.training.config import (
    AtMost,
    Cells,
    Config,
    Count,
    Device,
    Essential,
    Faces,
    Formerly,
    NotNegative,
    Positive,
    Scale,
    Section,
    Texels,
    VideoFormat,
    Weight,
    check_mesh_flags,
    from_json,
)

DAM_WIDTHS = (333, 442, 351, 340, 304, 139, 76, 53, 39, 36, 35)  # of --dam-arch
MAX_CELLS = 2048  # along a side of the grid of a mesh
ScalerName = Literal["none", "StandardScaler", "PowerTransformer", "QuantileTransformer"]


@dataclass(frozen=True)
class SdfConfig(Config):
    """Fit neural signed-distance fields to meshes: one network for a file, or one for each file of a folder."""

    input: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MESH"), Section("Run"), Essential] = None
    """STL, OBJ, PLY, OFF or GLB, .npz of samples (points, distances; or DeepSDF's pos, neg), or a folder of these."""
    output_dir: Annotated[Path | None, Essential] = None
    """Run folder; for a folder of meshes it holds one run folder per mesh. Default: the first free runs/sdf-NNN."""
    resume: Annotated[Path | None, Essential] = None
    """Continue the run (or the folder of runs) in this folder, with its own settings."""
    preset: Annotated[Literal["low", "medium", "high", "ultra"], Essential] = "medium"
    """How much time to spend: decides what is not given below (together with the network)."""
    seed: Annotated[int, NotNegative, AtMost(2**32 - 1), Essential] = 0
    """Random seed of samples and initial weights."""

    network: Annotated[Literal["hash", "mlp", "film-siren"] | None, Section("Network"), Essential] = None
    """hash: features of a hash grid and a small network, by far the fastest. mlp: layers of --activation. film-siren:
    sine layers with a latent, which the fused tracer can render. Default: hash, or mlp where --num-layers, --width,
    --dam-arch or --octaves is given."""
    field: Annotated[Literal["auto", "signed", "unsigned"], Essential] = "auto"
    """signed: negative inside. unsigned: the distance to an open surface, which has no inside. auto: unsigned for
    meshes that are mostly open surfaces, or thinner than half a cell of the preset's mesh; else signed."""
    activation: Literal["relu", "leaky-relu", "softplus", "siren"] = "relu"
    """Non-linearity of hash and mlp."""
    num_layers: Annotated[int | None, Positive, AtMost(1000)] = None
    """Hidden layers. Default: 1 or 2 for hash, 8 for mlp, 4 for film-siren."""
    width: Annotated[int | None, Positive, AtMost(2**16)] = None
    """Units per hidden layer. Default: 32 or 64 for hash, 256 for mlp, 64 for film-siren."""
    dam_arch: Literal[0, 1] = 0
    """1: eleven hidden layers of 333 to 35 units, as found by discriminative masking; --num-layers is not used."""
    init: Literal["he_uniform", "he_normal", "xavier_uniform", "xavier_normal"] = "he_uniform"
    """Initial weights of hash and mlp; siren layers have their own."""
    octaves: Annotated[int, NotNegative, AtMost(64)] = 0
    """Frequencies of a positional encoding before an mlp; 0: none."""
    levels: Annotated[int | None, Positive, AtMost(32)] = None
    """Levels of the hash grid."""
    finest: Annotated[int | None, Positive, AtMost(2**20)] = None
    """Cells along a side of the finest level."""
    log2_size: Annotated[int | None, NotNegative, AtMost(28)] = None
    """Binary logarithm of the maximum number of entries of a level."""
    smooth: bool = False
    """Interpolate the hash grid with a continuous gradient: smoother normals."""

    normalise: Annotated[Literal["ball", "box"], Section("Samples")] = "ball"
    """Shape that a mesh is scaled into before training: the unit sphere or the unit box."""
    num_points: Annotated[int | None, Positive, AtMost(10**9), Essential] = None
    """Training samples of each mesh."""
    sampling: Annotated[Literal["mixed", "importance", "surface", "uniform", "curvature"], Essential] = "mixed"
    """Where samples lie. mixed, importance: mostly near the surface; uniform: in the whole cube; surface: beside the
    surface alone; curvature: more of these where it bends."""
    beta: Weight = 30.0
    """Importance sampling: the density falls as exp(-beta |distance|)."""

    loss: Annotated[Literal["l1", "l2", "clamped"], Section("Losses")] = "l1"
    """Loss of distances; clamped: l1 of distances clamped at --clamp (DeepSDF)."""
    clamp: Scale = 0.1
    """Clamping distance, in units of the normalised mesh."""
    focus: Weight | None = None
    """Errors are weighted by 1 / (|distance| + focus), most near the surface; 0: all alike. Default: 0.005
    for hash, else 0."""
    weighted: bool = False
    """Weight samples by the inverse of their density: the mean is then that over the cube."""
    eikonal_weight: Weight = 0.0
    """Weight of (|gradient| - 1)^2."""
    normal_weight: Weight = 0.0
    """Weight of 1 - cosine of the gradient and the true normal, within 0.05 of the surface."""
    scaler: ScalerName = "none"
    """Transform values to a distribution that is easier to learn."""
    scaler_of: Literal["targets", "inputs", "both"] = "targets"
    """Which values: distances, coordinates, or both."""

    epochs: Annotated[Count | None, Section("Schedule"), Essential] = None
    """Passes over the samples, each in another order."""
    batch_size: Annotated[int | None, Positive, AtMost(10**8)] = None
    """Samples per step."""
    learning_rate: Annotated[Scale | None, Formerly("lr")] = None
    """Adam's learning rate; that of a hash grid's table is five times as large."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """How the learning rate falls: cosine and linear to 2%, step to a tenth after 60% and 85% of the run."""
    checkpoint_seconds: Scale = 120.0
    """Seconds between checkpoints."""

    metrics: Annotated[bool, Section("Evaluation")] = True
    """Measure the result against the mesh."""
    validation_resolution: Annotated[int, NotNegative, AtMost(512), Formerly("validation_res")] = 0
    """Grid points along a side at which the error is measured after each epoch; 0: none."""

    mesh_resolution: Annotated[
        int | None, Cells, AtMost(MAX_CELLS), Section("Mesh and images"), Essential, Formerly("reconstruction_res")
    ] = None
    """Grid cells along a side of the mesh made at the end; 0: none."""
    refine_thin: bool = True
    """Use up to twice as many cells for what is thin: in the mesh, where more than 5% of the model is thinner than a
    cell, and of every unsigned field; of an unsigned field that thin, also in the finest level of the hash grid."""
    mesh_format: Annotated[Literal["glb", "stl", "obj", "ply"], Essential] = "glb"
    """Format of the mesh."""
    faces: Annotated[Faces, Essential] = 0
    """Maximum number of triangles of the mesh, which is then simplified; 0: all. Needs the extra sdfgan[meshes]."""
    texture_resolution: Annotated[Texels, Essential] = 0
    """Side in texels of the texture of the mesh (GLB), with the colours of MESH's file; 0: none. Needs the extra
    sdfgan[meshes]."""
    show_vis: Annotated[Literal[0, 1], Essential] = 0
    """1: also slices, error maps (PNG) and a turntable video."""
    video_frames: Annotated[int, NotNegative, AtMost(10**6)] = 36
    """Frames of the turntable of --show-vis 1; 0: no video."""
    video_format: VideoFormat = "mp4"
    """Format of the turntable: mp4 needs ffmpeg; gif and webp do not, and play in web pages."""

    device: Annotated[Device, Section("Hardware"), Essential] = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network's products in training."""
    together: Annotated[int | None, Positive, AtMost(1000)] = None
    """Networks of a folder that are trained in one batched step. Default: 8 where they are small, else 1."""

    def resolved(self) -> ResolvedSdfConfig:
        """The same with everything decided and checked; UserError."""
        from sdfgan.training.device import resolve_device

        check_mesh_flags(self, self.mesh_format)
        given = {name: value for name, value in self.values().items() if value is not None}
        device = str(resolve_device(self.device))
        config = ResolvedSdfConfig(**{**self.values(), **self.defaults(), **given, "device": device})
        config.check()
        return config

    def defaults(self, on_cpu: bool = True) -> dict[str, Any]:
        """What the preset and the network decide where it is not given."""
        is_mlp = self.dam_arch or self.num_layers is not None or self.width is not None or self.octaves
        network = self.network or ("mlp" if is_mlp else "hash")
        found = {"network": network, **NETWORKS[network], **PRESETS[network == "hash"][self.preset]}
        if network == "mlp" and self.activation == "siren":
            found["learning_rate"] = 1e-4
        layers, width = self.num_layers or found["num_layers"], self.width or found["width"]
        is_small = layers * width <= 512 and not (self.dam_arch or self.eikonal_weight or self.normal_weight)
        return {**found, "together": 8 if is_small else 1}

    @classmethod
    def from_json(cls, values: Any, source: Path) -> ResolvedSdfConfig:
        """The configuration of a model, which `to_json` made. Raises UserError, naming `source`, for what is none."""
        if isinstance(values, dict) and values.get("focus") is None:  # of an early version
            values = {**values, "focus": 0.0}
        if isinstance(values, dict) and "field" not in values:  # of a version that knew signed fields alone
            values = {"field": "signed", "refine_thin": False, **values}
        return from_json(ResolvedSdfConfig, values, source, "the configuration of an SDF")


@dataclass(frozen=True, kw_only=True)
class ResolvedSdfConfig(SdfConfig):
    """Settings of which none is left to be decided, as those of a run are."""

    network: Literal["hash", "mlp", "film-siren"]
    num_layers: int
    width: int
    levels: int
    finest: int
    log2_size: int
    num_points: int
    epochs: int
    batch_size: int
    learning_rate: float
    focus: float
    together: int
    mesh_resolution: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden layers."""
        return DAM_WIDTHS if self.dam_arch else (self.width,) * self.num_layers

    @property
    def sheet_allowed(self) -> bool:
        """Whether --field auto may choose an unsigned field."""
        return self.field == "auto" and self.network != "film-siren"

    @property
    def preset_cells(self) -> int:
        """Cells along a side of the preset's mesh."""
        return PRESETS[self.network == "hash"][self.preset]["mesh_resolution"]

    @property
    def finer(self) -> int:
        """`finest` for many sheets: twice the preset's, unless that is unwanted or a coarser level was asked for."""
        usual = PRESETS[True][self.preset]["finest"]
        is_finer = self.network == "hash" and self.refine_thin and self.finest >= usual
        return max(self.finest, 2 * usual) if is_finer else self.finest

    @property
    def finest_shown(self) -> int:
        """Cells along a side of the grid that tells how thin a mesh is: a coarse mesh may be asked for, but
        the field is to be as good as the preset's."""
        return max(self.mesh_resolution, self.preset_cells)

    def check(self) -> None:
        """Raises UserError for settings that do not go together."""
        if self.network == "film-siren" and self.field == "unsigned":
            raise UserError(
                "--field unsigned is for --network hash and mlp: the fused kernels do not support absolute values"
            )
        if self.network == "film-siren" and self.scaler != "none":
            raise UserError("--scaler is for --network hash and mlp: the fused kernels do not support scalers")
        if self.weighted and self.sampling in ("surface", "curvature"):
            raise UserError(f"--weighted: samples of --sampling {self.sampling} have no weights (all are 1)")
        if self.together > 1 and (self.eikonal_weight or self.normal_weight):
            raise UserError("--together must be 1 where the loss takes gradients (--eikonal-weight, --normal-weight)")


_NO_GRID = {"focus": 0.0, "levels": 1, "finest": 8, "log2_size": 10}

# What is decided by the network alone.
NETWORKS: dict[str, dict[str, Any]] = {
    "hash": {"learning_rate": 2e-3, "focus": 0.005},
    "mlp": {"num_layers": 8, "width": 256, "learning_rate": 1e-3, **_NO_GRID},
    "film-siren": {"num_layers": 4, "width": 64, "learning_rate": 5e-4, **_NO_GRID},
}

# By whether the network is a hash grid, then by name. The others have the values of Neural Implicit Tools.
PRESETS: dict[bool, dict[str, dict[str, Any]]] = {
    True: {
        "low": {
            "num_points": 500_000, "epochs": 4, "batch_size": 4096, "num_layers": 1, "width": 32,
            "levels": 4, "finest": 48, "log2_size": 17, "mesh_resolution": 128,
        },
        "medium": {
            "num_points": 1_000_000, "epochs": 5, "batch_size": 2048, "num_layers": 1, "width": 32,
            "levels": 4, "finest": 64, "log2_size": 19, "mesh_resolution": 192, "learning_rate": 1e-3,
        },
        "high": {
            "num_points": 3_000_000, "epochs": 6, "batch_size": 4096, "num_layers": 1, "width": 64,
            "levels": 5, "finest": 96, "log2_size": 20, "mesh_resolution": 256, "learning_rate": 1e-3,
        },
        "ultra": {
            "num_points": 5_000_000, "epochs": 12, "batch_size": 8192, "num_layers": 2, "width": 64,
            "levels": 6, "finest": 160, "log2_size": 20, "mesh_resolution": 256, "learning_rate": 1e-3,
        },
    },
    False: {
        "low": {"num_points": 2_000_000, "epochs": 4, "batch_size": 1024, "mesh_resolution": 256},
        "medium": {"num_points": 5_000_000, "epochs": 3, "batch_size": 2048, "mesh_resolution": 256},
        "high": {"num_points": 5_000_000, "epochs": 6, "batch_size": 1024, "mesh_resolution": 256},
        "ultra": {"num_points": 5_000_000, "epochs": 6, "batch_size": 512, "mesh_resolution": 256},
    },
}  # fmt: skip
