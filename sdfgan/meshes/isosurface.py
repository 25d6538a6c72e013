"""Fields as triangle meshes, by marching cubes, in world units and with a colour per vertex.

Marching cubes after Lewiner et al., "Efficient Implementation of Marching Cubes' Cases with Topological
Guarantees", 2003, as scikit-image has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from skimage.measure import marching_cubes as triangulate
from torch import Tensor
from trimesh.graph import connected_component_labels

from sdfgan.checks import check_whole
from sdfgan.errors import UserError
from sdfgan.fields.base import Field

_BLOCK = 8  # grid points along a block's side
_POINTS_AT_ONCE = 2**17
_BLOCKS_AT_ONCE = 2**13  # whose values are 16 MB
_SAFETY = 1.5  # margin when skipping blocks: a learned field's gradient exceeds its nominal bound in places


@torch.no_grad()
def marching_cubes(
    field: Field,
    condition: Any = None,
    resolution: int = 128,
    bound: float = 1.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> trimesh.Trimesh:
    """The surface of a field in the box [-bound, bound]^3, closed where the box cuts it. Not differentiable.

    Blocks of the grid that cannot hold a surface, by the field's Lipschitz bound, are not evaluated.

    Args:
        condition: what `field.condition(latents)` gave for latents of one row, or None.
        resolution: grid cells along a side of the box.
        on_progress: called with the number of points evaluated so far and their total.

    Returns:
        A mesh in world units: faces anticlockwise from outside (positive volume), vertex colours RGBA uint8.

    Raises:
        UserError: the field has no surface in the box, or is not finite there.
        ValueError: `resolution` is less than 1, `bound` not positive, or the field unsigned.
    """
    check_whole("marching_cubes", 1, resolution=resolution)
    check_condition("marching_cubes", field, condition)
    if not 0 < bound < math.inf:
        raise ValueError(f"marching_cubes: bound must be positive, got {bound}")
    if field.unsigned:
        raise ValueError("marching_cubes: an unsigned field has no inside: use sdfgan.meshes.sheet_mesh")
    padded = grid_values(field, condition, resolution, bound, on_progress, border=1)
    inside = padded[1:-1, 1:-1, 1:-1]
    low, high = inside.min(), inside.max()  # NaN, if any value is
    if not np.isfinite([low, high]).all():
        raise UserError("no surface: the field is not finite; its training has diverged")
    if not low < 0 < high:
        side = "outside" if high > 0 else "inside"
        raise UserError(f"no surface: all of the box from {-bound:g} to {bound:g} is {side} the field")
    # A far larger value around the grid closes what the box cuts, within a thousandth of a cell of its face.
    for axis in range(3):
        np.moveaxis(padded, axis, 0)[[0, -1]] = 1000 * max(-low, high)
    vertices, faces, _, _ = triangulate(padded, 0.0, gradient_direction="descent")
    vertices = ((vertices - 1) * (2 * bound / resolution) - bound).clip(-bound, bound)
    return painted(vertices, faces, field, condition)


@torch.no_grad()
def painted(vertices: np.ndarray, faces: np.ndarray, field: Field, condition: Any = None) -> trimesh.Trimesh:
    """A mesh of vertices [V, 3] and faces [F, 3] with the colours, RGBA uint8, that a field has at the vertices."""
    rgb = colours_at(field, condition, torch.from_numpy(vertices.astype(np.float32)))
    rgba = F.pad((rgb.clamp(0, 1) * 255).round().byte(), (0, 1), value=255)
    return trimesh.Trimesh(vertices, faces, vertex_colors=rgba.numpy(), process=False)


def without_floaters(mesh: trimesh.Trimesh, share: float = 0.01, cavities: bool = False) -> tuple[trimesh.Trimesh, int]:
    """A closed mesh without parts of less than a share of the largest one's area, or inside out, and their number.

    What is inside out is around a hole that is shut in, which no camera outside can have seen; with `cavities` it is
    kept.
    """
    parts, volumes = parts_of(mesh)
    areas = np.bincount(parts, mesh.area_faces)
    kept = (areas >= share * areas.max()) & (cavities | (volumes > 0))
    kept[areas.argmax()] = True
    if kept.all():
        return mesh, 0
    whole = mesh.copy()
    whole.update_faces(kept[parts])
    whole.remove_unreferenced_vertices()
    return whole, int((~kept).sum())


def parts_of(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """The part [F] that each face of a closed mesh is of, and the volumes [parts], negative of what is inside out."""
    parts = connected_component_labels(mesh.face_adjacency, node_count=len(mesh.faces))
    corners = mesh.triangles
    return parts, np.bincount(parts, (np.cross(corners[:, 0], corners[:, 1]) * corners[:, 2]).sum(1)) / 6


def say_removed(mesh: trimesh.Trimesh, removed: int) -> str:
    """What `without_floaters` has removed to leave a mesh, in words."""
    return f"{removed} of {removed + mesh.body_count} parts removed: they float, or are cavities"


def check_condition(function: str, field: Field, condition: Any) -> None:
    """Raises TypeError or ValueError for what is no field of one shape."""
    if not isinstance(field, Field):
        raise TypeError(f"{function}: field must be a Field, got {type(field).__name__}")
    if condition is None and field.latent_size:
        raise ValueError(f"{function}: condition must be given: field.condition(latents), of latents of one row")
    plain = isinstance(condition, (tuple, list, dict))  # of parts of one shape, by somebody's own field
    shapes = len(condition) if hasattr(condition, "__len__") and not plain else 1
    if shapes != 1:
        raise ValueError(f"{function}: condition must be that of one shape, got {shapes}")


def grid_values(
    field: Field,
    condition: Any,
    resolution: int,
    bound: float,
    on_progress: Callable[[int, int], None] | None,
    border: int = 0,
) -> np.ndarray:
    """Values [n, n, n] float32 at n = resolution + 1 points per axis; a block without a surface holds one value.

    There is nothing in memory for long that is as large, so `border` makes room around them, of undefined values.
    """
    n, cell = resolution + 1, 2 * bound / resolution
    blocks = -(-n // _BLOCK)  # the last one may reach past the box, which does no harm
    first = torch.arange(blocks, dtype=torch.float32, device="cpu") * _BLOCK * cell - bound
    inside = (torch.arange(_BLOCK, dtype=torch.float32, device="cpu") - (_BLOCK - 1) / 2) * cell
    centres = torch.cartesian_prod(*[first - inside[0]] * 3)  # [blocks^3, 3]
    offsets = torch.cartesian_prod(*[inside] * 3)  # [_BLOCK^3, 3]

    # The cells between two blocks take values of both, so the surface must be out of their reach as well.
    half_diagonal = math.sqrt(3) * (_BLOCK + 1) / 2 * cell
    at_centre = torch.cat([_sdf(field, condition, points) for points in centres.split(_POINTS_AT_ONCE)])
    near = at_centre.abs() <= half_diagonal * _SAFETY * max(float(np.max(field.lipschitz)), 1.0)
    total, done = int(near.sum()) * _BLOCK**3, 0
    grid = np.empty([n + 2 * border] * 3, np.float32)
    layers = max(1, _BLOCKS_AT_ONCE // blocks**2)
    for start in range(0, blocks, layers):
        slab = slice(start * blocks**2, (start + layers) * blocks**2)
        values = at_centre[slab, None].repeat(1, _BLOCK**3)
        for group in near[slab].nonzero()[:, 0].split(_POINTS_AT_ONCE // _BLOCK**3):
            if len(group) == 0:  # which not every function takes
                continue
            points = (centres[slab][group, None] + offsets).view(-1, 3)
            values[group] = _sdf(field, condition, points).view(len(group), _BLOCK**3)
            done += len(points)
            if on_progress is not None:
                on_progress(done, total)
        parts = values.view(-1, blocks, blocks, _BLOCK, _BLOCK, _BLOCK).permute(0, 3, 1, 4, 2, 5)
        rows = slice(border + start * _BLOCK, border + min(n, (start + layers) * _BLOCK))
        inner = grid[rows, border : border + n, border : border + n]
        inner[:] = parts.reshape(-1, blocks * _BLOCK, blocks * _BLOCK)[: len(inner), :n, :n].numpy()
    return grid


@torch.no_grad()
def sample_grid(field: Field, condition: Any = None, resolution: int = 128, bound: float = 1.0) -> np.ndarray:
    """Values [n, n, n] float32 of a field at the n = resolution + 1 points along x, y, z of the box [-bound, bound]^3.

    Raises ValueError if `resolution` is less than 1.
    """
    check_whole("sample_grid", 1, resolution=resolution)
    check_condition("sample_grid", field, condition)
    ticks = torch.linspace(-bound, bound, resolution + 1, dtype=torch.float32, device="cpu")
    values = torch.empty([resolution + 1] * 3, dtype=torch.float32, device="cpu")
    for slab, x in zip(values, ticks, strict=True):
        slab.view(-1)[:] = _sdf(field, condition, torch.cartesian_prod(x[None], ticks, ticks))
    return values.numpy()


def _sdf(field: Field, condition: Any, points: Tensor) -> Tensor:
    points, image = arguments_of(field, condition, points)
    return field.sdf(points, condition, image).float().cpu()


def colours_at(field: Field, condition: Any, points: Tensor) -> Tensor:
    """Colours [N, 3] of a field at points [N, 3], on the CPU."""
    parts = []
    for part in points.split(_POINTS_AT_ONCE):
        given, image = arguments_of(field, condition, part)
        parts.append(field.rgb(given, condition, image).float().cpu())
    return torch.cat(parts)


def arguments_of(field: Field, condition: Any, points: Tensor) -> tuple[Tensor, Tensor | None]:
    """Points on the field's device, and the row of the condition of each."""
    own = next(iter((*field.parameters(), *field.buffers())), None)
    points = points if own is None else points.to(own.device)
    image = None if condition is None else torch.zeros(len(points), dtype=torch.int64, device=points.device)
    return points, image
