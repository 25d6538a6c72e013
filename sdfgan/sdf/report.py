"""What is made of a fitted field: its file, mesh, metrics and summary; slices, their error, and a turntable."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan.cameras import orbit_path, rotate_axes
from sdfgan.errors import UserError
from sdfgan.fields.base import Field
from sdfgan.images import VideoWriter, image_grid, save_image, video_if_possible
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.meshes.appearance import file_colours
from sdfgan.meshes.atlas import finished
from sdfgan.meshes.read import read_mesh
from sdfgan.meshes.sheets import sheet_mesh
from sdfgan.meshes.signed_distance import GroundTruth
from sdfgan.raycast import render
from sdfgan.sdf.config import MAX_CELLS, ResolvedSdfConfig
from sdfgan.sdf.evaluation import evaluate, field_metrics, mesh_metrics, to_normalised, to_original
from sdfgan.sdf.files import Case, require_colours
from sdfgan.sdf.model import MESH, MODEL, MeshSDF, save_model
from sdfgan.training.files import FullDisk
from sdfgan.training.run import Summary

_SLOPE_POINTS = 20_000
_SIDE = 256  # pixels of a slice
_BANDS = 20.0  # lines of equal distance per unit
_FRAME, _ELEVATION = 192, math.radians(20)
_RED, _BLUE, _INK = (0.85, 0.33, 0.24), (0.23, 0.42, 0.75), (0.05, 0.05, 0.05)
_HEAT = ((0.0, 0.0, 0.02), (0.35, 0.07, 0.43), (0.79, 0.25, 0.33), (0.98, 0.65, 0.04), (0.99, 1.0, 0.64))


def finish_case(
    config: ResolvedSdfConfig, own: ResolvedSdfConfig, case: Case, field: MeshSDF, summary: Summary
) -> None:
    """Make everything of a trained field, and write its summary; `own` are the settings of the case's own run."""
    folder = case.folder
    field.requires_grad_(False)
    near = next(case.stream.epoch(0, min(_SLOPE_POINTS, len(case.stream)))).points
    field.measure_slope(near)
    save_model(folder / MODEL, field, own)
    summary |= {
        "input": str(case.path),
        "folder": str(folder),
        "network": config.network,
        "field": "unsigned" if case.unsigned else "signed",
        "parameters": sum(parameter.numel() for parameter in field.parameters()),
        "samples": len(case.stream),
        "repair": str(case.report) if case.report is not None else None,
        "thinness": case.thinness and dataclasses.asdict(case.thinness),
        "placement": case.placement._asdict(),
        "model": MODEL,
        "mesh": None,
    }
    begin = time.monotonic()
    if case.truth is not None and config.metrics:
        summary["metrics"] = field_metrics(field, case.truth)
    if config.mesh_resolution:
        try:
            cells = summary["reconstruction_res"] = mesh_cells(config, case)
            name = f"{MESH}.{config.mesh_format}"
            export_mesh(solid_mesh(field, cells, config.faces, config.texture_resolution), folder / name)
            summary["mesh"] = name
            if case.truth is not None and config.metrics:  # of what the file holds after its rounding
                written = to_normalised(read_mesh(folder / name), case.placement)
                summary["metrics"] |= mesh_metrics(written, case.truth)
        except FullDisk:  # there would be one with more space
            raise
        except UserError as error:
            summary["error"] = f"{case.path}: {error}"
    if case.thinness is not None and not case.unsigned:
        summary["note"] = case.thinness.as_solid()
    if config.show_vis:
        summary.write(folder)
        summary["pictures"] = [path.name for path in save_slices(folder, field, case.truth)]
        summary["turntable"] = None
        if config.video_frames:
            shown = field.shell() if case.unsigned else field
            turntable = video_if_possible(
                folder / f"turntable.{config.video_format}",
                lambda file: save_turntable(file, shown, config.video_frames),
            )
            summary["turntable"] = turntable and turntable.name
    summary["finishing_seconds"] = round(time.monotonic() - begin, 2)
    summary.write(folder)


def solid_mesh(field: MeshSDF, cells: int, faces: int = 0, texture: int = 0) -> trimesh.Trimesh:
    """The surface of a field, or its sheet, where the mesh lay that it learnt from. Raises UserError for none.

    With at most so many faces (0: all), and with a texture of so many texels along a side (0: none), which shows the
    colours of that mesh's file.
    """
    colours, condition = None, field.condition(None)
    if texture:
        if field.source is None:
            raise UserError("--texture-resolution: the model does not say from which file it was learnt")
        require_colours(field.source)
        colours, notes = file_colours(field.source, field.placement)
        for note in notes:
            print(note)
    mesh = (sheet_mesh if field.unsigned else marching_cubes)(field, condition, cells)
    return to_original(finished(mesh, field, condition, faces, texture, colours), field.placement)


