"""Results of every kind that can be looked at, untrained: made in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import trimesh

from sdfgan.gan import GanConfig, make_generator
from sdfgan.meshes import Placement, export_mesh
from sdfgan.nerf import NerfConfig
from sdfgan.nerf.models import make_model
from sdfgan.sdf.config import SdfConfig
from sdfgan.sdf.model import make_field, save_model
from sdfgan.training.checkpoint import pack_module, save_checkpoint


def gan_run(folder: Path, step: int = 5, **settings: object) -> Path:
    """A run folder with the checkpoint of a tiny, untrained generator."""
    config = GanConfig(device="cpu", latent_size=4, width=16, mapping_width=16, **settings).resolved()
    torch.manual_seed(0)
    tensors = pack_module(make_generator(config), "ema")
    save_checkpoint(folder, step, tensors, {"kind": "gan", "config": config.to_json()})
    return folder


def nerf_run(folder: Path) -> Path:
    config = NerfConfig(data=Path("none"), device="cpu", hash_table=8, hash_finest=16, hash_levels=2, grid_resolution=8,
                        march_steps=16, width=16).resolved()  # fmt: skip
    torch.manual_seed(0)
    tensors = pack_module(make_model(config, bounded=True), "model")
    save_checkpoint(folder, 7, tensors, {"kind": "nerf", "config": config.to_json(), "bounded": True})
    return folder


def sdf_run(folder: Path, **settings: object) -> Path:
    config = SdfConfig(input=Path("part.stl"), device="cpu", network="film-siren", **settings).resolved()
    torch.manual_seed(0)
    folder.mkdir()
    save_model(folder / "model.safetensors", make_field(config, None, Placement((5.0, 0.0, 0.0), 0.5)), config)
    return folder


def mesh_file(folder: Path, name: str = "ball.glb") -> Path:
    folder.mkdir(exist_ok=True)
    ball = trimesh.creation.icosphere(subdivisions=4, radius=3.0)
    ball.visual.vertex_colors = np.tile(np.uint8([200, 40, 40, 255]), (len(ball.vertices), 1))
    export_mesh(ball, folder / name)
    return folder / name
