"""Generators that dfr or pi-GAN trained, from files of tensors, as runs of this package."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sdfgan.cameras import pose_distribution
from sdfgan.errors import UserError
from sdfgan.fields import Field, PiGanField
from sdfgan.fields.dfr import LAYERS as DFR_LAYERS
from sdfgan.fields.dfr import DfrSDF
from sdfgan.gan.config import GanConfig
from sdfgan.gan.curricula import load_curriculum
from sdfgan.training.checkpoint import pack_module, require_finite, save_checkpoint
from sdfgan.training.weights import load_weights

Kind = Literal["auto", "dfr", "pi-gan"]
_BOX_WARP = 2 / 0.24  # pi-GAN's spatial variants scale coordinates by this
_RESOLUTION = 64  # where a curriculum says nothing
_CAMERA = ["poses", "elevation", "azimuth", "fov", "near_far", "resolution", "background", "data_layout"]


class Imported(NamedTuple):
    """What an import made."""

    checkpoint: Path
    config: GanConfig
    curriculum: str  # that the camera is of, as far as nothing else was said


def import_generator(
    path: Path,
    run: Path,
    kind: Kind = "auto",
    *,
    curriculum: str | None = None,
    camera: Mapping[str, Any] | None = None,
    level: float = 10.0,
    omegas: tuple[float, float] = (5.0, 15.0),
    box_warp: bool = True,
) -> Imported:
    """Write the generator in a file as the checkpoint of a new run folder.

    Args:
        curriculum: whose images it learned from, by name or as a file: `_CAMERA` are taken from it. Default: dfr;
            for pi-GAN celeba, or carla without `box_warp`.
        camera: what goes before that.
        level: density of pi-GAN's surface.
        omegas: frequencies of dfr's first and other layers.
        box_warp: pi-GAN's spatial variants, whose coordinates are scaled; not so TALLSIREN, and carla's.

    Raises UserError for what is no such file, or does not fit.
    """
    if run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UserError(f"{run}: exists; name a new folder")
    if not 0 < level < math.inf:
        raise UserError(f"--level must be a positive density, got {level}")
    tensors = load_weights(path)
    require_finite(tensors, path)
    found = "dfr" if any("sdfLayers." in n for n in tensors) else "pi-gan" if _siren_prefix(tensors) is not None else ""
    if not found or kind not in ("auto", found):
        raise UserError(f"{path}: expected the generator of {'dfr or pi-GAN' if kind == 'auto' else kind}; it has none")
    curriculum = curriculum or ("dfr" if found == "dfr" else "celeba" if box_warp else "carla")
    config = _seen_as(curriculum, camera or {}, found)
    generator: Field
    if found == "dfr":
        generator, settings = _dfr(tensors, path, omegas)
    else:
        box_warp = box_warp and curriculum.lower() != "carla"
        generator, settings = _pi_gan(tensors, path, level, math.tan(math.radians(config.fov) / 2), box_warp)
    config = dataclasses.replace(config, **settings)
    config.check()
    packed: dict[str, Tensor] = {}
    for name in ("generator", "ema", "ema_slow"):
        packed |= {key: tensor.clone() for key, tensor in pack_module(generator, name).items()}
    state = {"kind": "gan", "config": config.to_json(), "imported_from": str(path)}
    return Imported(save_checkpoint(run, 0, packed, state), config, curriculum)


def _seen_as(curriculum: str, camera: Mapping[str, Any], generator: str) -> GanConfig:
    """Of a generator that saw its shapes as a curriculum does in the end, but for what `camera` says; UserError."""
    found = load_curriculum(curriculum, GanConfig())
    settings = {"resolution": _RESOLUTION, **found.settings}
    for stage in found.stages:
        settings |= stage.changes
    seen = {name: settings[name] for name in _CAMERA if name in settings} | dict(camera)
    config = GanConfig(**{"device": "cpu", "generator": generator, **seen}).resolved()
    pose_distribution(config.poses, config.elevation, config.azimuth)
    return config


def _dfr(tensors: dict[str, Tensor], path: Path, omegas: tuple[float, float]) -> tuple[DfrSDF, dict]:
    """dfr's: film.*, layers.*, sdfLayers.*, txLayers.*; pairs (gamma, beta) for trunk, SDF and texture in turn."""
    prefix = next(name for name in tensors if "sdfLayers." in name).split("sdfLayers.")[0]
    own = {
        name.removeprefix(prefix).replace(".linear.", "."): t for name, t in tensors.items() if name.startswith(prefix)
    }
    try:
        width, mapping_width = own["layers.0.weight"].shape[0], own["film.0.weight"].shape[0]
        latent_size = own["film.0.weight"].shape[1]
        films = sorted(int(found[1]) for name in own if (found := re.fullmatch(r"film\.(\d+)\.weight", name)))
        shared = own[f"film.{films[-1]}.weight"].shape[0] == 2 * width
        generator = DfrSDF(width, latent_size, mapping_width, *omegas, shared=shared)
        layers = sum(isinstance(module, torch.nn.Linear) for module in generator.film)
        if len(films) != layers:
            raise UserError(f"{path}: dfr's mapping network must have {layers} layers here, got {len(films)}")
        names = {f"film.{index}": f"film.{index}" for index in films}
        for layer in range(DFR_LAYERS):
            theirs = (
                f"layers.{layer}" if layer < 4 else f"sdfLayers.{layer - 4}" if layer < 7 else f"txLayers.{layer - 7}"
            )
            names[theirs] = f"layers.{layer}"
        names |= {"sdfLayers.3": "sdf_head", "txLayers.3": "texture_head"}
        _load(generator, {f"{n}.{p}": own[f"{t}.{p}"] for t, n in names.items() for p in ("weight", "bias")}, path)
    except KeyError as error:
        raise UserError(f"{path}: not the generator of dfr's FiLM-SIREN version: {error.args[0]} is missing") from error
    settings = {
        "width": width,
        "latent_size": latent_size,
        "mapping_width": mapping_width,
        "latent_std": 2.5,
        "omega_first": omegas[0],
        "omega_hidden": omegas[1],
        "shared_film": shared,
    }
    return generator, settings


