"""What winding numbers cannot bear: seams, duplicates and faces that look the wrong way.

Holes, self-intersections and overlaps stay: the sign of the distance survives them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import trimesh
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sdfgan.errors import UserError
from sdfgan.meshes.nesting import inside_out
from sdfgan.meshes.read import IGNORED

_WELD = 1e-7  # of the diagonal: vertices of one cell of that size are one
_MAX_CROWDED, _MAX_AROUND = 2**12, 16  # edges of more than two faces, and faces of one: up to these, parts are joined
_THIN = 1e-12  # a face with less than that of its longest side's square as area has none


@dataclass(frozen=True)
class RepairReport:
    """What `repair` did and what it left; `str()` says it in words."""

    faces: int  # before
    faces_left: int
    not_finite: int  # faces dropped
    degenerate: int
    duplicates: int
    welded: int  # vertices that went into others
    turned: int  # faces turned to agree with their neighbours
    parts: int  # connected by edges of two faces; at edges of more, by faces that agree
    parts_turned: int  # as a whole, because they were inside out
    open_edges: int  # of one face
    crowded_edges: int  # of more than two faces
    ignored: tuple[str, ...] = ()  # what the file holds besides its faces, in words

    @property
    def changed(self) -> bool:
        """Whether the surface, or the way that a face looks, is another than before."""
        return any((self.not_finite, self.degenerate, self.duplicates, self.welded, self.turned, self.parts_turned))

    def __str__(self) -> str:
        done = [
            (self.welded, "vertices welded"),
            (self.not_finite, "faces that are not finite dropped"),
            (self.degenerate, "faces without area dropped"),
            (self.duplicates, "duplicate faces dropped"),
            (self.turned, "faces flipped to agree with their neighbours"),
            (self.parts_turned, "parts that were inside out flipped"),
        ]
        left = [(self.open_edges, "open edges"), (self.crowded_edges, "edges shared by more than two faces")]
        words = [", ".join(f"{count} {what}" for count, what in group if count) for group in (done, left)]
        shape = "part" if self.parts == 1 else "parts"
        start = f"{self.faces_left} faces in {self.parts} {shape}"
        ignored = f"; not used: {', '.join(self.ignored)}" if self.ignored else ""
        return f"{start}; {words[0] or 'nothing to repair'}; {words[1] or 'watertight'}{ignored}"


def repair(mesh: trimesh.Trimesh, name: str = "mesh") -> tuple[trimesh.Trimesh, RepairReport]:
    """A copy with consistent, outward faces, and what was done to it.

    Drops faces that are not finite; welds vertices in one cell of 1e-7 of the diagonal; drops faces without area and
    all but one of those with the same corners; turns faces to agree with their neighbours across edges of two faces;
    turns what is inside out. A part that encloses something (closed, or nearly) is so where the winding number in it
    would be negative; whatever lies in it turns with it, so that cavities and solids in solids stay what they were to
    each other, also in a file that is inside out as a whole. Other parts are turned by their volume, and only if their
    faces disagreed.

    Raises UserError, with `name`, where no face is left.
    """
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    before = len(faces)
    finite = np.isfinite(vertices).all(1)[faces].all(1)
    faces = faces[finite]
    vertices, faces, welded = _weld(vertices, faces)
    solid = _has_area(vertices, faces)
    faces = faces[solid]
    _, first = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
    duplicates = len(faces) - len(first)
    faces = faces[np.sort(first)]
    if len(faces) == 0:
        raise UserError(
            f"{name}: no face is left: of {before}, {int((~finite).sum())} are not finite, the rest have no area"
        )
    pairs, agree, uses = _neighbours(faces)
    part, turned = _orient(vertices, faces, pairs, agree)
    faces[turned] = faces[turned][:, ::-1]
    part = _joined(faces, part)
    wrong = inside_out(vertices, faces, part, turned, uses)
    faces[wrong[part]] = faces[wrong[part]][:, ::-1]
    used, faces = np.unique(faces, return_inverse=True)
    report = RepairReport(
        faces=before,
        faces_left=len(faces.reshape(-1, 3)),
        not_finite=int((~finite).sum()),
        degenerate=int((~solid).sum()),
        duplicates=duplicates,
        welded=welded,
        turned=int(turned.sum()),
        parts=len(wrong),
        parts_turned=int(wrong.sum()),
        open_edges=int((uses[:, 1] == 1).sum()),
        crowded_edges=int((uses[:, 1] > 2).sum()),
        ignored=tuple(mesh.metadata.get(IGNORED, ())),
    )
    return trimesh.Trimesh(vertices[used], faces.reshape(-1, 3), process=False), report


def _weld(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Used vertices, each the first of its cell; faces; how many vertices went."""
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    if len(vertices) == 0:
        return vertices, faces, 0
    low, high = vertices.min(0), vertices.max(0)
    cell = _WELD * np.linalg.norm(high - low) or 1.0
    cells = np.round((vertices - low) / cell).astype(np.int64)
    _, first, kind = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return vertices[first], kind.reshape(-1)[faces], len(vertices) - len(first)