def mesh_cells(config: ResolvedSdfConfig, case: Case) -> int:
    """Of the grid that the mesh is made with: as asked, or finer where that shows more of a thin solid, or of sheets:
    nearer to each other than a cell they merge, and borders lose half a cell."""
    cells, thinness = config.mesh_resolution, case.thinness
    if thinness is None or not config.refine_thin or cells < thinness.cells:  # or a coarse mesh is what was asked for
        return cells
    if case.unsigned:
        return max(cells, 2 * config.preset_cells)
    return max(cells, min(thinness.resolved_at or 2 * cells, 2 * cells, MAX_CELLS)) if thinness.has_holes else cells


def describe(summary: dict[str, Any]) -> list[str]:
    """A summary in lines to print."""
    lines = [summary["note"]] if summary.get("note") else []
    for name, value in summary.get("metrics", {}).items():
        lines.append(f"{name}: {np.format_float_positional(value, 4, fractional=False)}")
    if "training_seconds" in summary:
        lines.append(f"{summary['parameters']:,} parameters, trained in {summary['training_seconds']} s")
        lines.append(f"wrote {summary['folder']}")
    return lines


def slice_points(axis: int, side: int, device: torch.device) -> Tensor:
    """[side^2, 3] pixel centres of the plane through the origin across `axis`, top row first."""
    ticks = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side) * 2 - 1
    up, right = torch.meshgrid(-ticks, ticks, indexing="ij")
    columns = [right, up]
    columns.insert(axis, torch.zeros_like(up))
    return torch.stack(columns, -1).view(-1, 3)


def save_slices(folder: Path, field: Field, truth: GroundTruth | None) -> list[Path]:
    """slices.png: planes across x, y, z, below them the true ones; error.png: |difference|, brightest at its 99.9th
    percentile. Returns what was written."""
    device = next(field.parameters()).device
    planes = [slice_points(axis, _SIDE, device) for axis in range(3)]
    found = torch.stack([evaluate(field, plane).view(_SIDE, _SIDE) for plane in planes]).cpu()
    images, written = colour_distance(found), [folder / "slices.png"]
    if truth is not None:
        true = torch.stack([truth.signed_distance(plane).view(_SIDE, _SIDE) for plane in planes]).cpu()
        images = torch.cat([images, colour_distance(true)])
        error = (found - true).abs()
        written.append(folder / "error.png")
        save_image(written[-1], image_grid(colour_heat(error / error.flatten().quantile(0.999).clamp(min=1e-9)), 3))
    save_image(written[0], image_grid(images, 3))
    return written


def colour_distance(distance: Tensor) -> Tensor:
    """Distances [N, H, W] as [N, 3, H, W]: blue inside, red outside, paler far off, bands, the surface in black."""
    base = torch.where((distance < 0)[..., None], distance.new_tensor(_BLUE), distance.new_tensor(_RED))
    far = (1 - (-4 * distance.abs()).exp())[..., None]
    colour = base + (1 - base) * 0.85 * far
    colour = colour * (0.94 + 0.06 * torch.cos(2 * math.pi * _BANDS * distance))[..., None]
    surface = (distance.abs() < 2.5 / distance.shape[-1])[..., None]
    return torch.where(surface, distance.new_tensor(_INK), colour).movedim(-1, 1)


def colour_heat(values: Tensor) -> Tensor:
    """Values [N, H, W], 0 to 1, as [N, 3, H, W] from black over red to pale yellow."""
    heat = values.new_tensor(_HEAT)
    at = values.clamp(0, 1) * (len(heat) - 1)
    low = at.floor().long().clamp(max=len(heat) - 2)
    return torch.lerp(heat[low], heat[low + 1], (at - low)[..., None]).movedim(-1, 1)


@torch.no_grad()
def save_turntable(path: Path, field: Field, frames: int) -> None:
    """A video of the shape in so many frames, once round, on white."""
    device = next(field.parameters()).device
    condition = field.condition(None)
    with VideoWriter(path) as video:
        for axes in rotate_axes(orbit_path(frames, _ELEVATION)).to(device).split(4):
            image = render(sdf=field, axes=axes, resolution=_FRAME, background=(1.0, 1.0, 1.0), condition=condition)
            for frame in image.rgb:
                video.add(frame.cpu())
