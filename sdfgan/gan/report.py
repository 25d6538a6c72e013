"""What a run of a GAN leaves to look at: grids of shapes, a turntable, meshes, and its scores against real images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import trimesh
from torch import Tensor

from sdfgan.errors import UserError
from sdfgan.fields import Field, PiGanField
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.models import sample_latents
from sdfgan.gan.views import ImageRenderer, ViewRange, alphas
from sdfgan.images import image_grid, save_image, video_if_possible
from sdfgan.meshes import export_mesh, marching_cubes, without_floaters
from sdfgan.meshes.isosurface import say_removed
from sdfgan.training.health import separate_parts


class Report:
    """Shapes of a run's averaged generator."""

    def __init__(
        self, generator: Field, config: ResolvedGanConfig, renderer: ImageRenderer, view_range: ViewRange, path: Path
    ) -> None:
        self.generator, self.config, self.renderer, self.view_range, self.path = (
            generator,
            config,
            renderer,
            view_range,
            path,
        )

    @torch.no_grad()
    def shapes(self, count: int) -> Any:
        """The conditions of the shapes of seeds 0, 1, ..."""
        device = next(self.generator.parameters()).device
        return self.generator.condition(sample_latents(self.config, range(count)).to(device))

    def samples(self, resolution: int) -> tuple[Tensor, float]:
        """A grid of twelve shapes, each seen from four sides, and the share of silhouettes with separate parts."""
        views = self.renderer.views(self.shapes(12), 4, self.view_range)
        looked = self.renderer.look(*views, max(64, resolution))
        grid = image_grid(torch.cat([rendering.rgb.cpu() for rendering in looked]), 12)
        return grid, separate_parts(alphas(looked))

    def final_images(self) -> dict[str, Any]:
        """Make grid.png, turntable.mp4 and meshes; where they are, for the summary."""
        print("rendering the final images")
        config = self.config
        measure_slope(self.generator)
        grid = self.renderer.grid(self.shapes(10), 6, self.view_range, config.view_resolution, columns=12)
        save_image(self.path / "grid.png", grid)
        turntable = None
        if config.video_frames:
            shapes, angles = self.shapes(9), self.view_range.turntable(config.video_frames)
            turntable = video_if_possible(
                video_file(self.path, config),
                lambda file: self.renderer.video(file, lambda frame: shapes, angles, config.view_resolution),
            )
        return {
            "grid": str(self.path / "grid.png"),
            "turntable": turntable and str(turntable),
            "meshes": [str(file) for file in self.meshes(range(3))],
        }

    @torch.no_grad()
    def meshes(self, seeds: range) -> list[Path]:
        """Coloured meshes of some shapes; shapes without a surface are left out, and that is said."""
        made = []
        for seed in seeds if self.config.mesh_resolution else ():
            latents = sample_latents(self.config, [seed]).to(next(self.generator.parameters()).device)
            path = self.path / "meshes" / f"shape-{seed}.glb"
            try:
                condition = self.generator.condition(latents)
                mesh = shape_mesh(self.generator, condition, self.config.mesh_resolution, f"seed {seed}")
            except UserError as error:
                print(f"seed {seed}: no mesh: {error}")
                continue
            export_mesh(mesh, path)
            made.append(path)
        return made


def shape_mesh(generator: Field, condition: Any, cells: int, name: str) -> trimesh.Trimesh:
    """The coloured surface of one shape without its floaters; says how many these were. Raises UserError for none."""
    mesh, removed = without_floaters(marching_cubes(generator, condition, cells))
    if removed:
        print(f"{name}: {say_removed(mesh, removed)}")
    return mesh


def measure_slope(generator: Field) -> None:
    """Radiance fields need it for meshes: how fast their density changes with distance."""
    if isinstance(generator, PiGanField):
        generator.measure_slope()


def video_file(path: Path, config: ResolvedGanConfig) -> Path:
    """Of the turntable of a run in `path`."""
    return path / f"turntable.{config.video_format}"