def _has_area(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = vertices[faces].transpose(1, 0, 2)
    longest = np.max([((q - p) ** 2).sum(1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) > _THIN * longest


def _neighbours(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of faces [P, 2] across edges of two faces; whether both look the same way [P]; for each edge one of its
    faces and how many it has [E, 2]."""
    order, ascending, starts, counts = _edges(faces)
    two = starts[counts == 2]
    first, second = order[two], order[two + 1]
    pairs = np.stack([first // 3, second // 3], 1)
    return pairs, ascending[first] != ascending[second], np.stack([order[starts] // 3, counts], 1)


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Half-edges in the order of their edges [3F] (those of face i are 3i to 3i + 2), whether each ascends [3F], and
    for each edge where its half-edges start in that order and how many it has [E]."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    ascending = edges[:, 0] < edges[:, 1]
    edges = np.sort(edges, axis=1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    starts = np.flatnonzero(np.r_[True, (np.diff(edges[order], axis=0) != 0).any(1)])
    return order, ascending, starts, np.diff(np.r_[starts, len(order)])


def _orient(
    vertices: np.ndarray, faces: np.ndarray, pairs: np.ndarray, agree: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each face, and whether it must be turned so that its part agrees: the lesser area turns.

    The graph has each face twice, as it is and turned, and joins what would agree. A part that can be oriented falls
    into two components, one the other's mirror; one that cannot (a Moebius strip) stays as it is.
    """
    n = len(faces)
    a, b = pairs.T
    rows = np.concatenate([a, a + n])
    columns = np.concatenate([np.where(agree, b, b + n), np.where(agree, b + n, b)])
    doubled = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(2 * n, 2 * n))
    _, side = connected_components(doubled, directed=False)
    joined = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, part = connected_components(joined, directed=False)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kept = np.bincount(side[:n], area, 2 * n)  # area that each component leaves as it is
    as_is, mirrored = kept[side[:n]], kept[side[n:]]
    turned = (as_is < mirrored) | ((as_is == mirrored) & (side[:n] > side[n:]))
    return part, turned


def _joined(faces: np.ndarray, part: np.ndarray) -> np.ndarray:
    """The part of each face [F], where parts that continue each other across edges of more than two faces are one.

    Two boxes that share a side have edges of four faces: two of them go one way along the edge and two the other way,
    and each side continues the rest of one box. Parts are joined in pairs that leave no face over: those first that
    have the most such edges in common, of equal ones those nearest in the file; what continues its own part needs no
    other. So a box that is inside out is turned with all of its sides.
    """
    order, ascending, starts, counts = _edges(faces)
    crowded = np.flatnonzero((counts > 2) & (counts <= _MAX_AROUND) & (counts % 2 == 0))
    if not 0 < len(crowded) <= _MAX_CROWDED:
        return part
    ways: list[Counter[int]] = []  # for each of these edges, by part: faces along it less faces the other way
    shared: dict[tuple[int, int], list[int]] = {}  # by pairs of parts, the edges across which they may continue
    for edge in crowded:
        here = order[starts[edge] : starts[edge] + counts[edge]]
        way: Counter[int] = Counter()
        for owner, up in zip(part[here // 3].tolist(), ascending[here].tolist(), strict=True):
            way[owner] += 1 if up else -1
        if sum(way.values()) == 0:
            for p, q in combinations(sorted(way), 2):
                if way[p] * way[q] < 0:
                    shared.setdefault((p, q), []).append(len(ways))
            ways.append(way)
    first = np.unique(part, return_index=True)[1]  # face of each part
    body = np.arange(len(first))  # of each part
    at: dict[int, set[int]] = {}  # by body, which of these edges it has
    for i, way in enumerate(ways):
        for owner in way:
            at.setdefault(owner, set()).add(i)
    for pair in sorted(shared, key=lambda pair: (-len(shared[pair]), abs(first[pair[0]] - first[pair[1]]))):
        p, q = body[list(pair)].tolist()
        if p == q or not any(ways[i][p] * ways[i][q] < 0 for i in shared[pair]):
            continue
        for i in at[q]:
            ways[i][p] += ways[i].pop(q)
        at[p] |= at.pop(q)
        body[body == q] = p
    return np.unique(body, return_inverse=True)[1].reshape(-1)[part]
