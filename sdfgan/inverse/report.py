"""What inverse rendering leaves to look at: images beside those that were wanted, a video, a mesh, and its errors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdfgan.errors import UserError
from sdfgan.fields.base import Field
from sdfgan.images import VideoWriter, image_grid, on_white, video_problem
from sdfgan.inverse.config import FitImageConfig
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.raycast import render
from sdfgan.training.files import FullDisk


def open_video(config: FitImageConfig, folder: Path) -> AbstractContextManager[VideoWriter | None]:
    """The video of the optimisation; None, and said, where there is to be or can be none."""
    path = folder / f"fit.{config.video_format}"
    if config.video_frames == 0:
        return nullcontext()
    if (problem := video_problem(path)) is not None:
        print(problem)
        return nullcontext()
    return VideoWriter(path, 24)


def look(field: Field, latents: Tensor, camera: Tensor, resolution: int) -> Tensor:
    """RGBA [1, 4, R, R] from a camera [1, 3, 3]."""
    return render(sdf=field, axes=camera, latents=latents, resolution=resolution).rgba


def beside(found: Tensor, wanted: Tensor) -> Tensor:
    """What was found above what was wanted."""
    return image_grid(on_white(torch.cat([found, wanted])).cpu(), len(found))


def save_mesh(config: FitImageConfig, field: Field, condition: Any, folder: Path) -> bool:
    """Write mesh.glb, and say if there is none to write."""
    if not config.mesh_resolution:
        return False
    try:
        export_mesh(marching_cubes(field, condition, config.mesh_resolution), folder / "mesh.glb")
    except FullDisk:
        raise
    except UserError as error:
        print(f"no mesh: {error}")
        return False
    return True


def describe(metrics: dict[str, float], folder: Path) -> None:
    """Say how near the result is, and where it is."""
    for name, value in metrics.items():
        print(f"{name}: {value:.5g}")
    made = [name for name in ("views.png", "mesh.glb", "summary.json") if (folder / name).exists()]
    print(f"done: open {folder}/report.html, or look at {', '.join(made)} there")
