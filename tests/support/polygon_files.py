"""Solids with faces of many corners, and files of them as various programs write them."""

from __future__ import annotations

import struct

import numpy as np

Solid = tuple[list[tuple[float, float, float]], list[list[int]]]


def prism(outline: list[tuple[float, float]], height: float = 1.0) -> Solid:
    """Over an anticlockwise outline in the plane z = 0: two faces of n corners, n of four."""
    n = len(outline)
    vertices = [(x, y, z) for z in (0.0, height) for x, y in outline]
    sides = [[i, (i + 1) % n, n + (i + 1) % n, n + i] for i in range(n)]
    return vertices, [list(range(n))[::-1], list(range(n, 2 * n)), *sides]


# Name: solid, area, volume.
U = [(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]
COMB = [(x, y) for i in range(6) for x, y in ((2 * i, 3), (2 * i, 1), (2 * i + 1, 1), (2 * i + 1, 3))][1:-1]
KEYHOLE = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)]  # a hole and its bridge
HEXAGON = [(float(np.cos(a)), float(np.sin(a))) for a in np.arange(6) * np.pi / 3]
SOLIDS: dict[str, tuple[Solid, float, float]] = {
    "box": (prism([(0, 0), (2, 0), (2, 1), (0, 1)]), 10, 2),
    "u": (prism(U), 2 * 7 + 16, 7),
    "u from another corner": (prism(U[5:] + U[:5]), 2 * 7 + 16, 7),
    "arrow": (prism([(0, 0), (2, 1), (0, 2), (0.5, 1)]), 3 + 2 * 5**0.5 + 2 * 1.25**0.5, 1.5),
    "straight corners": (prism([(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (0, 1)]), 10, 2),
    "comb": (prism([(0, 0), (11, 0), *COMB[::-1]]), 2 * 21 + 44, 21),
    "keyhole": (prism(KEYHOLE), 2 * 12 + 24 + 2 * 2**0.5, 12),  # both sides of the bridge
    "hexagon": (prism(HEXAGON), 3 * 3**0.5 + 6, 1.5 * 3**0.5),
}


def obj(solid: Solid, relative: bool = False) -> bytes:
    """With `relative`, the corners of each face come just before it, and are counted backwards."""
    vertices, faces = solid
    if not relative:
        lines = [f"v {x} {y} {z}" for x, y, z in vertices]
        return "\n".join(lines + ["f " + " ".join(f"{i + 1}//1" for i in face) for face in faces]).encode()
    lines = []
    for face in faces:
        lines += ["v {} {} {}".format(*vertices[i]) for i in face]
        lines.append("f " + " ".join(str(i) for i in range(-len(face), 0)))
    return "\n".join(lines).encode()


def off(solid: Solid, head: str = "OFF\n", colour: str = "", between: str = "\n") -> bytes:
    vertices, faces = solid
    lines = [f"{head}{len(vertices)} {len(faces)} 0"]
    lines += ["{} {} {}".format(*vertex) for vertex in vertices]
    lines += [f"{len(face)} {' '.join(map(str, face))}{colour}" for face in faces]
    return (between.join(lines) + "\n").encode()


def ply(solid: Solid, form: str = "ascii", flags: bool = False, newline: str = "\n", kind: str = "float") -> bytes:
    """With `flags`, each vertex has a byte more, each face a byte before its corners and another list behind them."""
    vertices, faces = solid
    head = ["ply", f"format {form} 1.0", "comment by the tests", f"element vertex {len(vertices)}"]
    head += [f"property {kind} {axis}" for axis in "xyz"] + ["property uchar quality"] * flags
    head += [f"element face {len(faces)}"] + ["property uchar flags"] * flags
    head += ["property list uchar int vertex_indices"]
    head += ["property list uchar float texcoord"] * flags + [
        "element edge 1",
        "property int vertex1",
        "end_header",
        "",
    ]
    header = newline.join(head).encode()
    if form == "ascii":
        rows = [[*vertex, *[7] * flags] for vertex in vertices]
        rows += [[*[1] * flags, len(face), *face, *[2, 0.5, 0.5] * flags] for face in faces] + [[0]]
        return header + newline.join(" ".join(map(str, row)) for row in rows).encode()
    order = "<" if "little" in form else ">"
    body = b"".join(struct.pack(f"{order}3{kind[0]}", *vertex) + b"\7" * flags for vertex in vertices)
    for face in faces:
        body += b"\1" * flags + struct.pack(f"{order}B{len(face)}i", len(face), *face)
        body += struct.pack(f"{order}B2f", 2, 0.5, 0.5) if flags else b""
    return header + body + struct.pack(f"{order}i", 0)


def triangles(solid: Solid) -> np.ndarray:
    """[T, 3, 3] of a convex solid."""
    places = np.array(solid[0], np.float32)
    return np.array([places[[f[0], f[i], f[i + 1]]] for f in solid[1] for i in range(1, len(f) - 1)])


def binary_stl(solid: Solid, head: bytes = b"", tail: bytes = b"", count: int | None = None) -> bytes:
    corners = triangles(solid)
    records = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    records["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    records["corners"] = corners
    number = len(corners) if count is None else count
    return head.ljust(80, b" ") + struct.pack("<I", number) + records.tobytes() + tail


def text_stl(solid: Solid, between: str = "\n", name: str = "box") -> str:
    parts = [f"solid {name}"]
    for corners in triangles(solid):
        parts += ["facet normal 0 0 0", "outer loop", *(f"vertex {x} {y} {z}" for x, y, z in corners)]
        parts += ["endloop", "endfacet"]
    return between.join([*parts, f"endsolid {name}"]) + "\n"
