"""Mesh files: what can be read, and one line for what cannot."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from sdfgan.errors import UserError
from sdfgan.sdf import read_mesh

BOX = trimesh.creation.box((1, 2, 3))


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply", ".off", ".glb", ".STL"])
def test_reads(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box{suffix}"
    BOX.export(path, file_type=suffix[1:].lower())
    mesh = read_mesh(path)
    assert len(mesh.faces) == 12 and abs(mesh.volume) == pytest.approx(6, rel=1e-5)


def test_reads_text_stl_scenes_quads_and_vertices_that_are_not_finite(tmp_path: Path) -> None:
    (tmp_path / "a.stl").write_text(BOX.export(file_type="stl_ascii"))
    assert len(read_mesh(tmp_path / "a.stl").faces) == 12
    scene = trimesh.Scene()
    for x in (0, 4):
        scene.add_geometry(BOX, transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    scene.export(tmp_path / "scene.glb")
    both = read_mesh(tmp_path / "scene.glb")
    assert len(both.faces) == 24 and both.extents[0] == pytest.approx(5)
    (tmp_path / "quad.obj").write_text("mtllib none.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nusemtl x\nf 1 2 3 4\n")
    assert len(read_mesh(tmp_path / "quad.obj").faces) == 2
    (tmp_path / "nan.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv nan 1 0\nf 1 2 3\nf 1 2 4\n")
    assert len(read_mesh(tmp_path / "nan.obj").faces) == 2


@pytest.mark.parametrize(("scale", "said"), [(1e31, "coordinates of up to 3e\\+31"), (1e-31, "is 3e-31 across")])
def test_sizes_that_no_file_of_float32_holds(tmp_path: Path, scale: float, said: str) -> None:
    path = tmp_path / "a.obj"
    box = trimesh.creation.box((1, 2, 3), trimesh.transformations.translation_matrix([0.5, 1, 1.5]))
    for size, fits in ((scale**0.9, True), (scale, False)):
        lines = [f"v {x * size:g} {y * size:g} {z * size:g}" for x, y, z in box.vertices]
        path.write_text("\n".join([*lines, *("f {} {} {}".format(*face + 1) for face in box.faces)]))
        if fits:
            assert read_mesh(path).extents[2] == pytest.approx(3 * size, rel=1e-4)
        else:
            with pytest.raises(UserError, match=said):
                read_mesh(path)


def test_text_in_any_encoding(tmp_path: Path) -> None:
    word = "# caf\xe9\n".encode("latin-1")
    (tmp_path / "a.obj").write_bytes(word + BOX.export(file_type="obj").encode())
    (tmp_path / "b.off").write_bytes(b"OFF\n" + word + BOX.export(file_type="off").encode()[4:])
    (tmp_path / "c.stl").write_bytes(b"solid \xe9\n" + BOX.export(file_type="stl_ascii").split("\n", 1)[1].encode())
    (tmp_path / "d.stl").write_bytes(b"\xe9" + BOX.export(file_type="stl")[1:])
    for name, data in (("e", BOX.export(file_type="ply")), ("f", BOX.export(file_type="ply", encoding="ascii"))):
        first, encoding, rest = data.split(b"\n", 2)
        (tmp_path / f"{name}.ply").write_bytes(b"\n".join([first, encoding, b"comment \xe9", rest]))
    for path in tmp_path.iterdir():
        assert abs(read_mesh(path).volume) == pytest.approx(6, rel=1e-5), path


def stl(count: int, triangles: int) -> bytes:
    return bytes(80) + struct.pack("<I", count) + np.random.default_rng(0).random(12 * triangles, np.float32).tobytes()


def glb(content: dict) -> bytes:
    text = json.dumps(content).encode().ljust(200)
    return b"glTF" + struct.pack("<IIII", 2, 20 + len(text), len(text), 0x4E4F534A) + text


BAD = {
    "none.stl": (None, "cannot be read: No such file or directory"),
    "empty.obj": (b"", "the file is empty"),
    "mesh.fbx": (b"x", r"a mesh must be one of \.stl, \.obj"),
    "short.stl": (b"abc", "a truncated STL"),
    "truncated.stl": (stl(9, 3), "a truncated STL: 9 triangles take 534 bytes, the file has"),
    "huge.stl": (stl(200_000_000, 3), "a truncated STL: 200000000 triangles take 10000000084 bytes"),
    "none-in.stl": (stl(0, 0), "holds no mesh"),
    "words.obj": (b"hello\n", "holds no mesh"),
    "cloud.obj": (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "holds 3 points, but no faces"),
    "beyond.obj": (b"v 0 0 0\nv 1 0 0\nf 1 2 7\n", '"f 1 2 7": a face names a vertex that does not exist; there are 2'),
    "flat.obj": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "all 1 faces have no area"),
    "nan.obj": (b"v nan 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "all 1 faces have corners that are not finite"),
    "huge.off": (b"OFF\n99999999999 1 0\n", "claims 99999999999 of vertices, but the file has 20 bytes"),
    "huge.ply": (
        b"ply\nformat binary_little_endian 1.0\nelement vertex 999999999\nproperty float x\nend_header\n",
        "claims 999999999 of vertex",
    ),
    "junk.ply": (b"ply\nend_header\n", "its header names no format"),
    "junk.off": (b"\x00\xff\x13" * 9, "must begin with OFF and the numbers of"),
    "junk.glb": (b"glTX" * 9, "not a GLB file"),
    "short.glb": (b"glTF" + struct.pack("<IIII", 2, 10**9, 10**9, 0x4E4F534A), "a truncated GLB: 1000000000 bytes"),
    "huge.glb": (glb({"accessors": [{"count": 10**10, "type": "VEC3"}]}), "claims 10000000000 values"),
    "many.glb": (glb({"accessors": [{"count": 150, "type": "VEC3"}] * 2}), "claims 300 values, but the file has 220"),
    "list.glb": (glb({"accessors": 3}), "its JSON does not describe a glTF 2.0 scene"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_line_for_bad_files(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: ({message})") as caught:
        read_mesh(path)
    assert "\n" not in str(caught.value)


def test_folders_and_point_clouds(tmp_path: Path) -> None:
    (tmp_path / "a.stl").mkdir()
    with pytest.raises(UserError, match=r"a\.stl: not a file"):
        read_mesh(tmp_path / "a.stl")
    trimesh.PointCloud(BOX.vertices).export(tmp_path / "cloud.ply")
    with pytest.raises(UserError, match=r"cloud\.ply: holds 8 points, but no faces"):
        read_mesh(tmp_path / "cloud.ply")


def test_parts_that_come_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = trimesh.Scene({"box": BOX})
    for x in range(1, 9):
        scene.graph.update(f"box {x}", geometry="box", matrix=trimesh.transformations.translation_matrix([4 * x, 0, 0]))
    scene.export(tmp_path / "nine.glb")
    assert len(trimesh.load_scene(tmp_path / "nine.glb").geometry) == 1
    monkeypatch.setattr("sdfgan.meshes.read._MAX_FACES", 100)
    with pytest.raises(UserError, match=r"nine.glb: its parts have 108 faces together; at most 100 are read"):
        read_mesh(tmp_path / "nine.glb")


def test_files_cut_anywhere(tmp_path: Path) -> None:
    """Every prefix is read, or refused with one line."""
    for suffix in ("ply", "glb", "obj", "off", "stl"):
        data = BOX.export(file_type=suffix)
        data = data if isinstance(data, bytes) else data.encode()
        for end in range(0, len(data), max(1, len(data) // 12)):
            path = tmp_path / f"cut.{suffix}"
            path.write_bytes(data[:end])
            try:
                read_mesh(path)
            except UserError as error:
                assert str(path) in str(error) and "\n" not in str(error)
