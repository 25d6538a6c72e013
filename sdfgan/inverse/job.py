"""Runs of inverse rendering: a network learns a mesh from its images.

They have no checkpoints: Ctrl-C ends them at once.
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

from sdfgan import meshes
from sdfgan.images import image_grid, on_white, save_image
from sdfgan.inverse.config import FitImageConfig
from sdfgan.inverse.model import make_field
from sdfgan.inverse.objective import image_loss
from sdfgan.inverse.report import beside, describe, look, open_video, save_mesh
from sdfgan.inverse.target import load_target, target_images, views_all_round
from sdfgan.meshes.read import read_mesh
from sdfgan.metrics import psnr
from sdfgan.raycast import Room
from sdfgan.training.config import command_line
from sdfgan.training.device import resolve_device
from sdfgan.training.job import Intervals, Job
from sdfgan.training.loop import run
from sdfgan.training.progress import announced
from sdfgan.training.ranks import Ranks
from sdfgan.training.run import Summary, next_run_folder
from sdfgan.training.steps import Numbers, Steps, as_numbers

_SURFACE_POINTS = 20_000
_VIDEO_VIEWS, _FRAME = 4, 128  # of those that are fitted, and pixels


def train(config: FitImageConfig) -> dict[str, Any]:
    """Fit what `config` names; returns what `summary.json` says. Raises UserError."""
    config = dataclasses.replace(config, device=str(resolve_device(config.device)))
    with announced(f"reading {config.target}"):  # before there is a folder
        mesh, model = load_target(config.target)
    folder = config.output_dir or next_run_folder(Path("runs"), "fit")
    torch.manual_seed(config.seed)
    config = dataclasses.replace(config, output_dir=folder)
    with ExitStack() as recording:  # which an error undoes
        return run(InverseJob(config, recording, mesh, model))


class InverseJob(Job):
    """A FiLM-SIREN that learns a mesh from images from all round, for so many steps or minutes."""

    kind = "inverse"
    saves = False
    label = "fitting, percent"

    def __init__(
        self, config: FitImageConfig, recording: ExitStack, mesh: trimesh.Trimesh, model: meshes.Model
    ) -> None:
        """`recording` is closed when the video is complete; `model` is the mesh as it looks."""
        self.config, self.recording, self.mesh = config, recording, mesh
        self.root, self.device = config.output_dir or Path(), torch.device(config.device)
        self.ranks, self.runs, self.every = Ranks(), {self.root: config}, Intervals()
        self.steps, self.steps_done = config.steps, 0
        self.updates = Steps({"field": "--learning-rate"}, precision=None)
        self.modules = []
        self.axes = views_all_round(config.views).to(self.device)
        self.targets = target_images(model, self.axes, config.resolution)
        self.field, self.latents = make_field(config.width).to(self.device), torch.zeros(1, 1, device=self.device)
        self.parameters = list(self.field.parameters())
        self.room = Room() if self.device.type == "cuda" else None
        self.optimizer = torch.optim.Adam(self.parameters, config.learning_rate, betas=(0.9, 0.99), fused=True)
        self.random = torch.Generator().manual_seed(config.seed)
        self.share, self.shown = 0.0, 0  # of the steps or of the time, whichever is more; frames

    def command(self, run: Path) -> str:
        """See `Job.command`."""
        return command_line("fit-image", self.config)

    def begin(self) -> None:
        """Open the video."""
        self.video = self.recording.enter_context(open_video(self.config, self.root))
        self.began = time.perf_counter()

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
            self.video.add(image_grid(on_white(images).cpu(), len(images)))
            self.shown += 1

    def step(self) -> Numbers:
        """One update from some of the views; the first ones from smaller images."""
        config, share = self.config, self.share
        self.show()
        resolution = config.resolution // (4 if share < 0.1 else 2 if share < 0.5 else 1)
        chosen = torch.randint(config.views, (config.views_per_step,), generator=self.random).to(self.device)
        target = self.targets[resolution][chosen]
        if self.room is not None:
            self.room.keep_while(resolution)
        loss = image_loss(
            self.field, self.latents, self.axes[chosen], target, config.eikonal_weight, self.random, self.room
        )
        rate = config.learning_rate * max(0.05, 1 - share) ** (1 if share > 0.4 else 0)
        self.optimizer.param_groups[0]["lr"] = rate
        loss.backward()
        self.updates.take("field", self.optimizer, self.parameters, 1.0)
        (value,), norms = as_numbers(loss, self.updates.norms)
        self.updates.settle(norms, self.steps_done)
        lost = 0 if self.room is None else self.room.settle()
        self.steps_done += 1
        elapsed = (time.perf_counter() - self.began) / (60 * config.minutes)
        self.share = max(self.steps_done / self.steps, elapsed)
        return {"loss": value, "samples_lost": float(lost)}

    def status(self, numbers: Numbers) -> str:
        """See `Job.status`."""
        return f"step {self.steps_done}, loss {numbers['loss']:.5f}"

    @torch.no_grad()
    def finish(self, summary: Summary) -> dict[str, Any]:
        """views.png, mesh.glb, and how near they are."""
        config, wanted = self.config, self.targets[self.config.resolution]
        self.recording.close()
        rgba = torch.cat([look(self.field, self.latents, camera, config.resolution) for camera in self.axes.split(1)])
        save_image(self.root / "views.png", beside(rgba[:8], wanted[:8]))
        metrics = {"psnr": psnr(rgba, wanted)}
        if save_mesh(config, self.field, self.field.condition(self.latents), self.root):
            diagonal = float(np.linalg.norm(self.mesh.bounds[1] - self.mesh.bounds[0]))
            made = read_mesh(self.root / "mesh.glb")
            chamfer = meshes.chamfer_distance(self.mesh, made, _SURFACE_POINTS, config.seed)
            metrics |= {"chamfer": chamfer, "chamfer_percent": 100 * chamfer / diagonal}
        summary["metrics"] = metrics
        summary.write(self.root)
        describe(metrics, self.root)
        return summary
