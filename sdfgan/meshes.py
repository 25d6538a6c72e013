"""Fields as triangle meshes: marching cubes and export, in world units and with a colour per vertex.

Marching cubes after Lewiner et al., "Efficient Implementation of Marching Cubes' Cases with Topological
Guarantees", 2003, as scikit-image has it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes as triangulate
from torch import Tensor

from sdfgan.checks import check_whole
from sdfgan.errors import UserError
from sdfgan.fields.base import Field
from sdfgan.training.files import atomic_file

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
_log = logging.getLogger(__name__)
_BLOCK = 8  # grid points along a block's side
_POINTS_AT_ONCE = 2**17
_COARSE = 1e-6  # of the diagonal: rounding that is worth more than single precision
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
        raise ValueError("marching_cubes: an unsigned field has no inside: take sdfgan.sdf.sheet_mesh")
    values = grid_values(field, condition, resolution, bound, on_progress)
    if not np.isfinite(values).all():
        raise UserError("no surface: the field is not finite; its training has diverged")
    if not (values < 0).any() or not (values > 0).any():
        side = "outside" if values.max() > 0 else "inside"
        raise UserError(f"no surface: all of the box from {-bound:g} to {bound:g} is {side} the field")
    # A far larger value around the grid closes what the box cuts, within a thousandth of a cell of its face.
    padded = np.pad(values, 1, constant_values=1000 * np.abs(values).max())
    vertices, faces, _, _ = triangulate(padded, 0.0, gradient_direction="descent")
    vertices = ((vertices - 1) * (2 * bound / resolution) - bound).clip(-bound, bound)
    rgb = _colours(field, condition, torch.from_numpy(vertices.astype(np.float32)))
    rgba = np.concatenate((rgb, np.full((len(rgb), 1), 255, np.uint8)), 1)
    return trimesh.Trimesh(vertices, faces, vertex_colors=rgba, process=False)


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
) -> np.ndarray:
    """Values [n, n, n] at n = resolution + 1 points per axis; a block without a surface holds one value."""
    n, cell = resolution + 1, 2 * bound / resolution
    blocks = -(-n // _BLOCK)  # the last one may reach past the box, which does no harm
    first = torch.arange(blocks) * _BLOCK * cell - bound
    inside = (torch.arange(_BLOCK) - (_BLOCK - 1) / 2) * cell
    centres = torch.cartesian_prod(*[first - inside[0]] * 3)  # [blocks^3, 3]
    offsets = torch.cartesian_prod(*[inside] * 3)  # [_BLOCK^3, 3]

    # The cells between two blocks take values of both, so the surface must be out of their reach as well.
    half_diagonal = math.sqrt(3) * (_BLOCK + 1) / 2 * cell
    at_centre = torch.cat([_sdf(field, condition, points) for points in centres.split(_POINTS_AT_ONCE)])
    values = at_centre[:, None].repeat(1, _BLOCK**3)
    near = (at_centre.abs() <= half_diagonal * _SAFETY * max(float(np.max(field.lipschitz)), 1.0)).nonzero()[:, 0]
    done = 0
    for group in near.split(_POINTS_AT_ONCE // _BLOCK**3):
        points = (centres[group, None] + offsets).view(-1, 3)
        values[group] = _sdf(field, condition, points).view(len(group), _BLOCK**3)
        done += len(points)
        if on_progress is not None:
            on_progress(done, len(near) * _BLOCK**3)
    grid = values.view(blocks, blocks, blocks, _BLOCK, _BLOCK, _BLOCK).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape([blocks * _BLOCK] * 3)[:n, :n, :n].numpy()


@torch.no_grad()
def sample_grid(field: Field, condition: Any = None, resolution: int = 128, bound: float = 1.0) -> np.ndarray:
    """Values [n, n, n] float32 of a field at the n = resolution + 1 points along x, y, z of the box [-bound, bound]^3.

    Raises ValueError if `resolution` is less than 1.
    """
    check_whole("sample_grid", 1, resolution=resolution)
    check_condition("sample_grid", field, condition)
    ticks = torch.linspace(-bound, bound, resolution + 1)
    slabs = [_sdf(field, condition, torch.cartesian_prod(x[None], ticks, ticks)) for x in ticks]
    return torch.stack(slabs).view([resolution + 1] * 3).numpy()


def _sdf(field: Field, condition: Any, points: Tensor) -> Tensor:
    points, image = arguments_of(field, condition, points)
    return field.sdf(points, condition, image).float().cpu()


def _colours(field: Field, condition: Any, vertices: Tensor) -> np.ndarray:
    """Colours [V, 3] uint8 at vertices [V, 3]."""
    parts = []
    for part in vertices.split(_POINTS_AT_ONCE):
        points, image = arguments_of(field, condition, part)
        parts.append(field.rgb(points, condition, image).float().cpu())
    return (torch.cat(parts).clamp(0, 1) * 255).round().byte().numpy()


def arguments_of(field: Field, condition: Any, points: Tensor) -> tuple[Tensor, Tensor | None]:
    """Points on the field's device, and the row of the condition of each."""
    own = next(iter((*field.parameters(), *field.buffers())), None)
    points = points if own is None else points.to(own.device)
    image = None if condition is None else torch.zeros(len(points), dtype=torch.int64, device=points.device)
    return points, image


