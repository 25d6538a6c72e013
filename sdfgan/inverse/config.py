"""The settings of `sdfgan fit-image`: a frozen dataclass whose fields are its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sdfgan.images import VideoFormat


@dataclass(frozen=True)
class FitImageConfig:
    """Fit pictures: of a mesh, by a FiLM-SIREN; or of a scene of solids, by its parameters from a wrong start."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """A mesh file (glb, gltf, obj, off, ply, stl), or "csg" for a scene of two balls that blend: its pose, sizes and
    colours."""
    output_dir: Path | None = None
    """Folder for pictures, video, mesh and metrics.json; runs/fit-001, -002 ... if not given."""
    views: int = 24
    """Pictures of the mesh, from all round."""
    resolution: int = 128
    """Side of the pictures in pixels; fitting begins with smaller ones."""
    minutes: float = 10.0
    """Most time for fitting a mesh."""
    steps: int = 4000
    """Most steps (csg: at most 300)."""
    views_per_step: int = 4
    """Pictures rendered in each step, chosen at random."""
    width: int = 64
    """Units per layer of the network."""
    lr: float = 1e-3
    """Adam's learning rate, falling to a twentieth."""
    eikonal_weight: float = 0.01
    """Weight of (|gradient| - 1)^2."""
    video_frames: int = 60
    """Frames of the video of the optimisation; 0: none. csg: one per step."""
    video_format: VideoFormat = "mp4"
    """Its format: mp4 needs ffmpeg; gif and webp do not, and show in web pages."""
    mesh_resolution: int = 128
    """Grid cells per axis of the mesh of the result; 0: none."""
    seed: int = 0
    """Of the network's start and of the choice of views."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
