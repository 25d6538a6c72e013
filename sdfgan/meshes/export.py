"""Meshes and volumes as files, written whole or not at all."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from sdfgan.errors import UserError
from sdfgan.images import to_linear
from sdfgan.training.files import atomic_file

MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
_log = logging.getLogger(__name__)
_COARSE = 1e-6  # of the diagonal: rounding that is worth more than single precision


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
        elif suffix == ".glb":
            partial.write_bytes(_glb(mesh, is_coarse))
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


def _glb(mesh: trimesh.Trimesh, moved: bool) -> bytes:
    """A GLB, `moved` to the origin with a node that moves it back. glTF has vertex colours in linear light."""
    made = mesh.copy(include_cache=True)  # keeps its normals
    # A translation that single precision holds: readers that have no more put it where others do.
    centre = mesh.vertices.mean(0).astype(np.float32).astype(np.float64) if moved else np.zeros(3)
    if moved:
        made.apply_translation(-centre)
    visual: Any = made.visual
    if visual is not None and visual.kind in ("vertex", "face"):  # of faces, the means at their corners
        rgba = np.asarray(visual.vertex_colors) / 255.0
        linear = np.concatenate([to_linear(rgba[:, :3]), rgba[:, 3:]], 1)
        # Without a material viewers show a metal. Bytes are coarse near black, but trimesh knows nothing else.
        matt = {"metallicFactor": 0.0, "roughnessFactor": 1.0, "alphaMode": "BLEND" if rgba[:, 3].min() < 1 else None}
        made.visual = trimesh.visual.TextureVisuals(material=trimesh.visual.material.PBRMaterial(**matt))
        made.visual.vertex_attributes["color"] = np.round(255 * linear).astype(np.uint8)

    def place(tree: dict[str, Any]) -> None:
        for node in tree["nodes"]:
            if moved and "mesh" in node:
                node.pop("matrix", None)
                node["translation"] = centre.tolist()

    return trimesh.exchange.gltf.export_glb(trimesh.Scene(made), tree_postprocessor=place)


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
