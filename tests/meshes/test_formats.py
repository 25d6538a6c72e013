"""What files declare: polygons of every shape, indices, counts, and what programs write around them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from polygon_files import SOLIDS, Solid, U, binary_stl, obj, off, ply, prism, text_stl
from sdfgan.errors import UserError
from sdfgan.meshes import repair
from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons, triangulate
from sdfgan.sdf import GroundTruth, read_mesh

BOX = SOLIDS["box"][0]
WRITERS: dict[str, tuple[str, Callable[[Solid], bytes]]] = {
    "obj": ("obj", obj),
    "relative obj": ("obj", lambda solid: obj(solid, relative=True)),
    "off": ("off", off),
    "text ply": ("ply", ply),
    "little ply": ("ply", lambda solid: ply(solid, "binary_little_endian")),
    "big ply": ("ply", lambda solid: ply(solid, "binary_big_endian", flags=True, kind="double")),
    "crlf ply": ("ply", lambda solid: ply(solid, "binary_little_endian", flags=True, newline="\r\n")),
}


def read(tmp_path: Path, suffix: str, data: bytes | str) -> trimesh.Trimesh:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_mesh(path)


def refusal(tmp_path: Path, suffix: str, data: bytes | str) -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, suffix, data)
    assert "\n" not in str(caught.value) and "Error" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", SOLIDS)
def test_polygons(tmp_path: Path, name: str, writer: str) -> None:
    solid, area, volume = SOLIDS[name]
    suffix, write = WRITERS[writer]
    mesh = read(tmp_path, suffix, write(solid))
    assert len(mesh.faces) == sum(len(face) - 2 for face in solid[1])
    assert mesh.area == pytest.approx(area, rel=1e-5) and mesh.volume == pytest.approx(volume, rel=1e-5)
    assert repair(mesh)[1].open_edges == 0, "all corners of a face are kept, so that no seam opens"


def test_no_membrane_over_a_notch(tmp_path: Path) -> None:
    mesh = read(tmp_path, "obj", obj(prism(U)))
    points = torch.tensor([[1.5, 2.0, 1.2], [1.5, 2.5, 1.0], [1.5, 2.0, 0.5], [0.5, 2.0, 0.5]])
    expected = [(0.5**2 + 0.2**2) ** 0.5, 0.5, 0.5, -0.5]
    assert GroundTruth(mesh).signed_distance(points).tolist() == pytest.approx(expected, abs=1e-5)


def test_polygons_in_any_plane_and_of_any_shape() -> None:
    """Stars with random radii: the triangles add up to the polygon's area, which the shoelace formula gives."""
    random = np.random.default_rng(0)
    for n in (5, 9, 40, 300):
        angle = np.sort(random.random(n)) * 2 * np.pi
        flat = random.uniform(0.2, 1, n)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        plane = np.linalg.qr(random.standard_normal((3, 3)))[0][:2]
        vertices = np.roll(flat, n // 3, axis=0) @ plane + 100
        faces = triangulate(Polygons(vertices, np.arange(n), np.array([n])))
        x, y = flat.T
        shoelace = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
        assert len(faces) == n - 2 and set(faces.flat) == set(range(n))
        assert trimesh.Trimesh(vertices, faces, process=False).area == pytest.approx(shoelace, rel=1e-6)


def test_polygons_without_an_inside() -> None:
    """One that crosses itself, a segment, a corner twice, a point, not finite: n - 2 triangles, and no failure."""
    star = np.stack([np.cos(np.arange(5) * 4 * np.pi / 5), np.sin(np.arange(5) * 4 * np.pi / 5), np.zeros(5)], 1)
    vertices = np.concatenate([star, [[np.nan, 0, 0], [np.inf, 0, 0]]])
    loops = [[0, 1, 2, 3, 4], [0, 1, 0, 1], [0, 1, 1, 2], [0], [1, 2], [0, 1, 5, 6], [0, 0, 0, 0, 0]]
    counts = np.array([len(loop) for loop in loops])
    faces = triangulate(Polygons(vertices, np.concatenate(loops), counts))
    assert len(faces) == np.maximum(counts - 2, 1).sum()
    quad = trimesh.Trimesh(vertices, triangulate(Polygons(vertices, np.array([0, 1, 1, 2]), np.array([4]))))
    assert quad.area == pytest.approx(trimesh.Trimesh(vertices, [[0, 1, 2]]).area)
    with pytest.raises(MeshFormatError, match="a face names a vertex that does not exist; there are 7"):
        triangulate(Polygons(vertices, np.array([0, 1, 7]), np.array([3])))


# ------------------------------------------------------------------------------------------------------------------ OBJ


def test_obj_variants(tmp_path: Path) -> None:
    plain = obj(BOX).decode()
    mixed = plain.replace("f 1//1", "f -8/-3/-1", 1) if "f 1//1" in plain else plain
    variants = [
        plain.replace("\n", "\r\n"),
        plain.replace("\n", "\r"),
        plain.replace("f ", "f \\\n "),
        plain.replace("v ", "\tv\t").replace("f ", "  f  "),
        "\ufeff" + plain,
        plain.replace("\n", " # corner\n"),
        "\n".join(line + " 0.5 0.5 0.5" if line.startswith("v") else line for line in plain.split("\n")),
        mixed,
        plain.replace("f ", "fo "),
        plain.replace("v ", "v\\\n ").replace(" 1.0 ", " \\\r\n 1.0 "),  # each backslash at its line's end
        "# from C:\\models\\\nmtllib C:\\models\\\n" + plain.replace("f ", "usemtl a\\\nf ", 1),  # nothing goes on
        plain.replace("\n", "# corner\n"),
        "o a\x0bv 9 9 9\n" + plain,  # which other readers take for the end of a line
    ]
    for text in variants:
        assert read(tmp_path, "obj", text).volume == pytest.approx(2), text
    assert read(tmp_path, "obj", plain.encode("utf-16")).volume == pytest.approx(2)
    mesh = read(tmp_path, "obj", plain + "\nl 1 2\nl 2 3\np 1\n")
    assert mesh.metadata["ignored"] == ("2 lines", "1 points")
    mesh, report = repair(read(tmp_path, "obj", plain + "\nf 1 2\nf 3\n"))  # as modellers leave them
    assert mesh.volume == pytest.approx(2) and report.degenerate == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("f 0 1 2", r'"f 0 1 2": a face names a vertex that does not exist; indices count from 1'),
        ("f -9 1 2", r'"f -9 1 2": a face names a vertex that does not exist; there are 8'),
        ("f", "a face must have corners"),
        ("f 1 2 x", 'corners of faces must be integers, got "x"'),
        ("f 1 2 99999999999999999999", "must be integers"),
        ("v 1 2", "three coordinates"),
        ("v 1,5 2,0 0,0", 'coordinates must be numbers, got "1,5"'),
        ("v 1_0 2 3", 'coordinates must be numbers, got "1_0"'),
        ("v 1.#QNAN 2 3", 'coordinates must be numbers, got "1.#QNAN"'),
        ("f 1_0 2 3", 'corners of faces must be integers, got "1_0"'),
        ("surf 0 1 0 1 1 2 3 4", "curved surfaces are not read"),
        ("call other.obj", "no other file is read"),
    ],
)
def test_obj_refusals(tmp_path: Path, line: str, message: str) -> None:
    assert message in refusal(tmp_path, "obj", obj(BOX) + b"\n" + line.encode())


