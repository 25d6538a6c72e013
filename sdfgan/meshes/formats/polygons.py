"""What every reader returns, polygons as a file has them, and their triangles.

Triangles matter to distances: those of a fan lie outside a concave polygon. Ears are clipped here, and not by
mapbox_earcut, because it leaves out corners on a straight line, which opens the seam to the neighbour that has them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_MAX_CONCAVE = 10_000  # corners of a polygon whose ears are clipped, in time that grows with the square
_TESTS_PER_CORNER = 20  # of ears, before a polygon counts as one that crosses itself
_FLAT = 1e-13  # of a polygon's area: a triangle with less has none
_MAX_APEXES = 16


class MeshFormatError(Exception):
    """What is wrong with a file, without its name."""


class Polygons(NamedTuple):
    """Faces of any number of corners: corners[sum(counts[:i]) : sum(counts[: i + 1])] are those of face i."""

    vertices: np.ndarray  # [V, 3] float64
    corners: np.ndarray  # [sum(counts)] int64
    counts: np.ndarray  # [F] int64
    ignored: tuple[str, ...] = ()  # what else the file holds, in words


def triangles_of(vertices: np.ndarray, faces: np.ndarray, ignored: tuple[str, ...] = ()) -> Polygons:
    """Polygons of triangles [F, 3]."""
    faces = np.asarray(faces, np.int64).reshape(-1, 3)
    return Polygons(np.asarray(vertices, np.float64), faces.reshape(-1), np.full(len(faces), 3), ignored)


def strip(corners: np.ndarray) -> np.ndarray:
    """The triangles [N - 2, 3] of a triangle strip [N]; every second one is turned."""
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], 1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces


def triangulate(polygons: Polygons) -> np.ndarray:
    """Triangles [T, 3] of all faces in their order: n - 2 of n corners, with all of them, so that no seam opens.

    They lie in the polygon, also in a concave one; one that crosses itself gets some triangles. A face of one or two
    corners becomes a triangle without area.

    Raises MeshFormatError for a corner that does not exist, a face without corners, and concave ones of too many.
    """
    vertices, corners, counts = polygons[:3]
    if len(corners) and (corners.min() < 0 or corners.max() >= len(vertices)):
        raise MeshFormatError(f"a face names a vertex that does not exist; there are {len(vertices)}")
    if len(counts) and counts.min() < 1:
        raise MeshFormatError("holds a face without corners")
    if (counts == 3).all():
        return corners.reshape(-1, 3)
    starts = np.cumsum(counts) - counts
    pieces = np.maximum(counts - 2, 1)
    first = np.cumsum(pieces) - pieces
    faces = np.empty((pieces.sum(), 3), np.int64)
    order = np.argsort(counts, kind="stable")
    sizes, begins = np.unique(counts[order], return_index=True)
    for size, rows in zip(sizes, np.split(order, begins[1:]), strict=True):
        loops = corners[starts[rows, None] + np.arange(size)]  # [R, size]
        faces[first[rows, None] + np.arange(max(size - 2, 1))] = _split(vertices, loops)
    return faces


def _split(vertices: np.ndarray, loops: np.ndarray) -> np.ndarray:
    """[R, n - 2, 3] from polygons [R, n]: a fan where there is a corner that sees all others, else clipped ears."""
    size = loops.shape[1]
    if size <= 3:
        return loops[:, None, [0, min(1, size - 1), size - 1]]
    fan = np.stack([np.zeros(size - 2, np.int64), np.arange(1, size - 1), np.arange(2, size)], 1)  # [n - 2, 3]
    faces = loops[:, fan]
    with np.errstate(all="ignore"):
        points = vertices[loops] - vertices[loops[:, :1]]  # [R, n, 3]
        normals = np.cross(points[:, 1:-1], points[:, 2:]).sum(1)  # [R, 3] twice the area
        squares = (normals**2).sum(1)
    rest = np.flatnonzero((squares > 0) & np.isfinite(squares))  # others have no inside: any triangles will do
    for apex in range(min(size, _MAX_APEXES)):
        if len(rest) == 0:
            return faces
        turned = np.roll(points[rest], -apex, axis=1)
        spokes = turned[:, 1:] - turned[:, :1]
        areas = (np.cross(spokes[:, :-1], spokes[:, 1:]) * normals[rest, None]).sum(2)  # [R, n - 2]
        seen = (areas > _FLAT * squares[rest, None]).all(1)
        faces[rest[seen]] = np.roll(loops[rest[seen]], -apex, axis=1)[:, fan]
        rest = rest[~seen]
    for row in rest:
        faces[row] = loops[row][_ears(_flat(points[row], normals[row]))]
    return faces


def _flat(points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Points [n, 3] in the plane of their polygon [n, 2], anticlockwise, with an area of about one."""
    z = normal / np.linalg.norm(normal)
    x = np.cross(z, np.eye(3)[np.abs(z).argmin()])
    x /= np.linalg.norm(x)
    return points @ np.stack([x, np.cross(z, x)], 1) / np.sqrt(np.linalg.norm(normal) / 2)


def _ears(points: np.ndarray) -> np.ndarray:
    """Corners [n - 2, 3] of the triangles of a polygon [n, 2], by clipping ears (Meisters, 1975).

    An ear is a convex corner whose triangle holds no other one. A bridge to a hole visits corners twice: those at the
    triangle's own places do not count.
    """
    n = len(points)
    if n > _MAX_CONCAVE:
        raise MeshFormatError(f"holds a concave face of {n:,} corners; at most {_MAX_CONCAVE:,} are read")
    before, after = np.roll(np.arange(n), 1), np.roll(np.arange(n), -1)
    left = np.ones(n, bool)
    turns = _turn(points[before], points, points[after])  # > 0: convex
    ears: list[tuple[int, int, int]] = []
    i, missed, tests = 0, 0, 0
    while len(ears) < n - 3:
        level = missed // (n - len(ears)) if tests < _TESTS_PER_CORNER * n else 2
        if level >= 2:  # it crosses itself, or what is left lies on a line
            i = int(np.where(left, turns, -np.inf).argmax())
        tests += 1
        a, c = before[i], after[i]
        others = np.flatnonzero(left & (turns <= _FLAT))
        if level < 2 and (turns[i] <= _FLAT or _holds(points[[a, i, c]], points[others], closed=level == 0)):
            i, missed = c, missed + 1
            continue
        ears.append((a, i, c))
        left[i] = False
        after[a], before[c] = c, a
        for j in (a, c):
            turns[j] = _turn(points[before[j]], points[j], points[after[j]])
        i, missed = after[c], 0
    return np.array([*ears, (before[i], i, after[i])])


def _turn(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Twice the signed area of triangles [..., 2]."""
    return (b[..., 0] - a[..., 0]) * (c[..., 1] - b[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - b[..., 0])


def _holds(triangle: np.ndarray, points: np.ndarray, closed: bool) -> bool:
    """Whether an anticlockwise triangle [3, 2] holds a point [N, 2] that is none of its corners."""
    sides = np.stack([_turn(triangle[k], triangle[(k + 1) % 3], points) for k in range(3)])  # [3, N]
    inside = (sides >= -_FLAT).all(0) if closed else (sides > _FLAT).all(0)
    return bool((inside & (points[:, None] != triangle).any(2).all(1)).any())
