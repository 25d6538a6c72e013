"""Fewer triangles for the same surface: edges collapse where quadric errors are least (Garland and Heckbert 1997)."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sdfgan.checks import check_whole
from sdfgan.errors import require_module

_EXTENT = 60.0  # the library's thresholds are absolute; at this size small errors count
_MIN_GAIN = 0.98


def decimate(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """The same surface with at most `faces` triangles and without colours; more where no edge can collapse any more,
    or all would be gone.

    Faces are halved step by step, and after each step two back to back are removed and what touches along an edge is
    taken apart: in one step the library (fast-simplification) leaves more of these, and further from the surface. A
    closed mesh stays closed.

    Raises UserError without that library (the extra `meshes`), ValueError for less than four faces.
    """
    check_whole("decimate", 4, faces=faces)
    require_module("fast_simplification", "decimate", "meshes")
    from fast_simplification import simplify

    if len(mesh.faces) <= faces:
        return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    centre, scale = mesh.bounds.mean(0), _EXTENT / max(float(np.ptp(mesh.bounds, axis=0).max()), 1e-30)
    places, corners, before = (mesh.vertices - centre) * scale, np.asarray(mesh.faces, np.int64), np.inf
    while faces < len(corners) <= _MIN_GAIN * before:
        before = len(corners)
        fewer, left = simplify(places, corners, target_count=max(faces, before // 2))
        fewer, left = _taken_apart(fewer, _without_flaps(np.asarray(left, np.int64)))
        if len(left) == 0:  # all was back to back
            break
        places, corners = fewer, left
    return trimesh.Trimesh(places / scale + centre, corners, process=False)


def _without_flaps(faces: np.ndarray) -> np.ndarray:
    """Faces [F, 3] without those that have the same three corners as another one."""
    _, row, count = np.unique(np.sort(faces, 1), axis=0, return_inverse=True, return_counts=True)
    return faces[count[row.ravel()] == 1]


def _taken_apart(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with two faces at each edge where it can be, of a mesh whose edges are used as often forwards as
    backwards; any other as it is.

    Each use forwards is joined with one backwards; corners that are joined, by way of others too, share a vertex.
    """
    start, end = faces.ravel(), np.roll(faces, -1, 1).ravel()  # of each use; corner k of all is the start of use k
    after = np.roll(np.arange(len(start)).reshape(-1, 3), -1, 1).ravel()
    edge = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
    forwards, backwards = (
        uses[np.argsort(edge[uses], kind="stable")]
        for uses in (np.flatnonzero(start < end), np.flatnonzero(start > end))
    )
    if not np.array_equal(edge[forwards], edge[backwards]):
        return vertices, faces
    pairs = np.concatenate([forwards, after[forwards]]), np.concatenate([after[backwards], backwards])
    joined = coo_matrix((np.ones(len(pairs[0])), pairs), shape=(len(start), len(start)))
    _, corner = connected_components(joined, directed=False)
    _, first = np.unique(corner, return_index=True)
    return vertices[start[first]], corner.reshape(-1, 3)
