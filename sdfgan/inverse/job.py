"""Runs of inverse rendering: a network learns a mesh from its images, or a scene's parameters are found from them.

They keep nothing but their results: Ctrl-C ends them at once.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan import meshes
from sdfgan.errors import UserError
from sdfgan.images import image_grid, save_image
from sdfgan.inverse.config import FitImageConfig
from sdfgan.inverse.model import START, TRUTH, csg_scene, make_field
from sdfgan.inverse.objective import image_loss, mesh_loss
from sdfgan.inverse.report import beside, look, on_white, open_video, report, save_mesh
from sdfgan.inverse.target import load_target, target_images, views_all_round
from sdfgan.meshes.read import read_mesh
from sdfgan.metrics import psnr
from sdfgan.raycast import render
from sdfgan.training.device import resolve_device
from sdfgan.training.job import Intervals, Job, Numbers
from sdfgan.training.loop import run
from sdfgan.training.progress import announced
from sdfgan.training.ranks import Ranks
from sdfgan.training.run import Summary, next_run_folder
from sdfgan.training.steps import Steps

_SURFACE_POINTS = 20_000
_VIDEO_VIEWS, _FRAME = 4, 128  # of those that are fitted, and pixels
_CSG_STEPS = 300
_CSG_RATE = 0.02


def train(config: FitImageConfig) -> dict[str, Any]:
    """Fit what `config` names; returns what metrics.json says. Raises UserError."""
    config = dataclasses.replace(config, device=str(resolve_device(config.device)))
    with announced(f"reading {config.target}"):  # before there is a folder
        mesh = None if config.target == "csg" else load_target(Path(config.target))
    folder = config.output_dir or next_run_folder(Path("runs"), "fit")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output-dir {folder}: {error.strerror}") from error
    torch.manual_seed(config.seed)
    config = dataclasses.replace(config, output_dir=folder)
    with ExitStack() as recording:  # which an error undoes
        return run(CsgJob(config, recording) if mesh is None else MeshJob(config, recording, mesh))


class InverseJob(Job):
    """What both kinds have in common."""

    kind = "inverse"
    optimizer: torch.optim.Adam
    parameters: list[torch.nn.Parameter]

    def __init__(self, config: FitImageConfig, recording: ExitStack) -> None:
        """`recording` is closed when the video is complete."""
        self.config, self.recording = config, recording
        self.root, self.device = config.output_dir or Path(), torch.device(config.device)
        self.ranks, self.runs, self.every = Ranks(), {}, Intervals()
        self.steps, self.steps_done = config.steps, 0
        self.updates = Steps({"field": "--learning-rate"}, precision=None)
        self.modules = []

    def begin(self) -> None:
        """Open the video."""
        self.video = self.recording.enter_context(open_video(self.config, self.root))
        self.began = time.perf_counter()

    def descend(self, loss: Tensor, rate: float, clip: float) -> Numbers:
        """Step on a loss, if its gradient is finite."""
        self.optimizer.param_groups[0]["lr"] = rate
        loss.backward()
        self.updates.take("field", self.optimizer, self.parameters, clip, self.steps_done)
        self.steps_done += 1
        return {"loss": loss.item()}


class MeshJob(InverseJob):
    """A FiLM-SIREN that learns a mesh from images from all round, for so many steps or minutes."""

    words = "fitting, percent"

    def __init__(self, config: FitImageConfig, recording: ExitStack, mesh: trimesh.Trimesh) -> None:
        super().__init__(config, recording)
        self.mesh, self.axes = mesh, views_all_round(config.views).to(self.device)
        self.targets = target_images(mesh, self.axes, config.resolution)
        self.field, self.latents = make_field(config.width).to(self.device), torch.zeros(1, 1, device=self.device)
        self.parameters = list(self.field.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, config.learning_rate, betas=(0.9, 0.99))
        self.random = torch.Generator().manual_seed(config.seed)
        self.share, self.shown = 0.0, 0  # of the steps or of the time, whichever is more; frames

    @property
    def done(self) -> int:
        """In percent."""
        return int(100 * min(1.0, self.share))

    @property
    def total(self) -> int:
        """In percent."""
        return 100

    @torch.no_grad()
    def show(self) -> None:
        """Add a frame of some views to the video if it is time for one."""
        if self.video is not None and self.share * self.config.video_frames >= self.shown:
            cameras = self.axes[:: max(1, len(self.axes) // _VIDEO_VIEWS)][:_VIDEO_VIEWS]
            images = torch.cat([look(self.field, self.latents, camera, _FRAME) for camera in cameras.split(1)])
            self.video.add(image_grid(on_white(images), len(images)))
            self.shown += 1

    def step(self) -> Numbers:
        """One update from some of the views; the first ones from smaller images."""
        config, share = self.config, self.share
        self.show()
        resolution = config.resolution // (4 if share < 0.1 else 2 if share < 0.5 else 1)
        chosen = torch.randint(config.views, (config.views_per_step,), generator=self.random).to(self.device)
        target = self.targets[resolution][chosen]
        loss = mesh_loss(self.field, self.latents, self.axes[chosen], target, config.eikonal_weight, self.random)
        rate = config.learning_rate * max(0.05, 1 - share) ** (1 if share > 0.4 else 0)
        numbers = self.descend(loss, rate, clip=1.0)
        elapsed = (time.perf_counter() - self.began) / (60 * config.minutes)
        self.share = max(self.steps_done / self.steps, elapsed)
        return numbers

    def status(self, numbers: Numbers) -> str:
        """See `Job.status`."""
        return f"step {self.steps_done}, loss {numbers['loss']:.5f}"

    @torch.no_grad()
    def finish(self, summary: Summary) -> dict[str, Any]:
        """views.png, mesh.glb and metrics.json."""
        config, wanted = self.config, self.targets[self.config.resolution]
        seconds = time.perf_counter() - self.began
        self.recording.close()
        rgba = torch.cat([look(self.field, self.latents, camera, config.resolution) for camera in self.axes.split(1)])
        save_image(self.root / "views.png", beside(rgba[:8], wanted[:8]))
        metrics = {"steps": self.steps_done, "seconds": seconds, "psnr": psnr(rgba, wanted)}
        if save_mesh(config, self.field, self.field.condition(self.latents), self.root):
            diagonal = float(np.linalg.norm(self.mesh.bounds[1] - self.mesh.bounds[0]))
            made = read_mesh(self.root / "mesh.glb")
            chamfer = meshes.chamfer_distance(self.mesh, made, _SURFACE_POINTS, config.seed)
            metrics |= {"chamfer": chamfer, "chamfer_percent_of_diagonal": 100 * chamfer / diagonal}
        report(metrics, self.root)
        return metrics


class CsgJob(InverseJob):
    """The parameters of a scene of two balls, from a wrong start."""

    words = "fitting"

    def __init__(self, config: FitImageConfig, recording: ExitStack) -> None:
        super().__init__(config, recording)
        self.steps = min(config.steps, _CSG_STEPS)
        self.truth = {name: torch.tensor(value, device=self.device) for name, value in TRUTH.items()}
        field, axes, light = csg_scene(self.truth)
        with torch.no_grad():
            made = render(sdf=field, axes=axes, light=light, resolution=config.resolution, supersample=4)
        self.target = self.image = made.rgba
        self.named = {
            name: torch.nn.Parameter(torch.tensor(value, device=self.device)) for name, value in START.items()
        }
        self.parameters = list(self.named.values())
        self.optimizer = torch.optim.Adam(self.parameters, _CSG_RATE, betas=(0.8, 0.95))

    def step(self) -> Numbers:
        """One update from all views."""
        field, axes, light = csg_scene(self.named)
        image = render(sdf=field, axes=axes, light=light, resolution=self.config.resolution).rgba
        rate = _CSG_RATE * (1 - self.steps_done / self.steps)
        numbers = self.descend(image_loss(image, self.target), rate, clip=float("inf"))
        with torch.no_grad():
            for name in ("radius", "second_radius", "blend"):
                self.named[name].clamp_(min=0.02)
        self.image = image.detach()
        if self.video is not None:
            self.video.add(beside(self.image, self.target))
        return numbers

    def status(self, numbers: Numbers) -> str:
        """See `Job.status`."""
        return f"loss {numbers['loss']:.2e}"

    @torch.no_grad()
    def finish(self, summary: Summary) -> dict[str, Any]:
        """views.png, mesh.glb and metrics.json."""
        self.recording.close()
        save_image(self.root / "views.png", beside(self.image, self.target))
        save_mesh(self.config, csg_scene(self.named)[0], None, self.root)
        metrics: dict[str, Any] = {"steps": self.steps_done, "psnr": psnr(self.image, self.target)}
        for name, value in self.named.items():
            start = torch.tensor(START[name], device=self.device)
            metrics[f"{name}_error_at_start"] = (start - self.truth[name]).abs().max().item()
            metrics[f"{name}_error"] = (value - self.truth[name]).abs().max().item()
        report(metrics, self.root)
        return metrics