# ------------------------------------------------------------------------------------------------------------------ PLY


def test_ply_strips_and_names(tmp_path: Path) -> None:
    head = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float z\nproperty float y\nproperty float x\n"
    places = "0 0 0\n0 0 1\n0 1 0\n0 1 1\n"
    strips = "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    mesh = read(tmp_path, "ply", head + strips + places + "8 0 1 2 3 -1 2 1 3\n")
    assert mesh.area == pytest.approx(1.5) and np.allclose(mesh.face_normals, [0, 0, 1])
    faces = "element face 2\nproperty list uchar uint vertex_index\nend_header\n"
    assert read(tmp_path, "ply", head + faces + places + "3 0 1 2 3 2 1 3").area == pytest.approx(1)
    texture = faces.replace("_index\n", "\nproperty list uchar float uv\n")
    assert read(tmp_path, "ply", head + texture + places + "3 0 1 2 1 0.5 3 2 1 3 0").area == pytest.approx(1)
    two = "element face 1\nproperty list uchar int a\nproperty list uchar int b\nend_header\n"
    assert "no list of integers vertex_indices" in refusal(tmp_path, "ply", head + two + places + "3 0 1 2 3 2 1 3")


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_coordinates_in_any_order_beside_lists(tmp_path: Path, form: str) -> None:
    axes = ["property double z", "property list uchar float weights", "property float x", "property short y"]
    head = ["ply", f"format {form} 1.0", "element face 1", "property list ushort ushort vertex_index"]
    header = "\n".join([*head, "element vertex 3", *axes, "end_header\n"]).encode()
    places = [(0, 0, 1), (4, 0, 2), (0, 5, 3)]
    rows = [(z, *([2, 9, 9] if x else [0]), x, y) for x, y, z in places]
    if form == "ascii":
        body = " ".join(str(number) for row in [(3, 0, 1, 2), *rows] for number in row).encode()
    else:
        order = "<" if "little" in form else ">"
        body = struct.pack(f"{order}4H", 3, 0, 1, 2)
        body += b"".join(struct.pack(f"{order}dB{len(row) - 4}ffh", *row) for row in rows)
    assert np.array_equal(read(tmp_path, "ply", header + body).triangles, [places])


