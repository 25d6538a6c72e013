"""`sdfgan fit-image`: inverse rendering. Pictures of a known thing are fitted by gradient descent through `render`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import trimesh
import tyro
from torch import Tensor

from sdfgan import cameras, fields, meshes
from sdfgan.errors import UserError
from sdfgan.fields.base import Field
from sdfgan.images import VideoWriter, image_grid, save_image, video_problem
from sdfgan.meshes.read import read_mesh
from sdfgan.raycast import Lighting, evaluate, render
from sdfgan.raycast.rasterise import render_mesh
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
    Scale,
    VideoFormat,
    Weight,
)
from sdfgan.training.device import resolve_device
from sdfgan.training.files import write_json
from sdfgan.training.progress import announced, progress
from sdfgan.training.run import next_run_folder

_FILL = 0.85  # radius of the ball that a mesh is scaled into
_EIKONAL_POINTS = 1024
_VIDEO_VIEWS = 4
_FRAME = 128  # pixels
_SURFACE_POINTS = 20_000


@dataclass(frozen=True)
class FitImageConfig(Config):
    """Fit pictures: of a mesh, by a FiLM-SIREN; or of a scene of solids, by its parameters from a wrong start."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """A mesh file (glb, gltf, obj, off, ply, stl), or "csg" for a scene of two balls that blend: its pose, sizes and
    colours."""
    output_dir: Path | None = None
    """Folder for pictures, video, mesh and metrics.json; runs/fit-001, -002 ... if not given."""
    views: Annotated[int, Positive, AtMost(10_000)] = 24
    """Pictures of the mesh, from all round."""
    resolution: Pixels = 128
    """Side of the pictures in pixels; fitting begins with smaller ones."""
    minutes: Scale = 10.0
    """Most time for fitting a mesh."""
    steps: Count = 4000
    """Most steps (csg: at most 300)."""
    views_per_step: Annotated[int, Positive, AtMost(10_000)] = 4
    """Pictures rendered in each step, chosen at random."""
    width: Annotated[int, Positive, AtMost(4096)] = 64
    """Units per layer of the network."""
    learning_rate: Annotated[Scale, Formerly("lr")] = 1e-3
    """Adam's learning rate, falling to a twentieth."""
    eikonal_weight: Weight = 0.01
    """Weight of (|gradient| - 1)^2."""
    video_frames: Annotated[int, NotNegative, AtMost(10**6)] = 60
    """Frames of the video of the optimisation; 0: none. csg: one per step."""
    video_format: VideoFormat = "mp4"
    """Its format: mp4 needs ffmpeg; gif and webp do not, and show in web pages."""
    mesh_resolution: MeshCells = 128
    """Grid cells per axis of the mesh of the result; 0: none."""
    seed: Natural = 0
    """Of the network's start and of the choice of views."""
    device: Device = "auto"
    """auto, cpu, cuda or cuda:N."""


def run(config: FitImageConfig) -> None:
    """Fit, and say how well."""
    if config.resolution % 4:
        raise UserError(f"--resolution must be a multiple of 4, got {config.resolution}")
    device = resolve_device(config.device)
    with announced(f"reading {config.target}"):  # before there is a folder
        mesh = None if config.target == "csg" else load_target(Path(config.target))
    folder = config.output_dir or next_run_folder(Path("runs"), "fit")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output-dir {folder}: {error.strerror}") from error
    torch.manual_seed(config.seed)
    metrics = _fit_csg(config, folder, device) if mesh is None else _fit_mesh(config, mesh, folder, device)
    write_json(folder / "metrics.json", metrics)
    for name, value in metrics.items():
        print(f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}")
    print(f"wrote {folder}")


# ---------------------------------------------------------------------------------------------------------------- mesh


def load_target(path: Path) -> trimesh.Trimesh:
    """A mesh moved and scaled into the ball of radius 0.85 around the origin. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; TARGET must be a mesh or csg")
    mesh = _coloured(path, read_mesh(path))
    mesh.update_faces(np.isfinite(mesh.triangles).all((1, 2)))
    mesh.remove_unreferenced_vertices()
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(_FILL / np.linalg.norm(mesh.vertices, axis=1).max())
    return mesh


def _coloured(path: Path, mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with the colours that trimesh reads; without them, and said so, where it reads another mesh."""
    try:
        found = trimesh.load(path, force="mesh", process=False)
        if isinstance(found, trimesh.Trimesh) and len(found.faces) == len(mesh.faces):
            sizes = [(one.area, *one.bounds.flat) for one in (found, mesh)]
            if np.allclose(*sizes, 1e-5, equal_nan=True):
                return found
    except Exception:  # of whatever kind; the mesh itself has been read
        pass
    print(f"{path}: colours, if it has any, cannot be read; the images are grey")
    return mesh


