"""What winding numbers cannot bear: seams, duplicates and faces that look the wrong way.

Holes, self-intersections and overlaps stay: the sign of the distance survives them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh

from sdfgan.errors import UserError
from sdfgan.meshes.nesting import inside_out
from sdfgan.meshes.orientation import join_parts, neighbours, orient
from sdfgan.meshes.read import IGNORED

_WELD = 1e-7  # of the diagonal: vertices of one cell of that size are one
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
    pairs, agree, uses = neighbours(faces)
    part, turned = orient(vertices, faces, pairs, agree)
    faces[turned] = faces[turned][:, ::-1]
    part = join_parts(vertices, faces, part)
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