def export_volume(values: np.ndarray, path: str | Path, bound: float = 1.0) -> None:
    """Write values [n, n, n] along x, y, z of the box [-bound, bound]^3 as .mrc, whole or not at all.

    Voxel size and origin are in world units. Raises UserError for another suffix.
    """
    import mrcfile

    path = Path(path)
    if path.suffix.lower() != ".mrc":
        raise UserError(f"{path}: a volume must be .mrc")
    with atomic_file(path) as partial, mrcfile.new(partial, overwrite=True) as volume:
        volume.set_data(np.ascontiguousarray(values.astype(np.float32).transpose(2, 1, 0)))  # z is the slowest
        volume.voxel_size = 2 * bound / (values.shape[0] - 1)
        volume.header.origin = (-bound, -bound, -bound)


def export_mesh(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Write a mesh as .glb, .obj or .ply with its vertex colours, or as .stl without, whole or not at all.

    Far from the origin single precision is too coarse for a surface. There a .glb is moved to the origin, with a node
    that moves it back, a .ply has doubles, and an .stl, which cannot, is written with a warning that says what is lost.

    Raises UserError for another suffix, and where the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise UserError(f"{path}: a mesh must be {', '.join(MESH_SUFFIXES)}")
    vertices = np.asarray(mesh.vertices, np.float64)
    if len(vertices) == 0:
        raise UserError(f"{path}: there is no mesh to write")
    diagonal = float(np.linalg.norm(np.ptp(vertices, axis=0))) or 1.0
    with np.errstate(over="ignore"):
        error = float(np.abs(vertices - vertices.astype(np.float32)).max())  # of single precision
    is_coarse = error > _COARSE * diagonal
    with atomic_file(path) as partial:
        if suffix == ".ply":
            partial.write_bytes(_ply(mesh, "double" if is_coarse else "float"))
        elif suffix == ".glb" and is_coarse:
            partial.write_bytes(_moved_glb(mesh))
        elif suffix == ".obj":
            digits = max(8, 9 - math.floor(math.log10(diagonal)))  # after the point
            mesh.export(partial, file_type="obj", digits=digits)
        else:
            mesh.export(partial, file_type=suffix[1:])
    if suffix == ".stl" and is_coarse:
        _log.warning(
            "%s: STL has single precision, which so far from the origin moves vertices by up to %.2g, %.2g%% of the "
            "diagonal; .glb, .ply and .obj keep them",
            path, error, 100 * error / diagonal,
        )  # fmt: skip


def _moved_glb(mesh: trimesh.Trimesh) -> bytes:
    """A GLB around the origin whose node moves it to its place."""
    # A translation that single precision holds: readers that have no more put it where others do.
    centre = mesh.vertices.mean(0).astype(np.float32).astype(np.float64)
    moved = mesh.copy()
    moved.vertices = mesh.vertices - centre

    def place(tree: dict[str, Any]) -> None:
        for node in tree["nodes"]:
            if "mesh" in node:
                node.pop("matrix", None)
                node["translation"] = centre.tolist()

    return trimesh.exchange.gltf.export_glb(trimesh.Scene(moved), tree_postprocessor=place)


def _ply(mesh: trimesh.Trimesh, kind: str) -> bytes:
    """A binary PLY with vertices in `kind`, float or double, and their colours; trimesh writes floats only."""
    vertices = np.asarray(mesh.vertices)
    visual: Any = mesh.visual
    colours = np.asarray(visual.vertex_colors) if visual is not None and visual.kind == "vertex" else None
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property {kind} {axis}" for axis in "xyz"]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue", "alpha")] if colours is not None else []
    lines += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header", ""]
    fields: list[tuple] = [("place", "<f8" if kind == "double" else "<f4", 3)]
    fields += [("colour", "u1", 4)] if colours is not None else []
    rows = np.empty(len(vertices), fields)
    rows["place"] = vertices
    if colours is not None:
        rows["colour"] = colours
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    return "\n".join(lines).encode() + rows.tobytes() + faces.tobytes()


def chamfer_distance(a: trimesh.Trimesh, b: trimesh.Trimesh, points: int = 20_000, seed: int = 0) -> float:
    """Mean distance from random points of each surface to the nearest of the other, averaged over both; world units."""
    clouds = [trimesh.sample.sample_surface(mesh, points, seed=seed)[0] for mesh in (a, b)]
    there, back = (cKDTree(p).query(q)[0].mean() for p, q in (clouds, clouds[::-1]))
    return float(there + back) / 2
