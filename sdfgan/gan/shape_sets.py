"""How good a generator's shapes are: sets of them against sets of true ones, from fixed seeds."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan.cameras import rotate_axes
from sdfgan.data.rendered import mesh_files, object_name
from sdfgan.data.shapes import SHAPE_FAMILIES, random_shapes
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.fields.function import FunctionField
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.evaluation import SEED
from sdfgan.images import image_grid, on_white
from sdfgan.meshes import GroundTruth, marching_cubes, normalise, read_mesh, read_model, render_mesh, render_model
from sdfgan.meshes.isosurface import parts_of
from sdfgan.metrics import pairwise_chamfer, shape_scores
from sdfgan.training.progress import progress

_RESOLUTION = 128  # grid cells along a side of the box that generated shapes are taken from, as `extract-mesh` has
_POINTS = 1024  # on the surface of each shape
_SPECK = 0.01  # of the volume of a shape: smaller parts do not make it two bodies
_TURNED = 16  # shapes of each set that tell which turn fits


class TrueShapes(NamedTuple):
    """Shapes to compare with, as points [N, P, 3] on their surfaces, the files that they are of, and the shares of them
    that `_pieces` gives."""

    clouds: Tensor
    files: tuple[Path, ...] = ()
    z_up: bool = False
    pieces: dict[str, float] | None = None


class Generated(NamedTuple):
    """Surfaces of random shapes of a generator; `meshes` are those of the latents that have one."""

    meshes: list[trimesh.Trimesh]
    clouds: Tensor  # [N, P, 3]
    latents: int


def built_in(count: int, family: str, seed: int = SEED) -> TrueShapes:
    """Random shapes of a built-in set, classes in turn."""
    clouds, pieces = _built_in(count, seed, family)
    return TrueShapes(clouds, pieces=pieces)


def of_meshes(path: Path, z_up: bool = False, most: int | None = None, with_pieces: bool = False) -> TrueShapes:
    """The objects of a folder of meshes, placed as `sdfgan dataset render` places them; `most`: so many at random.
    Faces with corners that are not finite are left out. `with_pieces` takes their surfaces from their signed distances,
    on the grid that those of a generator are taken from, and counts the pieces of these.

    Raises UserError where there are fewer than two, or where a file cannot be read.
    """
    files = list({object_name(file): file for file in reversed(mesh_files(path)[1])}.values())
    files = sorted(files)  # one of each object: the first of its liveries
    if len(files) < 2:
        raise UserError(f"{path}: {len(files)} object: shapes are compared in sets of at least two")
    if most is not None and len(files) > most:
        chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(SEED))[:most]
        files = [files[i] for i in sorted(chosen.tolist())]
    clouds, surfaces = [], []
    with progress(len(files), "true shapes") as bar:
        for index, file in enumerate(files):
            mesh = read_mesh(file)
            mesh.update_faces(np.isfinite(mesh.vertices[mesh.faces]).all((1, 2)))
            mesh.remove_unreferenced_vertices()
            placed = normalise(mesh)[0]
            points = _points_on(placed, SEED + index)
            clouds.append(points[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0]) if z_up else points)
            if with_pieces:
                surfaces.append(_surface(FunctionField(_distances(placed, file).signed_distance), None))
            bar.advance(1, file.stem)
    return TrueShapes(torch.stack(clouds), tuple(files), z_up, _pieces(surfaces) if with_pieces else None)


@torch.no_grad()
def generate(generator: Field, config: ResolvedGanConfig, count: int, seed: int = SEED) -> Generated:
    """`count` random shapes, less those without a surface."""
    random = torch.Generator().manual_seed(seed)
    latents = config.latent_std * torch.randn(count, generator.latent_size, generator=random)
    device = next(generator.parameters()).device
    meshes, clouds = [], []
    with progress(count, "shapes") as bar:
        for index, latent in enumerate(latents.to(device).split(1)):
            mesh = _surface(generator, generator.condition(latent))
            if mesh is not None:
                meshes.append(mesh)
                clouds.append(_points_on(mesh, seed + index))
            bar.advance()
    return Generated(meshes, torch.stack(clouds) if clouds else torch.empty(0, _POINTS, 3), count)


def set_scores(
    made: Generated, true: TrueShapes, others: TrueShapes | None = None, training: TrueShapes | None = None
) -> dict[str, float]:
    """MMD, coverage and 1-NNA by Chamfer distance of generated shapes against true ones, and what the shapes are like.

    Unless cameras are told, a generator learns its class up to one turn about the vertical axis. The turn by which its
    shapes fit the true ones best is undone, and given in degrees (`turned`). What is its shapes' front it may not have
    settled either: `reversed` is the share of those that are nearer to a true one after half a turn more, and
    `either_mmd`, `either_coverage` and `either_one_nna` are the scores with these reversed.

    Args:
        others: true shapes in place of the generated ones, whose scores are the floor (`floor_...`).
        training: shapes that were learned from: mean distance from each generated one to the nearest of them, and the
            same for the true ones (`novelty`, `floor_novelty`).

    Returns:
        also `shapeless`, the share of latents without a surface: these are left out of all other scores;
        `connected`, the share of surfaces that are one piece, and `one_body`, of those that are so but for cavities and
        parts under 1 % of their volume; and the same of the true shapes (`floor_...`), where they are known.
    """
    floor = {} if others is None else _named("floor_", shape_scores(others.clouds, true.clouds)._asdict())
    floor |= _named("floor_", true.pieces or {})
    if training is not None:
        floor["floor_novelty"] = _to_nearest(true.clouds, training.clouds)
    if not made.meshes:
        return {"shapeless": 1.0, **floor}
    angle = turn_to(made.clouds, true.clouds)
    clouds = turned(made.clouds, angle)
    scores: dict[str, float] = shape_scores(clouds, true.clouds)._asdict()
    either, is_reversed = _either_way(clouds, true)
    scores |= _named("either_", shape_scores(either, true.clouds)._asdict())
    scores["reversed"] = is_reversed.float().mean().item()
    if training is not None:
        scores["novelty"] = _to_nearest(clouds, training.clouds)
    shares = {"turned": math.degrees(angle), **_pieces(made.meshes), "shapeless": 1 - len(made.meshes) / made.latents}
    return {**scores, **shares, **floor}


def nearest_sheet(made: Generated, training: TrueShapes, resolution: int, pairs: int = 8) -> Tensor:
    """Image [3, 2 R, pairs R] on white: generated shapes, and below each the object of `training` nearest to it. Shapes
    that are nearer to one after half a turn are shown that way."""
    angle = turn_to(made.clouds, training.clouds)
    clouds, is_reversed = _either_way(turned(made.clouds[:pairs], angle), training)
    nearest = pairwise_chamfer(clouds, training.clouds).argmin(1).tolist()
    elevation, azimuth = torch.tensor([math.radians(20)]), math.radians(35)
    turns = (azimuth - angle - math.pi * is_reversed).split(1)
    meshes = made.meshes[:pairs]
    above = [
        render_mesh(mesh, rotate_axes((elevation, turn)), resolution) for mesh, turn in zip(meshes, turns, strict=True)
    ]
    axes = rotate_axes((elevation, torch.tensor([azimuth])))
    if training.z_up:
        axes = axes[:, :, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0])
    below = [render_model(read_model(training.files[i])[0], axes, resolution) for i in nearest]
    images = torch.cat(above + below)
    return image_grid(on_white(images), len(meshes), fill=1.0)


def _either_way(clouds: Tensor, true: TrueShapes) -> tuple[Tensor, Tensor]:
    """Clouds [N, P, 3], those reversed that are nearer to a true one then, and which [N] these are."""
    other_way = turned(clouds, math.pi)
    nearest, otherwise = (pairwise_chamfer(way, true.clouds).amin(1) for way in (clouds, other_way))
    is_reversed = otherwise < nearest
    return torch.where(is_reversed[:, None, None], other_way, clouds), is_reversed


def turn_to(clouds: Tensor, true: Tensor) -> float:
    """The angle, radians about +y, by which clouds [N, P, 3] fit others [M, P, 3] best, in steps of a degree."""
    some, few = clouds[:_TURNED, ::4], true[:: -(-len(true) // _TURNED), ::4]

    def distance(degrees: int) -> float:
        return float(pairwise_chamfer(turned(some, math.radians(degrees)), few).amin(0).mean())

    near = min(range(0, 360, 10), key=distance)
    return math.radians(min(range(near - 5, near + 6), key=distance) % 360)


def turned(points: Tensor, angle: float) -> Tensor:
    """Points [..., 3] turned about +y by radians."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return points @ points.new_tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]).T


