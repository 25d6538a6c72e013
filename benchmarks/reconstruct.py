"""A mesh from images of it by gradients of images: distances on a grid, Adam, re-distancing; and the figure of it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edge_gradients import GridSDF, View, grid_points
from scenes import filtered, truth
from sdfgan import cameras, raycast
from sdfgan.errors import UserError
from sdfgan.meshes import GroundTruth, chamfer_distance, marching_cubes, normalise, read_mesh, repair

LIGHT = raycast.Lighting(ambient=0.3, headlight=0.7, wrap=0.0)
_RESOLUTION = 64
_CELLS, _TRUE_CELLS = 32, 128
_REDISTANCE = 5  # steps between: the mesh's exact distance replaces the grid's values
_SMOOTHING = 0.02  # of the mean square of second differences, in cells
_LEARNING_RATE = 0.02
_BATCH = 2  # views of a step
Record = dict[str, Any]


def reconstruct(
    path: Path,
    estimate: Callable[[View, float, torch.Generator], Tensor],
    seconds: float,
    quick: bool,
    tent: bool = False,
) -> list[Record]:
    """CPU seconds, steps and Chamfer distance (in per cent of the diagonal), from a ball to the mesh of a file.

    The grey images (36 rays per pixel) of the mesh's exact distance on a grid of 128 cells are what is to be met, on
    black, by a grid of 32. estimate(view, share of the time that is spent, generator) makes an image with a graph.
    """
    cells, views, resolution = (16, 4, 16) if quick else (_CELLS, 16, _RESOLUTION)
    mesh, wanted = _photographs(path, views, resolution, quick, tent)
    axes = _around(views).float()
    values = (grid_points(cells, torch.float32).norm(dim=-1) - 0.6).view(cells + 1, cells + 1, cells + 1)
    values.requires_grad_()
    optimiser = torch.optim.Adam([values], _LEARNING_RATE, betas=(0.9, 0.95))
    random = torch.Generator().manual_seed(0)
    warm = View(GridSDF(values), GridSDF(values.detach()), axes[:1], LIGHT, resolution)
    estimate(warm, 0.0, random)[0].sum().backward()  # compilers and libraries are none of the method's time
    used, steps, curve = 0.0, 0, [_score(values, mesh, 0.0, 0)]
    while used < seconds:
        begin = time.process_time()
        optimiser.param_groups[0]["lr"] = _LEARNING_RATE * (1 - 0.9 * used / seconds)
        optimiser.zero_grad()
        field, still = GridSDF(values), GridSDF(values.detach())
        for index in torch.randperm(views, generator=random)[:_BATCH].tolist():
            view = View(field, still, axes[index][None], LIGHT, resolution)
            image = estimate(view, used / seconds, random)
            ((image[0] - wanted[index]).square().sum() / (_BATCH * resolution)).backward(retain_graph=True)
        (_SMOOTHING * _roughness(values) * cells**2).backward()
        optimiser.step()
        steps += 1
        if steps % _REDISTANCE == 0:
            _redistance(values)
        used += time.process_time() - begin
        if used > seconds * len(curve) / 6 or used >= seconds:
            curve.append(_score(values, mesh, used, steps))
    return curve


@functools.cache
def _photographs(path: Path, views: int, resolution: int, quick: bool, tent: bool) -> tuple[Any, list[Tensor]]:
    """The mesh in the unit ball, and its true images [R, R]; through a tent or a box."""
    mesh, _ = normalise(repair(read_mesh(path), path.name)[0], "ball", 0.1)
    goal = GridSDF(_distances(GroundTruth(mesh), 32 if quick else _TRUE_CELLS).double())
    rays = 1 if quick else 3
    fine = [truth(goal, None, one[None], LIGHT, 2 * resolution, rays)[:1] for one in _around(views)]
    return mesh, [filtered(image, 2, tent)[0].float() for image in fine]


def _around(views: int) -> Tensor:
    """Axes [views, 3, 3] of cameras evenly around: Fibonacci's spiral."""
    number = torch.arange(views, dtype=torch.float64)
    elevation = torch.asin(1 - (2 * number + 1) / views)
    return cameras.rotate_axes((elevation, number * math.pi * (3 - math.sqrt(5))))


def _distances(exact: GroundTruth, cells: int) -> Tensor:
    return exact.signed_distance(grid_points(cells, torch.float32)).view(cells + 1, cells + 1, cells + 1)


def _roughness(values: Tensor) -> Tensor:
    """Mean square of the second differences along the axes."""
    return sum(values.diff(n=2, dim=axis).square().mean() for axis in range(3))  # type: ignore[return-value]


def _mesh(values: Tensor) -> Any:
    return marching_cubes(GridSDF(values.detach()), resolution=len(values) - 1)


@torch.no_grad()
def _redistance(values: Tensor) -> None:
    try:
        mesh = _mesh(values)
    except UserError:  # nothing is left to be measured from
        return
    values.copy_(_distances(GroundTruth(mesh, thickness=0.0), len(values) - 1))


def _score(values: Tensor, mesh: Any, used: float, steps: int) -> Record:
    try:
        chamfer = 100 * chamfer_distance(_mesh(values), mesh) / float(torch.tensor(mesh.extents).norm())
    except UserError:
        chamfer = math.inf
    return {"cpu_seconds": used, "steps": steps, "chamfer_percent": chamfer}


def draw(records: list[Record], path: Path) -> str:
    """The figure of `peers.py`: bias and deviation of gradients, and Chamfer distances against time. Says where it is.

    Of a measurement that was repeated, the last one counts.
    """
    newest = {(one["table"], one["scene"], one["method"], one.get("resolution")): one for one in records}
    gradients = [one for one in newest.values() if one["table"] == "gradients"]
    curves = [one for one in newest.values() if one["table"] == "reconstruct"]
    if not gradients and not curves:
        return "no figure: there are no records of gradients or reconstruct"
    try:
        import matplotlib
    except ImportError:
        return "no figure: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(one["method"] for one in gradients))
    colours = {name: f"C{index}" for index, name in enumerate(dict.fromkeys([*names, *(c["method"] for c in curves)]))}
    meshes = list(dict.fromkeys(one["scene"] for one in curves))
    figure, panels = pyplot.subplots(1, 1 + len(meshes), figsize=(5 + 4 * len(meshes), 4), layout="constrained")
    panels = [panels] if not meshes else list(panels)
    for name in names:
        own = [one for one in gradients if one["method"] == name]
        places = [max(one["bias"], 0.003) for one in own], [max(one["deviation"], 0.003) for one in own]
        panels[0].scatter(*places, label=name, color=colours[name], s=22)
    panels[0].set(xscale="log", yscale="log", title="Gradient of an image loss")
    panels[0].set(xlabel="bias (a mark per scene)", ylabel="standard deviation")
    panels[0].legend(fontsize=7)
    for panel, mesh in zip(panels[1:], meshes, strict=True):
        for one in (one for one in curves if one["scene"] == mesh):
            points = [(at["cpu_seconds"], at["chamfer_percent"]) for at in one["curve"]]
            panel.plot(*zip(*points, strict=True), label=one["method"], color=colours[one["method"]])
        panel.set(yscale="log", xlabel="CPU seconds", ylabel="Chamfer, % of the diagonal", title=mesh)
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return f"figure in {path}"