def _fit_mesh(config: FitImageConfig, mesh: trimesh.Trimesh, folder: Path, device: torch.device) -> dict[str, Any]:
    axes = _views_all_round(config.views).to(device)
    with progress(config.views, "rendering the mesh") as bar:
        pictures = []
        for camera in axes.split(1):
            pictures.append(render_mesh(mesh, camera, config.resolution).to(device))
            bar.advance()
    targets = {config.resolution: torch.cat(pictures)}
    for scale in (2, 4):
        targets[config.resolution // scale] = torch.nn.functional.avg_pool2d(targets[config.resolution], scale)
    field = fields.FilmSirenSDF(
        width=config.width, latent_size=1, mapping_width=8, omega_first=8.0, omega_texture=10.0
    ).to(device)
    latents = torch.zeros(1, 1, device=device)
    optimizer = torch.optim.Adam(field.parameters(), config.learning_rate, betas=(0.9, 0.99))
    random = torch.Generator().manual_seed(config.seed)
    begin, done, step = time.perf_counter(), 0.0, 0
    with _video(config, folder) as video, progress(100, "fitting, percent") as bar:
        frames = _Frames(video, config.video_frames, axes, field, latents)
        while step < config.steps and done < 1:
            done = max(step / config.steps, (time.perf_counter() - begin) / (60 * config.minutes))
            frames.show(done)
            optimizer.param_groups[0]["lr"] = config.learning_rate * max(0.05, 1 - done) ** (1 if done > 0.4 else 0)
            scale = 4 if done < 0.1 else 2 if done < 0.5 else 1
            resolution = config.resolution // scale
            chosen = torch.randint(config.views, (config.views_per_step,), generator=random).to(device)
            loss = _mesh_loss(config, field, latents, axes[chosen], targets[resolution][chosen], random)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(field.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.advance(int(100 * done) - bar.done, f"step {step}, loss {loss.item():.5f}")
        bar.advance(100 - bar.done)
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        seen = [_look(field, latents, camera, config.resolution) for camera in axes.split(1)]
    rgba = torch.cat(seen)
    save_image(folder / "views.png", _beside(rgba[:8], targets[config.resolution][:8]))
    metrics = {"steps": step, "seconds": seconds, "psnr": _psnr(rgba, targets[config.resolution])}
    if not _save_mesh(config, field, field.condition(latents), folder):
        return metrics
    diagonal = float(np.linalg.norm(mesh.bounds[1] - mesh.bounds[0]))
    chamfer = meshes.chamfer_distance(mesh, read_mesh(folder / "mesh.glb"), _SURFACE_POINTS, config.seed)
    return {**metrics, "chamfer": chamfer, "chamfer_percent_of_diagonal": 100 * chamfer / diagonal}


def _save_mesh(config: FitImageConfig, field: Field, condition: Any, folder: Path) -> bool:
    """Write mesh.glb, and say if there is none to write."""
    if not config.mesh_resolution:
        return False
    try:
        meshes.export_mesh(meshes.marching_cubes(field, condition, config.mesh_resolution), folder / "mesh.glb")
    except UserError as error:
        print(f"no mesh: {error}")
        return False
    return True


def _mesh_loss(
    config: FitImageConfig, field: Field, latents: Tensor, axes: Tensor, target: Tensor, random: torch.Generator
) -> Tensor:
    condition = field.condition(latents.expand(len(axes), -1))
    picture = render(sdf=field, axes=axes, condition=condition, resolution=target.shape[-1], steps=100)
    free = (2 * torch.rand(_EIKONAL_POINTS, 3, generator=random) - 1).to(axes)
    gradients = torch.cat([picture.field.gradient, evaluate(field, free, field.condition(latents)).gradient])
    eikonal = (gradients.norm(dim=-1) - 1).square().mean()
    return (picture.rgba - target).square().mean() + config.eikonal_weight * eikonal


def _views_all_round(count: int) -> Tensor:
    """Axes [N, 3, 3] of cameras spread evenly over the sphere, a Fibonacci lattice without its poles."""
    height = 1 - (2 * torch.arange(count) + 1) / count
    azimuth = torch.arange(count) * math.pi * (3 - math.sqrt(5))
    return cameras.rotate_axes(((0.95 * height).asin(), azimuth))


# ----------------------------------------------------------------------------------------------------------------- csg

_TRUTH = {
    "radius": 0.42, "second_radius": 0.25, "offset": (0.34, 0.12, 0.08), "blend": 0.2, "colour": (0.85, 0.35, 0.2),
    "second_colour": (0.2, 0.4, 0.8), "camera": (0.35, 0.6),
}  # fmt: skip
_START = {
    "radius": 0.35, "second_radius": 0.32, "offset": (0.25, 0.2, 0.0), "blend": 0.1, "colour": (0.5, 0.5, 0.5),
    "second_colour": (0.5, 0.5, 0.5), "camera": (0.2, 0.45),
}  # fmt: skip
_LIGHT = (0.5, 0.7, 0.4)  # is known: or turning the camera, the scene and the light together would change nothing
_CSG_STEPS = 300
_CSG_VIEWS = (0.0, 1.6, 3.1, 4.7)  # known turns between the pictures; the pose of the whole is not known


def csg_scene(p: Mapping[str, Tensor]) -> tuple[Field, Tensor, Lighting]:
    """The field, cameras [4, 3, 3] and light of parameters."""
    one = fields.Sphere(p["radius"]).coloured(p["colour"])
    two = fields.Sphere(p["second_radius"]).translated(p["offset"]).coloured(p["second_colour"])
    turns = p["camera"].new_tensor(_CSG_VIEWS)
    axes = cameras.rotate_axes((p["camera"][0].expand(len(turns)), p["camera"][1] + turns))
    light = Lighting(ambient=0.2, headlight=0.3, fixed=0.5, direction=_LIGHT)
    return fields.SmoothUnion(one, two, p["blend"]), axes, light


def _fit_csg(config: FitImageConfig, folder: Path, device: torch.device) -> dict[str, Any]:
    truth = {name: torch.tensor(value, device=device) for name, value in _TRUTH.items()}
    field, axes, light = csg_scene(truth)
    with torch.no_grad():
        target = render(sdf=field, axes=axes, light=light, resolution=config.resolution, supersample=4).rgba
    p = {name: torch.nn.Parameter(torch.tensor(value, device=device)) for name, value in _START.items()}
    optimizer = torch.optim.Adam(p.values(), 0.02, betas=(0.8, 0.95))
    steps = min(config.steps, _CSG_STEPS)
    with _video(config, folder) as video, progress(steps, "fitting") as bar:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
            field, axes, light = csg_scene(p)
            picture = render(sdf=field, axes=axes, light=light, resolution=config.resolution)
            loss = (picture.rgba - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name in ("radius", "second_radius", "blend"):
                    p[name].clamp_(min=0.02)
            if video is not None:
                video.add(_beside(picture.rgba.detach(), target))
            bar.advance(1, f"loss {loss.item():.2e}")
    save_image(folder / "views.png", _beside(picture.rgba.detach(), target))
    with torch.no_grad():
        _save_mesh(config, csg_scene(p)[0], None, folder)
    metrics: dict[str, Any] = {"steps": steps, "psnr": _psnr(picture.rgba.detach(), target)}
    for name, value in p.items():
        start = torch.tensor(_START[name], device=device)
        metrics[f"{name}_error_at_start"] = (start - truth[name]).abs().max().item()
        metrics[f"{name}_error"] = (value.detach() - truth[name]).abs().max().item()
    return metrics


# ------------------------------------------------------------------------------------------------------------ pictures


class _Frames:
    """A video of some views during the optimisation."""

    def __init__(self, video: VideoWriter | None, count: int, axes: Tensor, field: Field, latents: Tensor) -> None:
        self._video, self._count, self._shown = video, count, 0
        self._look: Callable[[Tensor], Tensor] = lambda camera: _look(field, latents, camera, _FRAME)
        self._axes = axes[:: max(1, len(axes) // _VIDEO_VIEWS)][:_VIDEO_VIEWS]

    @torch.no_grad()
    def show(self, done: float) -> None:
        """Add a frame if it is time for one."""
        if self._video is not None and done * self._count >= self._shown:
            pictures = torch.cat([self._look(camera) for camera in self._axes.split(1)])
            self._video.add(image_grid(_on_white(pictures), len(pictures)))
            self._shown += 1


def _video(config: FitImageConfig, folder: Path) -> AbstractContextManager[VideoWriter | None]:
    path = folder / f"fit.{config.video_format}"
    if config.video_frames == 0:
        return nullcontext()
    if (problem := video_problem(path)) is not None:
        print(problem)
        return nullcontext()
    return VideoWriter(path, 24)


def _look(field: Field, latents: Tensor, camera: Tensor, resolution: int) -> Tensor:
    return render(sdf=field, axes=camera, latents=latents, resolution=resolution).rgba


def _on_white(rgba: Tensor) -> Tensor:
    return (rgba[:, :3] + 1 - rgba[:, 3:]).clamp(0, 1).cpu()


def _beside(found: Tensor, wanted: Tensor) -> Tensor:
    """What was found above what was wanted."""
    return image_grid(_on_white(torch.cat([found, wanted])), len(found))


def _psnr(found: Tensor, wanted: Tensor) -> float:
    """Of premultiplied RGBA, dB."""
    return -10 * math.log10(max((found - wanted).square().mean().item(), 1e-12))
