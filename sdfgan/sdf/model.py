"""The field of a configuration, and its file: model.safetensors holds the weights and, as its metadata, the rest."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from sdfgan.errors import UserError, one_line
from sdfgan.fields.coordinate import CoordinateSDF, FixedLatent, Perceptron, PositionalEncoding
from sdfgan.fields.film_siren import FilmSirenSDF
from sdfgan.fields.hash_grid import HashGrid
from sdfgan.meshes.normalise import Placement
from sdfgan.sdf.config import ResolvedSdfConfig, SdfConfig
from sdfgan.sdf.scalers import SCALERS, Scaler
from sdfgan.training.checkpoint import require_finite
from sdfgan.training.files import parse_json, save_tensors

MODEL = "model.safetensors"
MESH = "mesh"  # the stem of what is made from it
_KEY = "sdfgan-sdf"  # of the metadata
_COARSEST = 8  # cells of a hash grid
_LATENT = 16  # length


class MeshSDF(CoordinateSDF):
    """The field of one mesh, in the unit ball or cube; `placement` says where the mesh lay, `source` its file."""

    placement: Placement
    source: Path | None


def make_field(config: ResolvedSdfConfig, samples: tuple[Tensor, Tensor] | None, placement: Placement) -> MeshSDF:
    """A fresh field of a resolved configuration; scalers are fitted to `samples` (points [N, 3], distances [N])."""
    network: nn.Module
    encoding: nn.Module | None = None
    inputs, targets = (
        _scaler(config, kind, columns, None if samples is None else samples[index].view(-1, columns))
        for index, (kind, columns) in enumerate((("inputs", 3), ("targets", 1)))
    )
    if config.network == "film-siren":
        family = FilmSirenSDF(
            width=config.width, trunk_layers=max(config.num_layers - 1, 1), latent_size=_LATENT, mapping_width=32
        )
        network = FixedLatent(family)
    else:
        width = 3
        if config.network == "hash":
            encoding = HashGrid(
                levels=config.levels, log2_size=config.log2_size, coarsest=min(_COARSEST, config.finest),
                finest=config.finest, smooth=config.smooth, bound=1.0,
            )  # fmt: skip
            width = encoding.width
        elif config.octaves:
            encoding = PositionalEncoding(config.octaves)
            width = encoding.width
        network = Perceptron(width, config.widths, config.activation, config.init)
    extent = 1.0 if config.normalise == "ball" else math.sqrt(3)
    field = MeshSDF(network, encoding, inputs, targets, extent, unsigned=config.field == "unsigned")
    if isinstance(encoding, HashGrid) and inputs is not None:
        corners = inputs(torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3))
        encoding.bound.fill_(corners.abs().max())
    field.placement, field.source = placement, config.input
    return field


def _scaler(config: ResolvedSdfConfig, kind: str, columns: int, values: Tensor | None) -> Scaler | None:
    if config.scaler == "none" or config.scaler_of not in (kind, "both"):
        return None
    scaler = SCALERS[config.scaler](columns)
    return scaler if values is None else scaler.fit(values)


def save_model(path: Path, field: MeshSDF, config: ResolvedSdfConfig) -> None:
    """Write a field, atomically."""
    metadata = {"format": 1, "config": config.to_json(), "placement": field.placement._asdict()}
    save_tensors(path, field.state_dict(), {_KEY: json.dumps(metadata)})


def load(path: str | Path, device: torch.device | str = "cpu") -> MeshSDF:
    """The field that `sdfgan train-sdf` made: of a run folder or of its model.safetensors.

    Every renderer and `meshes.marching_cubes` take it. Its coordinates are those of the normalised mesh;
    `field.placement.original(points)` gives the mesh's own.

    Raises UserError, naming the file, for anything else.
    """
    path = Path(path)
    path = path / MODEL if path.is_dir() else path
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = parse_json((file.metadata() or {}).get(_KEY, "null").encode())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: not a readable model: {one_line(error)}") from error
    config, placement = _description(metadata, path)
    try:
        with torch.device("meta"):  # takes no memory, whatever the configuration asks for
            field = make_field(config, None, placement)
    except (RuntimeError, OverflowError, ValueError, TypeError, AssertionError) as error:
        raise UserError(f"{path}: its configuration makes no field: {one_line(error)[:200]}") from error
    wanted = {name: (tensor.shape, tensor.dtype) for name, tensor in field.state_dict().items()}
    if wanted != {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}:
        raise UserError(f"{path}: its tensors are not those of its configuration")
    require_finite(tensors, path)
    field.load_state_dict(tensors, assign=True)
    return field.to(device).requires_grad_(False)


def _description(metadata: Any, path: Path) -> tuple[ResolvedSdfConfig, Placement]:
    try:
        if metadata["format"] != 1:
            raise UserError(f"{path}: expected a model of format 1, got {metadata['format']}")
        config = SdfConfig.from_json(metadata["config"], path)
        x, y, z = (float(value) for value in metadata["placement"]["centre"])
        placement = Placement((x, y, z), float(metadata["placement"]["scale"]))
        assert all(map(math.isfinite, (x, y, z))) and 0 < placement.scale < math.inf
        return config, placement
    except (TypeError, KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{path}: not a model that sdfgan train-sdf made") from error