def test_ply_counts(tmp_path: Path) -> None:
    for form in ("ascii", "binary_little_endian"):
        data = ply(BOX, form)
        for there, claimed, words in (("face 6", "face 7", "face|edge"), ("face 6", "face 5", "follow after")):
            message = refusal(tmp_path, "ply", data.replace(there.encode(), claimed.encode()))
            assert any(word in message for word in words.split("|")), message
        assert "declares 6 of face, but ends after" in refusal(
            tmp_path, "ply", data[: -(30 if form == "ascii" else 40)]
        )
        assert "claims 99999 of face" in refusal(tmp_path, "ply", data.replace(b"face 6", b"face 99999"))
    little = ply(BOX, "binary_little_endian")
    for tail in (b"\n", b"\0" * 100, b"0123456789"):
        assert read(tmp_path, "ply", little + tail).volume == pytest.approx(2)
    assert "20 bytes follow" in refusal(tmp_path, "ply", little + b"ab" * 10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("property float x", "property float u", "no x, y and z"),
        ("property float x", "property quad x", '"property quad x": not a line of a PLY header'),
        ("list uchar int", "list float int", "the length of a list must be an integer"),
        ("format ascii 1.0", "comment", "names no format"),
        ("element edge 1", "element face 1", "declares an element twice"),
        ("end_header", "end", "no header from ply to end_header"),
        ("element vertex 8", "element vertices 8", "declares no vertex, but ['vertices', 'face', 'edge']"),
        ("format ascii 1.0", "format ascii 2.0", '"format ascii 2.0": not a line of a PLY header'),
        ("element face 6", "element face x", "not a line of a PLY header"),
    ],
)
def test_ply_refusals(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert message in refusal(tmp_path, "ply", ply(BOX).decode().replace(old, new, 1))


# ------------------------------------------------------------------------------------------------------------------ OFF


def test_off_variants(tmp_path: Path) -> None:
    plain = off(BOX).decode()
    variants = [
        off(BOX, head="OFF").decode(),  # as in ModelNet
        off(BOX, head="").decode(),
        off(BOX, head="off # a box\n# another\n\n").decode(),
        off(BOX, colour="  255 0 0").decode(),
        off(BOX, colour=" 0.5 0.5 0.5 1").decode(),
        off(BOX, between=" ").decode(),
        plain.replace("6 0\n", "6\n"),
        plain.replace("\n", "\r\n"),
        "\ufeff" + plain,
        plain.replace("8 6 0", "8\n6\n0"),
        plain.replace("4 ", "4\n"),
    ]
    for text in variants:
        assert read(tmp_path, "off", text).volume == pytest.approx(2), text
    lines = plain.split("\n")
    for head, more in (
        ("NOFF", "0 0 1"),
        ("COFF", "1 0 0 1"),
        ("STCNOFF", "0 0 1 1 0 0 1 0 0"),
    ):  # records of two lines
        spread = "\n".join([head, lines[1], *(f"{line}\n{more}" for line in lines[2:10]), *lines[10:]])
        assert read(tmp_path, "off", spread).volume == pytest.approx(2), head
    for head, more in (("NCOFF", "0 0 1 255 0 0 255"), ("NCSTOFF", "0 0 1 255 0 0 255 0 0")):  # MeshLab's order
        records = [head, lines[1], *(f"{line} {more}" for line in lines[2:10]), *lines[10:]]
        assert read(tmp_path, "off", "\n".join(records)).volume == pytest.approx(2), head
        assert read(tmp_path, "off", " ".join(records)).volume == pytest.approx(2), head
    coloured = ["COFF", lines[1], *(line + " 255 0 0 255" for line in lines[2:10]), *lines[10:]]
    assert read(tmp_path, "off", "\n".join(coloured)).volume == pytest.approx(2)


def test_off_refusals(tmp_path: Path) -> None:
    plain = off(BOX).decode()
    assert "declares 8 vertices and 7 faces, but holds 8 vertices and 6 faces" in refusal(
        tmp_path, "off", plain.replace("8 6 0", "8 7 0")
    )
    assert "but 1 more lines follow" in refusal(tmp_path, "off", plain.replace("8 6 0", "8 5 0"))
    assert "as many corners as it declares" in refusal(tmp_path, "off", plain.replace("4 3 2 1 0", "5 3 2 1 0"))
    assert "must be numbers" in refusal(tmp_path, "off", plain.replace("2 0 0.0", "2 zero 0.0"))
    assert "only OFF of three dimensions" in refusal(tmp_path, "off", plain.replace("OFF", "4OFF"))
    assert '"nOFF": only OFF of three dimensions' in refusal(tmp_path, "off", plain.replace("OFF", "nOFF\n3"))
    assert 'must be numbers, got "1.#QNAN"' in refusal(tmp_path, "off", plain.replace("2 0 0.0", "2 0 1.#QNAN"))
    assert "in text" in refusal(tmp_path, "off", plain.replace("OFF", "OFF BINARY"))
    assert "vertex that does not exist" in refusal(tmp_path, "off", plain.replace("4 3 2 1 0", "4 3 2 1 8"))


# ------------------------------------------------------------------------------------------------------------------ STL


@pytest.mark.parametrize("head", [b"", b"solid box", b"solid facet normal"])
@pytest.mark.parametrize(
    "tail", [b"", b"\n", b"ab", b"0123456789", b"\0" * 150, b"made by the tests of a program " * 9]
)
def test_binary_stl_with_anything_around_it(tmp_path: Path, head: bytes, tail: bytes) -> None:
    mesh = read(tmp_path, "stl", binary_stl(BOX, head, tail))
    assert len(mesh.faces) == 12 and mesh.volume == pytest.approx(2)


def test_text_stl_variants(tmp_path: Path) -> None:
    plain = text_stl(BOX)
    variants = [
        text_stl(BOX, " "),
        plain.replace(" ", "\t"),
        plain.replace("\n", "\r\n"),
        plain.replace("\n", "\r"),
        "\ufeff" + plain,
        "# made by hand\n" + plain.replace("endloop", "endloop // of three"),
        plain.upper(),
        plain.replace("endfacet", "end facet").replace("endsolid", "end solid"),
        text_stl(BOX, name="vertex of a facet, outer loop"),
        text_stl(BOX, name=""),
        plain.replace("normal 0 0 0", "normal -1.#IND -1.#IND 1.#QNAN"),  # by compilers of Microsoft
        plain + "\0\0\0",
    ]
    for text in variants:
        assert read(tmp_path, "stl", text).volume == pytest.approx(2), text
    assert read(tmp_path, "stl", plain.encode("utf-16")).volume == pytest.approx(2)
    assert len(read(tmp_path, "stl", plain + text_stl(prism([(5, 0), (6, 0), (6, 1), (5, 1)]))).faces) == 24


def test_stl_refusals(tmp_path: Path) -> None:
    assert "declares 7 triangles, but at least 5 more follow" in refusal(tmp_path, "stl", binary_stl(BOX, count=7))
    assert "declares 12 triangles, but at least 12 more" in refusal(tmp_path, "stl", 2 * binary_stl(BOX, b"solid"))
    assert "a truncated STL: 13 triangles" in refusal(tmp_path, "stl", binary_stl(BOX, count=13))
    plain = text_stl(BOX)
    assert "no endsolid after 12 facets" in refusal(tmp_path, "stl", plain.replace("endsolid box", ""))
    assert "after 11 facets" in refusal(tmp_path, "stl", plain[: plain.rindex("vertex")])
    assert "after 11 facets" in refusal(tmp_path, "stl", plain.replace("vertex", "vertx", 1))
    assert "must be numbers" in refusal(tmp_path, "stl", plain.replace("vertex 0.0", "vertex 0,0", 1))
    assert 'got "1.#INF"' in refusal(tmp_path, "stl", plain.replace(" 0.0\n", " 1.#INF\n", 1))
