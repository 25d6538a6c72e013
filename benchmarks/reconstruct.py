"""A mesh from images of it by gradients of images: distances on a grid, Adam, re-distancing; and the figure of it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import trimesh
from torch import Tensor

from edge_gradients import GridSDF, View, grid_points
from scenes import filtered, truth
from sdfgan import cameras, raycast
from sdfgan.errors import UserError
from sdfgan.images import save_image
from sdfgan.meshes import GroundTruth, chamfer_distance, marching_cubes, normalise, read_mesh, repair

LIGHT = raycast.Lighting(ambient=0.3, headlight=0.7, wrap=0.0)
_TRUE_CELLS = 128
_REDISTANCE = 5  # steps between: the mesh's exact distance replaces the grid's values
_SMOOTHING = 0.02  # of the mean square of second differences, in cells
_LEARNING_RATE = 0.32  # of a cell: Adam moves every value that far at first, and a finer surface bears less
_POINTS = 20_000  # of each surface, from which distances to the other are measured
_LARGE = 64  # pixels along a side, beyond which the true images have 4 rays per pixel instead of 36
_SHOWN = 3  # views of an image of what was reconstructed
Record = dict[str, Any]


class Setup(NamedTuple):
    """What is reconstructed from what. Results of different setups are not to be compared."""

    views: int = 16
    resolution: int = 64
    cells: int = 32
    batch: int = 2  # views per step
    rays: int = 4  # per pixel, of methods that take random ones
    coarse: float = 0.0  # share of the time that goes to `coarser` first

    @property
    def coarser(self) -> Setup:
        """Images of a quarter of the resolution, for a grid of half of the cells."""
        return self._replace(resolution=self.resolution // 4, cells=self.cells // 2)

    @classmethod
    def of(cls, record: Record) -> Setup:
        """That of a record; the first ones do not say it."""
        return cls(*(record.get(name, value) for name, value in cls._field_defaults.items()))


FLOOR = "exact distances"  # the method's name in the record of `floor`
QUICK = Setup(views=4, resolution=16, cells=16)


def reconstruct(
    path: Path,
    estimate: Callable[[View, float, torch.Generator], Tensor],
    seconds: float,
    setup: Setup,
    *,
    tent: bool = False,
    sparse: bool = False,
    image: Path | None = None,
) -> list[Record]:
    """CPU seconds, steps and Chamfer distances (in per cent of the diagonal), from a ball to the mesh of a file.

    Grey images of the mesh's exact distance on a grid of 128 cells are what is to be met, on black, by a coarser grid.
    estimate(view, share of the time that is spent, generator) makes an image with a graph.

    Args:
        tent: whether pixels are filtered by a tent, else by a box.
        sparse: a step draws some 64^2 random pixels, one of each block, for what takes long and can leave pixels out.
        image: to be written: what was reconstructed above what was to be.
    """
    goal = _goal(path)
    photographs = _photographs(path, setup.views, setup.resolution, min(4 * setup.cells, _TRUE_CELLS))
    axes = _around(setup.views).float()
    levels = [(0.0, setup.coarser), (setup.coarse, setup)] if setup.coarse else [(0.0, setup)]
    corners = (levels[0][1].cells + 1,) * 3
    values = (grid_points(levels[0][1].cells, torch.float32).norm(dim=-1) - 0.6).view(corners).requires_grad_()
    random = torch.Generator().manual_seed(0)
    warm = View(GridSDF(values), GridSDF(values.detach()), axes[:1], LIGHT, min(setup.resolution, _LARGE))
    estimate(warm, 0.0, random)[0].sum().backward()  # compilers and libraries are none of the method's time
    used, steps, curve = 0.0, 0, [_score(values, goal, 0.0, 0)]
    while used < seconds:
        begin = time.process_time()
        if levels and used >= seconds * levels[0][0]:
            level = levels.pop(0)[1]
            values = _resized(values.detach(), level.cells).requires_grad_()
            optimiser = torch.optim.Adam([values], betas=(0.9, 0.95))
            factor = 2 * setup.resolution // level.resolution
            wanted = [filtered(one, factor, tent)[0].float() for one in photographs]
            block = max(1, level.resolution // _LARGE) if sparse else 1
            begin = time.process_time()  # nor is what has been prepared
        optimiser.param_groups[0]["lr"] = _LEARNING_RATE * 2 / level.cells * (1 - 0.9 * used / seconds)
        optimiser.zero_grad()
        field, still = GridSDF(values), GridSDF(values.detach())
        for index in torch.randperm(setup.views, generator=random)[: setup.batch].tolist():
            pixels = _one_of_each_block(level.resolution, block, random) if block > 1 else None
            view = View(field, still, axes[index][None], LIGHT, level.resolution, pixels)
            difference = (estimate(view, used / seconds, random)[0] - wanted[index]).flatten()
            loss = (difference if pixels is None else difference[pixels]).square().mean() * level.resolution
            (loss / setup.batch).backward(retain_graph=True)
        (_SMOOTHING * _roughness(values) * level.cells**2).backward()
        optimiser.step()
        steps += 1
        if steps % _REDISTANCE == 0:
            _redistance(values)
        used += time.process_time() - begin
        if used > seconds * len(curve) / 6 or used >= seconds:
            curve.append(_score(values, goal, used, steps))
    if image is not None:
        _save(values, goal, setup, image)
    return curve


def floor(path: Path, setup: Setup) -> list[Record]:
    """The curve, of one point, of the mesh's exact distances on the grid: no method is better than by chance."""
    goal = _goal(path)
    return [_score(_distances(goal.exact, setup.cells), goal, 0.0, 0)]


