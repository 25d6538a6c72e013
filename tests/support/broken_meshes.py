"""A hundred broken meshes: solids of known shape with mixes of what goes wrong in files, from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh

Arrays = tuple[np.ndarray, np.ndarray]  # vertices [V, 3], faces [F, 3]
Defect = Callable[[np.ndarray, np.ndarray, np.random.Generator], Arrays]

SOLIDS: dict[str, Callable[[], trimesh.Trimesh]] = {
    "sphere": lambda: trimesh.creation.icosphere(3),
    "box": lambda: trimesh.creation.box((1.6, 1.0, 0.7)).subdivide().subdivide().subdivide(),
    "torus": lambda: trimesh.creation.torus(0.8, 0.3, major_sections=32, minor_sections=16),
    "capsule": lambda: trimesh.creation.capsule(height=1.0, radius=0.4, count=[16, 16]),
}


def holes(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """A twentieth of the faces is missing."""
    return v, f[random.random(len(f)) >= 0.05]


def flips(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """A third of the faces looks the wrong way."""
    f, wrong = f.copy(), random.random(len(f)) < 1 / 3
    f[wrong] = f[wrong][:, ::-1]
    return v, f


def inside_out(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """All faces look inwards."""
    return v, f[:, ::-1].copy()


def duplicates(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """A fifth of the faces occurs twice, half of those reversed."""
    again = f[random.random(len(f)) < 0.2].copy()
    again[::2] = again[::2, ::-1]
    return v, np.concatenate([f, again])


def self_intersection(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """A second, smaller copy overlaps the first."""
    return np.concatenate([v, 0.7 * v + [0.5, 0.1, 0.0]]), np.concatenate([f, f + len(v)])


def slivers(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """A tenth of the faces is cut in three, with a point a millionth beside a side."""
    cut = random.random(len(f)) < 0.1
    a, b, c = f[cut].T
    near = (v[a] + v[b]) / 2 + 1e-6 * (v[c] - v[a])
    n = len(v) + np.arange(len(near))
    pieces = [np.stack(corners, 1) for corners in ((a, b, n), (b, c, n), (c, a, n))]
    return np.concatenate([v, near]), np.concatenate([f[~cut], *pieces])


def unmerged(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """Every face has its own vertices, as in an STL."""
    return v[f].reshape(-1, 3), np.arange(3 * len(f)).reshape(-1, 3)


def not_finite(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """Five more faces lead to vertices that are NaN or infinite."""
    bad = np.array([[np.nan, 0, 0], [0, np.inf, 0]])
    some = f[random.integers(0, len(f), 5)].copy()
    some[:, 2] = len(v) + random.integers(0, 2, 5)
    return np.concatenate([v, bad]), np.concatenate([f, some])


def crowded_edges(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """Ten small fins stand on edges that two faces have already."""
    base = f[random.integers(0, len(f), 10)]
    tip = v[base[:, 0]] * 1.02
    fins = np.stack([base[:, 0], base[:, 1], len(v) + np.arange(10)], 1)
    return np.concatenate([v, tip]), np.concatenate([f, fins])


def zero_area(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """Twenty more faces are segments or points."""
    some = f[random.integers(0, len(f), 20)].copy()
    some[:10, 2] = some[:10, 1]
    some[10:] = some[10:, :1]
    return v, np.concatenate([f, some])


def thin_sheet(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """A closed plate, 0.004 thick, stands beside it."""
    plate = trimesh.creation.box((1.0, 1.0, 0.004))
    return np.concatenate([v, plate.vertices + np.array([0, 0, 1.2])]), np.concatenate([f, plate.faces + len(v)])


def open_half(v: np.ndarray, f: np.ndarray, random: np.random.Generator) -> Arrays:
    """The top is cut off, and left open."""
    return v, f[v[f][:, :, 2].max(1) < 0.25 * v[:, 2].max()]


DEFECTS: dict[str, Defect] = {
    defect.__name__: defect
    for defect in (
        holes,
        flips,
        inside_out,
        duplicates,
        self_intersection,
        slivers,
        not_finite,
        crowded_edges,
        zero_area,
        thin_sheet,
        open_half,
        unmerged,
    )
}


def broken_mesh(number: int) -> tuple[str, trimesh.Trimesh]:
    """The name and arrays of one of any number of broken meshes: first each defect alone, then mixes of two to four."""
    random = np.random.default_rng(number)
    solids, defects = list(SOLIDS), list(DEFECTS)
    solid = solids[number % len(solids)]
    if number < len(defects):
        chosen = [defects[number]]
    else:
        chosen = sorted(random.choice(defects, random.integers(2, 5), replace=False), key=defects.index)
    mesh = SOLIDS[solid]()
    v, f = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    for name in chosen:
        v, f = DEFECTS[name](v, f, random)
    return f"{number:03d} {solid}: {', '.join(chosen)}", trimesh.Trimesh(v, f, process=False, validate=False)


def broken_meshes(count: int = 100) -> list[tuple[str, trimesh.Trimesh]]:
    """`broken_mesh` 0 to count - 1."""
    return [broken_mesh(number) for number in range(count)]
