"""What `render` and `extract-mesh` need of runs of train-sdf and train-nerf: one shape, or a scene."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sdfgan.cli.flags import CameraFlags, RenderConfig, ShapeFlags, VolumeFlags
from sdfgan.data.scenes import Scene, load_scene
from sdfgan.errors import UserError
from sdfgan.images import image_grid, save_image
from sdfgan.nerf import load_model
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.job import background_value
from sdfgan.nerf.models import SceneModel
from sdfgan.nerf.report import SceneRenderer, Show, depth_span, orbit, shown
from sdfgan.sdf import MeshSDF, load
from sdfgan.sdf.model import MODEL
from sdfgan.training.checkpoint import kind_of
from sdfgan.training.config import flag_of
from sdfgan.training.device import resolve_device

Kind = Literal["gan", "sdf", "nerf"]
_RAYS_AT_ONCE = 8192


def run_kind(run: Path) -> Kind:
    """Of which trainer a run folder or checkpoint folder is. Raises UserError for anything else."""
    if (run / MODEL).is_file():
        return "sdf"
    kind = kind_of(run)
    if kind == "sdf":
        raise UserError(f"{run}: has no {MODEL} yet; sdfgan train-sdf --resume {run} finishes it")
    if kind not in ("gan", "nerf"):
        raise UserError(f"{run}: a run of kind {kind!r}, expected one of train-gan, train-sdf or train-nerf")
    return kind  # type: ignore[return-value]


def load_solid(flags: ShapeFlags) -> MeshSDF:
    """The field of a run of train-sdf. Raises UserError for flags that it has no use for."""
    _refuse(flags, "train-sdf", ShapeFlags, VolumeFlags)
    return load(flags.run, resolve_device(flags.device))


class SceneRun(NamedTuple):
    """A run of train-nerf."""

    model: SceneModel
    config: ResolvedNerfConfig
    scene: Scene

    @classmethod
    def load(cls, flags: ShapeFlags) -> SceneRun:
        """With the scene that it learned from. Raises UserError, also for flags that it has no use for."""
        _refuse(flags, "train-nerf", ShapeFlags, VolumeFlags, CameraFlags)
        model, config = load_model(flags.run, str(resolve_device(flags.device)))
        scene = load_scene(config.scene, image_scale=config.image_scale, scene_scale=config.scene_scale)
        return cls(model, config, scene)

    def render(self, flags: RenderConfig, show: Show, frames: int | None, output: Path) -> None:
        """A video of so many frames, or `views` images, along the orbit that training ends with."""
        device = torch.device(self.config.device)
        background = torch.full((3,), background_value(self.config, self.scene), device=device)
        renderer = SceneRenderer(self.model, background, _RAYS_AT_ONCE)
        views = self.scene.train.to(device)
        scale = flags.resolution / int(views.sizes[0].max())
        cameras = orbit(views, frames or (1 if flags.mode == "seeds" else flags.views), scale)
        if frames is not None:
            renderer.video(output, cameras, show, flags.fps)
            return
        looks = (renderer.look(cameras, index, show == "normals") for index in range(len(cameras.widths)))
        images: list[Tensor] = []
        for seen in looks:
            if not images:
                span = depth_span(seen)
            images.append(shown(seen, show, span).cpu())
        if flags.mode == "images":
            for index, image in enumerate(images):
                save_image(output / f"view-{index}.png", image)
        else:
            save_image(output, image_grid(torch.stack(images), len(images)))


def _refuse(flags: ShapeFlags, trainer: str, *unused: type) -> None:
    """Raises UserError for a flag of these types that is given."""
    if trainer == "train-nerf" and getattr(flags, "azimuth", None) is not None:
        raise UserError(f"--azimuth: has no effect on {flags.run}, a run of train-nerf")
    defaults = {field.name: field.default for field in dataclasses.fields(flags)}
    for name in (field.name for kind in unused for field in dataclasses.fields(kind)):
        if name not in ("run", "device") and name in defaults and getattr(flags, name) != defaults[name]:
            raise UserError(f"{flag_of(name)}: has no effect on {flags.run}, a run of {trainer}")