class _Goal(NamedTuple):
    """A mesh in the unit ball, its distances, and random points [N, 3] of its surface."""

    mesh: trimesh.Trimesh
    exact: GroundTruth
    points: Tensor


@functools.cache
def _goal(path: Path) -> _Goal:
    mesh, _ = normalise(repair(read_mesh(path), path.name)[0], "ball", 0.1)
    return _Goal(mesh, GroundTruth(mesh), _points(mesh))


@functools.cache
def _photographs(path: Path, views: int, resolution: int, cells: int) -> list[Tensor]:
    """True images [1, 2 R, 2 R], twice as fine as what is compared, of exact distances on a grid."""
    goal = GridSDF(_distances(_goal(path).exact, cells).double())
    rays = 3 if resolution <= _LARGE else 1
    return [truth(goal, None, one[None], LIGHT, 2 * resolution, rays)[:1] for one in _around(views)]


def _one_of_each_block(resolution: int, block: int, random: torch.Generator) -> Tensor:
    """Pixels [M] of an image whose side `block` divides."""
    blocks = resolution // block
    row, column = torch.randint(block, (2, blocks, blocks), generator=random)
    first = torch.arange(0, resolution, block)
    return ((first[:, None] + row) * resolution + first + column).flatten().sort().values


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


def _resized(values: Tensor, cells: int) -> Tensor:
    """Trilinear between what is there."""
    corners = (cells + 1,) * 3
    return torch.nn.functional.interpolate(values[None, None], corners, mode="trilinear", align_corners=True)[0, 0]


def _points(mesh: trimesh.Trimesh) -> Tensor:
    return torch.from_numpy(trimesh.sample.sample_surface(mesh, _POINTS, seed=0)[0]).float()


