"""The mesh of an unsigned distance: one sheet, with borders, without a sign anywhere.

On both sides of a sheet the gradients of the distance to it point apart. So an edge of the grid crosses it where its
ends have gradients against each other that point away from its middle, and distances that a plane between them could
have (after Guillard et al., "MeshUDF", 2022, who vote on signs cell by cell in this way; where two surfaces are as
near, between them, gradients point towards each other). Each cell that is crossed gets a vertex, each crossed edge the
quad of the four cells around it: surface nets (Gibson 1998), which need no inside.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan.checks import check_whole
from sdfgan.errors import UserError
from sdfgan.fields.base import Field
from sdfgan.meshes.isosurface import arguments_of, check_condition, grid_values
from sdfgan.meshes.orientation import neighbours, orient

_REACH = 1.6  # cells: ends of an edge that crosses a sheet have one together, and a network rounds the crease between
_ASIDE = np.array([0.0061, 0.0073, 0.0031])  # cells
_POINTS_AT_ONCE = 2**16


@torch.no_grad()
def sheet_mesh(field: Field, condition: Any = None, resolution: int = 128, bound: float = 1.0) -> trimesh.Trimesh:
    """The sheet where an unsigned distance is 0, in the box [-bound, bound]^3. Not differentiable.

    Arguments as of `meshes.marching_cubes`. Faces of each part look the same way, where they can.

    Raises UserError where there is no sheet, or the field is not finite; TypeError or ValueError for a signed field, a
    resolution that is no positive whole number, a bound that is not positive, or conditions of several shapes.
    """
    check_whole("sheet_mesh", 1, resolution=resolution)
    check_condition("sheet_mesh", field, condition)
    if not field.unsigned:
        raise ValueError("sheet_mesh: a signed field has an inside: use sdfgan.meshes.marching_cubes")
    if not 0 < bound < math.inf:
        raise ValueError(f"sheet_mesh: bound must be positive, got {bound}")
    values = grid_values(field, condition, resolution, bound, None).ravel()
    if not np.isfinite(values).all():
        raise UserError("no surface: the field is not finite; its training has diverged")
    cell, n = 2 * bound / resolution, resolution + 1
    near = np.flatnonzero(values <= _REACH * cell)
    distance = values[near]
    gradient = _gradients(field, condition, _points(near, n, cell, bound))
    lost = np.flatnonzero(~gradient.any(1))  # on the sheet itself: either of its sides will do, if it is the same one
    gradient[lost] = _gradients(field, condition, _points(near[lost], n, cell, bound) + _ASIDE * cell)

    crossings, cells = [], []
    for axis in range(3):
        step = n ** (2 - axis)
        start = np.flatnonzero(near // step % n < n - 1)
        end = np.searchsorted(near, near[start] + step).clip(max=len(near) - 1)
        start, end = (rows[near[end] == near[start] + step] for rows in (start, end))
        a, b = gradient[start], gradient[end]
        apart = ((a * b).sum(1) < 0) & (b[:, axis] > a[:, axis])
        crossed = apart & (distance[start] + distance[end] <= _REACH * cell)
        start, end = start[crossed], end[crossed]
        share = distance[start] / np.maximum(distance[start] + distance[end], 1e-12)
        point = _points(near[start], n, cell, bound)
        point[:, axis] += share * cell
        one, two = (n ** (2 - k) for k in range(3) if k != axis)
        around = near[start][:, None] - np.array([0, one, one + two, two])  # cells, by their lowest point
        inner = np.ones(len(start), bool)
        for k in range(3):
            if k != axis:
                place = near[start] // n ** (2 - k) % n
                inner &= (place > 0) & (place < n - 1)
        crossings.append(point[inner])
        cells.append(around[inner])
    point, quads = np.concatenate(crossings), np.concatenate(cells)
    if len(quads) == 0:
        raise UserError(f"no surface in the box from {-bound:g} to {bound:g}")
    used, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    count = np.bincount(quads.ravel(), minlength=len(used))
    total = np.stack([np.bincount(quads.ravel(), np.repeat(point[:, k], 4), len(used)) for k in range(3)], 1)
    vertices = total / count[:, None]
    faces = _triangles(vertices, quads)
    pairs, agree, _ = neighbours(faces)
    _, turned = orient(vertices, faces, pairs, agree)
    faces[turned] = faces[turned][:, ::-1]
    return trimesh.Trimesh(vertices, faces, process=False)


def _points(index: np.ndarray, n: int, cell: float, bound: float) -> np.ndarray:
    """[N, 3] float64 places of points of the grid."""
    return np.stack(np.unravel_index(index, (n, n, n)), 1) * cell - bound


def _gradients(field: Field, condition: Any, points: np.ndarray) -> np.ndarray:
    """[N, 3] unit gradients of a field."""
    parts: list[Tensor] = []
    for part in torch.from_numpy(points.astype(np.float32)).split(_POINTS_AT_ONCE):
        given, image = arguments_of(field, condition, part)
        _, gradient = field.sdf_and_gradient(given, condition, image)
        parts.append(torch.nn.functional.normalize(gradient.float(), dim=1).cpu())
    return torch.cat(parts).numpy() if parts else np.zeros((0, 3), np.float32)


def _triangles(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """[2 Q, 3]: each quad cut along its shorter diagonal."""
    a, b, c, d = vertices[quads].transpose(1, 0, 2)
    first = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    turned = np.where(first[:, None], quads, np.roll(quads, -1, axis=1))
    return np.concatenate([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]])