def _siren_prefix(tensors: dict[str, Tensor]) -> str | None:
    """What stands before the names of pi-GAN's network."""
    ends = "mapping_network.network.0.weight"
    return next((name.removesuffix(ends) for name in tensors if name.endswith(ends)), None)


def _pi_gan(
    tensors: dict[str, Tensor], path: Path, level: float, scale: float, box_warp: bool
) -> tuple[PiGanField, dict]:
    """pi-GAN's: siren.network.*.layer, final_layer, color_layer_sine.layer, color_layer_linear.0, mapping_network."""
    prefix = _siren_prefix(tensors)
    assert prefix is not None
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if "spatial_embeddings" in own:
        raise UserError(f"{path}: pi-GAN's variants with an embedding grid cannot be imported")
    try:
        width, latent_size = own["network.0.layer.weight"].shape[0], own["mapping_network.network.0.weight"].shape[1]
        mapping_width = own["mapping_network.network.0.weight"].shape[0]
        layers = len({name.split(".")[1] for name in own if name.startswith("network.")})
        box = _BOX_WARP if box_warp else 1.0
        generator = PiGanField(width, layers, latent_size, mapping_width, level, scale * box, gain=scale)
        names = {f"mapping_network.network.{index}": f"mapping.{index}" for index in (0, 2, 4, 6)}
        names |= {f"network.{index}.layer": f"layers.{index}" for index in range(layers)}
        names |= {
            "final_layer": "density_head",
            "color_layer_sine.layer": "color_layer",
            "color_layer_linear.0": "color_head",
        }
        _load(generator, {f"{n}.{p}": own[f"{t}.{p}"] for t, n in names.items() for p in ("weight", "bias")}, path)
    except KeyError as error:
        raise UserError(f"{path}: not the generator of a pi-GAN: {error.args[0]} is missing") from error
    generator.measure_slope()
    return generator, {
        "width": width,
        "latent_size": latent_size,
        "mapping_width": mapping_width,
        "trunk_layers": layers,
        "activation": "relu",
        "channels": 3,
    }


def _load(generator: torch.nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    for name, parameter in generator.named_parameters():
        if tensors[name].shape != parameter.shape:
            raise UserError(f"{path}: {name} must be {list(parameter.shape)}, got {list(tensors[name].shape)}")
        with torch.no_grad():
            parameter.copy_(tensors[name])