def _score(values: Tensor, goal: _Goal, used: float, steps: int) -> Record:
    """Distances from points of each surface to points of the other, whose spacing is their floor, and to all of it."""
    chamfer = to_surface = math.inf
    try:
        mesh = _mesh(values)
        chamfer = chamfer_distance(mesh, goal.mesh, _POINTS)
        pairs = ((GroundTruth(mesh, unsigned=True), goal.points), (goal.exact.as_unsigned(), _points(mesh)))
        to_surface = sum(exact.signed_distance(points).mean().item() for exact, points in pairs) / 2
    except UserError:  # there is no surface
        pass
    unit = 100 / float(torch.tensor(goal.mesh.extents).norm())
    return {
        "cpu_seconds": used,
        "steps": steps,
        "chamfer_percent": unit * chamfer,
        "surface_percent": unit * to_surface,
    }


def _save(values: Tensor, goal: _Goal, setup: Setup, path: Path) -> None:
    """Images of the grid above those of the exact distances."""
    rows = []
    for field in (GridSDF(values.detach()), GridSDF(_distances(goal.exact, setup.cells))):
        axes = _around(setup.views)[:: math.ceil(setup.views / _SHOWN)].float()
        images = [raycast.render(sdf=field, axes=one[None], light=LIGHT, resolution=setup.resolution) for one in axes]
        rows.append(torch.cat([one.rgba[0, :3] for one in images], -1))
    save_image(path, torch.cat(rows, 1))


def newest_of(records: list[Record]) -> list[Record]:
    """The last of each table, scene, method and setup."""
    return list({(one["table"], one["scene"], one["method"], Setup.of(one)): one for one in records}.values())


def draw(records: list[Record], path: Path) -> str:
    """The figure of `peers.py`: bias and deviation of gradients, and Chamfer distances against time. Says where it is.

    Different setups are in different panels.
    """
    newest = newest_of(records)
    gradients = [one for one in newest if one["table"] == "gradients"]
    curves = [one for one in newest if one["table"] == "reconstruct"]
    if not gradients and not curves:
        return "no figure: there are no records of gradients or reconstruct"
    try:
        import matplotlib
    except ImportError:
        return "no figure: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(one["method"] for one in gradients))
    lines = dict.fromkeys(one["method"] for one in curves if one["method"] != FLOOR)
    colours = {name: f"C{index}" for index, name in enumerate(dict.fromkeys([*names, *lines]))}
    meshes = list(dict.fromkeys((one["scene"], Setup.of(one)) for one in curves))
    rows = 1 + len(meshes) // 4
    columns = math.ceil((1 + len(meshes)) / rows)
    figure, grid = pyplot.subplots(
        rows, columns, figsize=(4 * columns + 1, 4 * rows), layout="constrained", squeeze=False
    )
    panels = list(grid.flat)
    for panel in panels[1 + len(meshes) :]:
        panel.set_axis_off()
    for name in names:
        own = [one for one in gradients if one["method"] == name]
        places = [max(one["bias"], 0.003) for one in own], [max(one["deviation"], 0.003) for one in own]
        panels[0].scatter(*places, label=name, color=colours[name], s=22)
    panels[0].set(xscale="log", yscale="log", title="Gradient of an image loss")
    panels[0].set(xlabel="bias (a mark per scene)", ylabel="standard deviation")
    if names:
        panels[0].legend(fontsize=7)
    for panel, (mesh, setup) in zip(panels[1:], meshes, strict=False):
        for one in (one for one in curves if (one["scene"], Setup.of(one)) == (mesh, setup)):
            # The first records have no distances to surfaces; those to points stand in a panel of their own.
            points = [(at["cpu_seconds"], at.get("surface_percent", at["chamfer_percent"])) for at in one["curve"]]
            if one["method"] == FLOOR:
                panel.axhline(points[0][1], label=FLOOR, color="grey", linestyle=":")
            else:
                panel.plot(*zip(*points, strict=True), label=one["method"], color=colours[one["method"]])
        panel.set(yscale="log", xlabel="CPU seconds", ylabel="Chamfer, % of the diagonal")
        panel.set(title=f"{mesh}: {setup.views} views of {setup.resolution}$^2$, {setup.cells}$^3$ cells")
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return f"figure in {path}"