def _named(prefix: str, scores: dict[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in scores.items()}


def _distances(mesh: trimesh.Trimesh, file: Path) -> GroundTruth:
    try:
        return GroundTruth(mesh)
    except ValueError as error:
        raise UserError(f"{file}: not a solid or a sheet: {error}") from error


def _pieces(surfaces: Sequence[trimesh.Trimesh | None]) -> dict[str, float]:
    """The shares of closed surfaces, of those that there are, that are one piece, and that are so but for specks."""
    connected, one_body = 0, 0
    meshes = [mesh for mesh in surfaces if mesh is not None]
    for mesh in meshes:
        volumes = parts_of(mesh)[1]
        connected += mesh.body_count == 1
        one_body += int((volumes > _SPECK * volumes[volumes > 0].sum()).sum()) == 1
    return {"connected": connected / len(meshes), "one_body": one_body / len(meshes)} if meshes else {}


def _to_nearest(clouds: Tensor, others: Tensor) -> float:
    return pairwise_chamfer(clouds, others).amin(1).mean().item()


@functools.cache
def _built_in(count: int, seed: int, family: str) -> tuple[Tensor, dict[str, float]]:
    classes = SHAPE_FAMILIES[family]
    random = torch.Generator().manual_seed(seed)
    clouds, meshes = [], []
    for index in range(count):
        name = classes[index % len(classes)]
        on_cylinder = index // len(classes) % 2 == 0
        field, _ = random_shapes(name, 1, random, on_cylinder=on_cylinder)
        mesh = _surface(field, None)
        assert mesh is not None  # every class has a surface
        clouds.append(_points_on(mesh, seed + index))
        meshes.append(mesh)
    return torch.stack(clouds), _pieces(meshes)


def _surface(field: Field, condition: Any) -> trimesh.Trimesh | None:
    try:
        return marching_cubes(field, condition, _RESOLUTION)
    except UserError:
        return None


def _points_on(mesh: trimesh.Trimesh, seed: int) -> Tensor:
    """Points [P, 3] spread by area over a mesh."""
    points, _ = trimesh.sample.sample_surface(mesh, _POINTS, seed=np.random.default_rng(seed))
    return torch.from_numpy(np.asarray(points, np.float32))
