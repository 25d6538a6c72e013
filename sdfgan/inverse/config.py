"""The settings of `sdfgan fit-image`: a frozen dataclass whose fields are its flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sdfgan.training.config import (
    AtMost,
    Config,
    Count,
    Device,
    Formerly,
    MeshCells,
    Natural,
    NotNegative,
    Pixels,
    Positive,
    Rule,
    Scale,
    VideoFormat,
    Weight,
)


@dataclass(frozen=True)
class FitImageConfig(Config):
    """Inverse rendering: fit a FiLM-SIREN to images of a mesh."""

    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """A mesh file: glb, gltf, obj, off, ply, stl."""
    output_dir: Path | None = None
    """Folder of the run; runs/fit-001, -002 ... if not given."""
    views: Annotated[int, Positive, AtMost(10_000)] = 24
    """Images of the mesh, from all sides."""
    resolution: Annotated[Pixels, Rule("be a multiple of 4", lambda n: n % 4 == 0, "a multiple of 4")] = 128
    """Side of the images in pixels; fitting begins with smaller ones."""
    minutes: Scale = 10.0
    """Maximum time for fitting a mesh."""
    steps: Count = 4000
    """Maximum number of steps."""
    views_per_step: Annotated[int, Positive, AtMost(10_000)] = 4
    """Images rendered in each step, chosen at random."""
    width: Annotated[int, Positive, AtMost(4096)] = 64
    """Units per layer of the network."""
    learning_rate: Annotated[Scale, Formerly("lr")] = 1e-3
    """Adam's learning rate, falling to a twentieth."""
    eikonal_weight: Weight = 0.01
    """Weight of (|gradient| - 1)^2."""
    video_frames: Annotated[int, NotNegative, AtMost(10**6)] = 60
    """Frames of the video of the optimisation; 0: none."""
    video_format: VideoFormat = "mp4"
    """Format of the video: mp4 needs ffmpeg; gif and webp do not, and play in web pages."""
    mesh_resolution: MeshCells = 128
    """Grid cells per axis of the resulting mesh; 0: none."""
    seed: Natural = 0
    """Random seed of the network's initial weights and of the choice of views."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""
