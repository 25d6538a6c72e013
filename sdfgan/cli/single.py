"""What `render` and `extract-mesh` need of runs of train-sdf and train-nerf: one shape, or a scene."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sdfgan.cli.flags import ExtractMeshConfig, RenderConfig
from sdfgan.data.scenes import Scene, load_scene
from sdfgan.errors import UserError
from sdfgan.images import image_grid, save_image
from sdfgan.nerf.cameras import saved_corrections
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.exposures import saved_gains
from sdfgan.nerf.job import background_value
from sdfgan.nerf.models import SceneModel, model_of
from sdfgan.nerf.report import SceneRenderer, depth_span, orbit, shown
from sdfgan.sdf import MeshSDF, load
from sdfgan.sdf.model import MODEL
from sdfgan.training.checkpoint import Saved, kind_of, read_checkpoint
from sdfgan.training.config import flag_of
from sdfgan.training.device import resolve_device

Kind = Literal["gan", "sdf", "nerf"]
Flags = RenderConfig | ExtractMeshConfig
_RAYS_AT_ONCE = 8192
_OF_GENERATORS = "seeds texture_seeds truncation psi weights lock_view_dependence samples ray_step_multiplier"


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


def load_solid(flags: Flags) -> MeshSDF:
    """The field of a run of train-sdf. Raises UserError for flags that it has no use for."""
    refuse(flags, "train-sdf", f"{_OF_GENERATORS} data")
    return load(flags.run, resolve_device(flags.device))


class SceneRun(NamedTuple):
    """A run of train-nerf."""

    model: SceneModel
    config: ResolvedNerfConfig
    scene: Scene
    saved: Saved

    @classmethod
    def load(cls, flags: Flags) -> SceneRun:
        """With the scene that it learned from. Raises UserError, also for flags that it has no use for."""
        refuse(flags, "train-nerf", f"{_OF_GENERATORS} elevation azimuth azimuth_range")
        saved = read_checkpoint(flags.run)
        model, config = model_of(saved, str(resolve_device(flags.device)))
        if flags.data is not None:
            config = dataclasses.replace(config, data=flags.data, dataset_name=None)
        elif not config.scene.is_dir():
            raise UserError(f"{config.scene}: the scene of {flags.run} is not there: --data says where it is now")
        scene = load_scene(config.scene, image_scale=config.image_scale, scene_scale=config.scene_scale)
        return cls(model, config, scene, saved)

    def gains(self) -> Tensor | None:
        """The factors [images, 3] of the exposures of photographs that make a texture, or None. Raises UserError."""
        learnt = self.config.exposure and self.config.model == "surface"
        return saved_gains(self.saved, len(self.scene.train)) if learnt else None

    def photographed(self) -> Scene:
        """The scene with the cameras of its training images as the run corrected them, if it did. Raises UserError."""
        learnt = self.config.refine_cameras
        return saved_corrections(self.saved, self.scene.train).corrected(self.scene) if learnt else self.scene

    def render(self, flags: RenderConfig, frames: int | None, output: Path) -> None:
        """A video of so many frames, or `views` images, along the orbit that training ends with."""
        device = torch.device(self.config.device)
        background = torch.full((3,), background_value(self.config, self.scene), device=device)
        renderer = SceneRenderer(self.model, background, _RAYS_AT_ONCE)
        views = self.scene.train.to(device)
        scale = flags.resolution / int(views.sizes[0].max())
        cameras = orbit(views, frames or (1 if flags.mode == "seeds" else flags.views), scale)
        if frames is not None:
            renderer.video(output, cameras, flags.show, flags.fps)
            return
        images, span = list[Tensor](), None
        for index in range(len(cameras.widths)):
            seen = renderer.look(cameras, index, flags.show == "normals")
            span = span or depth_span(seen)  # of the first, so that all are comparable
            images.append(shown(seen, flags.show, span).cpu())
        if flags.mode == "images":
            for index, image in enumerate(images):
                save_image(output / f"view-{index}.png", image)
        else:
            save_image(output, image_grid(torch.stack(images), len(images)))


def refuse(flags: Flags, trainer: str, names: str) -> None:
    """Raises UserError for one of these flags that is given."""
    for field in dataclasses.fields(flags):
        if field.name in names.split() and getattr(flags, field.name) != field.default:
            raise UserError(f"{flag_of(field.name)}: has no effect on {flags.run}, a run of {trainer}")
