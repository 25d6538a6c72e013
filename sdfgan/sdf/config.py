"""The settings of `sdfgan train-sdf`: a frozen dataclass whose fields are its flags, and the presets behind them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from sdfgan.checks import check_cells
from sdfgan.errors import UserError
from sdfgan.fields.coordinate import DAM_WIDTHS
from sdfgan.images import VideoFormat
from sdfgan.training.device import resolve_device
from sdfgan.training.settings import check_sizes, typed_values

_MAX = {
    "num_layers": 1000, "width": 2**16, "octaves": 64, "levels": 32, "finest": 2**20, "log2_size": 28,
    "validation_res": 512, "seed": 2**32 - 1,
}  # fmt: skip
MAX_CELLS = 2048  # along a side of the grid of a mesh
_AT_LEAST_1 = ("num_points", "epochs", "batch_size", "num_layers", "width", "levels", "finest", "together")
_ABOVE_0 = ("learning_rate", "clamp", "checkpoint_seconds")
ScalerName = Literal["none", "StandardScaler", "PowerTransformer", "QuantileTransformer"]


@dataclass(frozen=True)
class SdfConfig:
    """Turn meshes into neural signed-distance fields: a file, or each file of a folder its own network."""

    input: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="MESH")] = None
    """STL, OBJ, PLY, OFF or GLB, .npz of samples (points, distances; or DeepSDF's pos, neg), or a folder of these."""
    output_dir: Path | None = None
    """Run folder; of a folder of meshes, one run folder per mesh in it. Default: the first free runs/sdf-NNN."""
    resume: Path | None = None
    """Continue the run (or the folder of runs) in this folder, with its own settings."""
    preset: Literal["low", "medium", "high", "ultra"] = "medium"
    """How much time to spend; what is not given below comes from it (and from the network)."""
    network: Literal["hash", "mlp", "film-siren"] | None = None
    """hash: features of a hash grid and a small network, by far the fastest. mlp: layers of --activation. film-siren:
    sine layers with a latent, which the fused tracer takes. Default: hash, or mlp where --num-layers, --width,
    --dam-arch or --octaves is given."""
    field: Literal["auto", "signed", "unsigned"] = "auto"
    """signed: negative inside. unsigned: the distance to a sheet, which has no inside. auto: unsigned for what is
    mostly open sheets, or thinner than half a cell of the preset's mesh; else signed."""
    activation: Literal["relu", "leaky-relu", "softplus", "siren"] = "relu"
    """Non-linearity of hash and mlp."""
    num_layers: int | None = None
    """Hidden layers. Default: 1 or 2 for hash, 8 for mlp, 4 for film-siren."""
    width: int | None = None
    """Units of each. Default: 32 or 64 for hash, 256 for mlp, 64 for film-siren."""
    dam_arch: Literal[0, 1] = 0
    """1: the eleven hidden layers of 333 to 35 units that discriminative masking chose; --num-layers is not used."""
    init: Literal["he_uniform", "he_normal", "xavier_uniform", "xavier_normal"] = "he_uniform"
    """Initial weights of hash and mlp; siren layers have their own."""
    octaves: int = 0
    """Frequencies of a positional encoding before an mlp; 0: none."""
    levels: int | None = None
    """Grids of hash."""
    finest: int | None = None
    """Cells along a side of the finest of them."""
    log2_size: int | None = None
    """Logarithm of the most entries of a grid."""
    smooth: bool = False
    """Interpolate in hash with a continuous slope: smoother normals."""

    num_points: int | None = None
    """Training samples of each mesh."""
    sampling: Literal["mixed", "importance", "surface", "uniform", "curvature"] = "mixed"
    """Where they are; see docs/meshes.md."""
    beta: float = 30.0
    """Of importance sampling: its density falls as exp(-beta |distance|)."""
    epochs: int | None = None
    """Passes over the samples, in another order each."""
    batch_size: int | None = None
    """Samples per step."""
    learning_rate: float | None = None
    """Adam's; a hash grid's table takes five times as much."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """How it falls: cosine and linear to 2%, step to a tenth after 60% and 85% of the run."""
    loss: Literal["l1", "l2", "clamped"] = "l1"
    """Of distances; clamped: l1 of distances cut at --clamp (DeepSDF)."""
    clamp: float = 0.1
    """Where it cuts, in units of the normalised mesh."""
    focus: float | None = None
    """Errors count by 1 / (|distance| + this), so that near the surface they count most; 0: all alike. Default: 0.005
    for hash, else 0."""
    weighted: bool = False
    """Weigh samples by the inverse of their density: the mean is then that over the cube."""
    eikonal_weight: float = 0.0
    """Weight of (|gradient| - 1)^2."""
    normal_weight: float = 0.0
    """Weight of 1 - cosine of the gradient and the true normal, within 0.05 of the surface."""
    scaler: ScalerName = "none"
    """Map values to a handier distribution."""
    scaler_of: Literal["targets", "inputs", "both"] = "targets"
    """Which values: distances, coordinates, or both."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the network's products in training."""
    together: int | None = None
    """Networks of a folder that are trained in one batched step. Default: 8 where they are small, else 1."""

    normalise: Literal["ball", "box"] = "ball"
    """What a mesh is scaled into before training."""
    validation_res: int = 0
    """Grid points along a side at which the error is measured after each epoch; 0: none."""
    reconstruction_res: int | None = None
    """Grid cells along a side of the mesh made at the end; 0: none."""
    refine_thin: bool = True
    """Make it with up to twice as many where more than 5% of the model is thinner than a cell."""
    mesh_format: Literal["glb", "stl", "obj", "ply"] = "glb"
    """Its format."""
    show_vis: Literal[0, 1] = 0
    """1: also slices, error maps (PNG) and a turntable video."""
    video_format: VideoFormat = "mp4"
    """Format of the turntable: mp4 needs ffmpeg; gif and webp do not, and show in web pages."""
    metrics: bool = True
    """Measure the result against the mesh."""
    checkpoint_seconds: float = 120.0
    """Seconds between checkpoints."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of samples and initial weights."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Hidden layers of a resolved configuration."""
        assert self.num_layers is not None and self.width is not None
        return DAM_WIDTHS if self.dam_arch else (self.width,) * self.num_layers

    def resolved(self) -> SdfConfig:
        """The same with everything decided and checked; UserError."""
        config = self
        if config.network is None:
            asked = config.dam_arch or config.num_layers is not None or config.width is not None or config.octaves
            config = dataclasses.replace(config, network="mlp" if asked else "hash")
        assert config.network is not None
        defaults = {**NETWORKS[config.network], **PRESETS[config.network == "hash"][config.preset]}
        if config.learning_rate is None and config.network == "mlp" and config.activation == "siren":
            defaults["learning_rate"] = 1e-4
        chosen = {name: value for name, value in defaults.items() if getattr(config, name) is None}
        config = dataclasses.replace(config, **chosen, device=str(resolve_device(config.device)))
        if config.together is None:
            small = sum(config.widths) <= 512 and config.eikonal_weight == config.normal_weight == 0
            config = dataclasses.replace(config, together=8 if small else 1)
        check_cells("--reconstruction-res", config.reconstruction_res, MAX_CELLS)
        config.check()
        return config

    @property
    def sheet_allowed(self) -> bool:
        """Whether --field auto may choose an unsigned field."""
        return self.field == "auto" and self.network != "film-siren"

    @property
    def finest_shown(self) -> int:
        """Cells along a side of the grid by which it is judged how thin a mesh is: a coarse mesh may be asked for, but
        the field is to be as good as the preset's."""
        return max(self.reconstruction_res or 0, PRESETS[self.network == "hash"][self.preset]["reconstruction_res"])

    def check(self) -> None:
        """Raises UserError for settings that make no sense."""
        check_sizes(self)
        for name in _AT_LEAST_1:
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name, most in _MAX.items():
            if getattr(self, name) > most:
                raise UserError(f"--{name.replace('_', '-')} must be at most {most}, got {getattr(self, name)}")
        for name in _ABOVE_0:
            if not getattr(self, name) > 0:
                raise UserError(f"--{name.replace('_', '-')} must be positive, got {getattr(self, name)}")
        for name in (
            "eikonal_weight",
            "normal_weight",
            "validation_res",
            "beta",
            "octaves",
            "seed",
            "log2_size",
        ):
            if not getattr(self, name) >= 0:
                raise UserError(f"--{name.replace('_', '-')} must not be negative, got {getattr(self, name)}")
        if self.focus is not None and not self.focus >= 0:  # models of earlier versions have none
            raise UserError(f"--focus must not be negative, got {self.focus}")
        assert self.together is not None
        if self.network == "film-siren" and self.field == "unsigned":
            raise UserError("--field unsigned is for --network hash and mlp: the fused kernels know no absolute values")
        if self.network == "film-siren" and self.scaler != "none":
            raise UserError("--scaler is for --network hash and mlp: the fused kernels know no scalers")
        if self.weighted and self.sampling in ("surface", "curvature"):
            raise UserError(f"--weighted: samples of --sampling {self.sampling} have no weights (all are 1)")
        if self.together > 1 and (self.eikonal_weight or self.normal_weight):
            raise UserError("--together must be 1 where the loss takes gradients (--eikonal-weight, --normal-weight)")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: Any, source: Path) -> SdfConfig:
        """Undo `to_json`. Raises UserError, naming `source`, for what is no such configuration."""
        what = "the configuration of an SDF"
        if isinstance(values, dict) and "field" not in values:  # of a version that knew signed fields alone
            values = {"field": "signed", "focus": 0.0, "refine_thin": False, **values}
        config = cls(**typed_values(cls, values, source, what))
        missing = [name for name in (*_AT_LEAST_1, *_MAX, *_ABOVE_0, "network") if getattr(config, name) is None]
        try:
            if missing:
                raise UserError(f"{missing[0]} is missing")
            config.check()
        except UserError as error:
            raise UserError(f"{source}: not {what} of this version: {error}") from error
        return config


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
            "levels": 4, "finest": 48, "log2_size": 17, "reconstruction_res": 128,
        },
        "medium": {
            "num_points": 1_000_000, "epochs": 5, "batch_size": 2048, "num_layers": 1, "width": 32,
            "levels": 4, "finest": 64, "log2_size": 19, "reconstruction_res": 192, "learning_rate": 1e-3,
        },
        "high": {
            "num_points": 3_000_000, "epochs": 6, "batch_size": 4096, "num_layers": 1, "width": 64,
            "levels": 5, "finest": 96, "log2_size": 20, "reconstruction_res": 256, "learning_rate": 1e-3,
        },
        "ultra": {
            "num_points": 5_000_000, "epochs": 12, "batch_size": 8192, "num_layers": 2, "width": 64,
            "levels": 6, "finest": 160, "log2_size": 20, "reconstruction_res": 256, "learning_rate": 1e-3,
        },
    },
    False: {
        "low": {"num_points": 2_000_000, "epochs": 4, "batch_size": 1024, "reconstruction_res": 256},
        "medium": {"num_points": 5_000_000, "epochs": 3, "batch_size": 2048, "reconstruction_res": 256},
        "high": {"num_points": 5_000_000, "epochs": 6, "batch_size": 1024, "reconstruction_res": 256},
        "ultra": {"num_points": 5_000_000, "epochs": 6, "batch_size": 512, "reconstruction_res": 256},
    },
}  # fmt: skip
