"""glTF: everything that moves a scene's triangles, and refusals of what is not understood."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from sdfgan.errors import UserError
from sdfgan.meshes import repair
from sdfgan.sdf import read_mesh

BOX = trimesh.creation.box((1, 2, 3))
TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
TURN = [0.0, 0.0, 0.5**0.5, 0.5**0.5]  # a quarter about z


class Scene:
    """A document that grows; by itself a node with a box of 1 x 2 x 3 at the origin."""

    def __init__(self, **node: Any) -> None:
        self.data = b""
        self.content: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, **node}],
            "meshes": [], "accessors": [], "bufferViews": [],
        }  # fmt: skip
        self.primitive: dict[str, Any] = {
            "attributes": {"POSITION": self.add(BOX.vertices)},
            "indices": self.add(BOX.faces.reshape(-1, 1), "u2"),
        }
        self.content["meshes"] = [{"primitives": [self.primitive]}]

    def view(self, data: bytes, **more: Any) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        self.content["bufferViews"].append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data), **more})
        self.data += data
        return len(self.content["bufferViews"]) - 1

    def add(self, values: Any, kind: str = "f4", stride: int = 0, **more: Any) -> int:
        rows = np.asarray(values).astype("<" + kind)
        width = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[rows.shape[1]]
        data = b"".join(row.tobytes().ljust(stride, b"\xff") for row in rows)
        view = self.view(data, **({"byteStride": stride} if stride else {}))
        accessor = {"bufferView": view, "componentType": TYPES[kind], "type": width, "count": len(rows)}
        self.content["accessors"].append({**accessor, **more})
        return len(self.content["accessors"]) - 1

    def glb(self) -> bytes:
        content = {"buffers": [{"byteLength": len(self.data)}], **self.content}
        text, data = json.dumps(content).encode(), self.data + b"\0" * (-len(self.data) % 4)
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks

    def read(self, tmp_path: Path) -> trimesh.Trimesh:
        (tmp_path / "a.glb").write_bytes(self.glb())
        return read_mesh(tmp_path / "a.glb")

    def refusal(self, tmp_path: Path) -> str:
        with pytest.raises(UserError) as caught:
            self.read(tmp_path)
        assert "\n" not in str(caught.value) and "Error" not in str(caught.value)
        return str(caught.value)


def is_box(mesh: trimesh.Trimesh, extents: Any = (1, 2, 3), centre: Any = (0, 0, 0), volume: float = 6) -> bool:
    near = np.allclose(mesh.extents, extents, atol=1e-3) and np.allclose(mesh.bounds.mean(0), centre, atol=1e-3)
    return bool(near and abs(mesh.volume - volume) < 1e-2)  # positive: outwards


def test_nodes(tmp_path: Path) -> None:
    assert is_box(Scene().read(tmp_path))
    assert is_box(Scene(translation=[5, 0, 0], rotation=TURN).read(tmp_path), (2, 1, 3), (5, 0, 0))
    assert is_box(Scene(rotation=TURN, scale=[2, 1, 1]).read(tmp_path), (2, 2, 3), volume=12)
    assert is_box(Scene(scale=[-1, 1, 1]).read(tmp_path)), "a mirror turns the faces"
    columns = [0, 1, 0, 0, -1, 0, 0, 0, 0, 0, 1, 0, 7, 0, 0, 1]
    assert is_box(Scene(matrix=columns).read(tmp_path), (2, 1, 3), (7, 0, 0))
    scene = Scene(translation=[1, 0, 0])
    scene.content["nodes"].append({"children": [0], "rotation": TURN, "translation": [0, 0, 4]})
    scene.content["scenes"] = [{"nodes": [1]}]
    assert is_box(scene.read(tmp_path), (2, 1, 3), (0, 1, 4))
    del scene.content["scenes"], scene.content["scene"]
    assert is_box(scene.read(tmp_path), (2, 1, 3), (0, 1, 4))


def test_a_double_translation_is_kept(tmp_path: Path) -> None:
    place = (500000.25, 4649776.125, 120.0625)
    mesh = Scene(translation=list(place)).read(tmp_path)
    assert np.array_equal(mesh.vertices, BOX.vertices + place)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2"])
def test_quantised_positions(tmp_path: Path, kind: str) -> None:
    largest = np.iinfo(kind).max
    low = -1.0 if kind[0] == "i" else 0.0
    unit = low + (1 - low) * (BOX.vertices - BOX.bounds[0]) / BOX.extents
    scale, move = BOX.extents / (1 - low), BOX.bounds[0] - low * BOX.extents / (1 - low)
    for normalized in (True, False):
        size = 1 if normalized else largest
        scene = Scene(translation=[*(move + np.array([5, 0, 0]))], scale=[*scale / size])
        values = np.round(unit * largest)
        position = scene.add(values, kind, stride=8, normalized=normalized)
        scene.primitive["attributes"]["POSITION"] = position
        scene.content |= {"extensionsRequired": ["KHR_mesh_quantization"], "extensionsUsed": ["KHR_mesh_quantization"]}
        assert is_box(scene.read(tmp_path), centre=(5, 0, 0)), (kind, normalized)


def test_strides_and_sparse_values(tmp_path: Path) -> None:
    scene = Scene()
    scene.primitive["attributes"]["POSITION"] = scene.add(BOX.vertices, stride=20)
    assert is_box(scene.read(tmp_path))
    for base in (True, False):
        scene = Scene()
        position = scene.content["accessors"][scene.primitive["attributes"]["POSITION"]]
        if not base:
            del position["bufferView"]
        rows = np.arange(8) if not base else np.flatnonzero(BOX.vertices[:, 0] > 0)
        position["sparse"] = {
            "count": len(rows),
            "indices": {"bufferView": scene.view(rows.astype("<u1").tobytes()), "componentType": 5121},
            "values": {"bufferView": scene.view((BOX.vertices[rows] * [3, 1, 1]).astype("<f4").tobytes())},
        }
        assert is_box(scene.read(tmp_path), *(((2, 2, 3), (0.5, 0, 0), 12) if base else ((3, 2, 3), (0, 0, 0), 18)))


def test_strips_fans_and_no_indices(tmp_path: Path) -> None:
    scene = Scene()
    del scene.primitive["indices"]
    scene.primitive["attributes"]["POSITION"] = scene.add(BOX.vertices[BOX.faces].reshape(-1, 3))
    assert is_box(scene.read(tmp_path))
    square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    for mode, order in ((5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])):
        scene = Scene()
        scene.primitive |= {"mode": mode, "indices": scene.add(np.array(order)[:, None], "u1")}
        scene.primitive["attributes"]["POSITION"] = scene.add(square)
        mesh = scene.read(tmp_path)
        assert mesh.area == pytest.approx(1) and np.allclose(mesh.face_normals, [0, 0, 1])
    scene = Scene()
    scene.content["meshes"][0]["primitives"].append({**scene.primitive, "mode": 1})
    scene.content["meshes"].append({"primitives": [scene.primitive]})
    scene.content["nodes"].append({"mesh": 1})
    mesh = scene.read(tmp_path)
    assert is_box(mesh) and mesh.metadata["ignored"] == ("1 primitives of lines", "1 meshes outside the scene")
    assert "not used: 1 primitives of lines" in str(repair(mesh)[1])
    scene.primitive["mode"] = 0
    assert "holds no mesh (1 primitives of points" in scene.refusal(tmp_path)


def test_instances(tmp_path: Path) -> None:
    scene = Scene(scale=[2, 2, 2])
    attributes = {"TRANSLATION": scene.add([[5, 0, 0], [-5, 0, 0]]), "ROTATION": scene.add([TURN, [0, 0, 0, 1]])}
    scene.content["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    scene.content["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    first, second = sorted(scene.read(tmp_path).split(), key=lambda part: -part.bounds[0, 0])
    assert is_box(first, (4, 2, 6), (10, 0, 0), 48) and is_box(second, (2, 4, 6), (-10, 0, 0), 48)


def test_morph_targets_and_skins(tmp_path: Path) -> None:
    scene = Scene(weights=[0.5, 0])
    moved = scene.add(np.tile([4.0, 0, 0], (8, 1)))
    scene.primitive["targets"] = [{"POSITION": moved}, {"POSITION": moved}]
    scene.content["meshes"][0]["weights"] = [0, 1]  # which the node overrides
    assert is_box(scene.read(tmp_path), centre=(2, 0, 0))
    scene = Scene(skin=0, translation=[100, 0, 0])  # which a skin takes no notice of
    scene.content["nodes"] += [{"translation": [0, 0, 9]}, {"translation": [4, 0, 0], "scale": [1, 1, 2]}]
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[1, 3, 0] = -2  # by columns: a translation by -2
    scene.content["skins"] = [{"joints": [1, 2], "inverseBindMatrices": scene.add(inverse.reshape(2, 16))}]
    scene.content["scenes"] = [{"nodes": [0, 1, 2]}]
    scene.primitive["attributes"] |= {
        "JOINTS_0": scene.add(np.tile([1, 0, 0, 0], (8, 1)), "u1"),
        "WEIGHTS_0": scene.add(np.tile([255, 0, 0, 0], (8, 1)), "u1", normalized=True),
    }
    assert is_box(scene.read(tmp_path), (1, 2, 6), (2, 0, 0), 12)


def test_text_files_and_their_buffers(tmp_path: Path) -> None:
    scene = Scene()
    path = tmp_path / "a.gltf"
    inline = "data:application/octet-stream;base64," + base64.b64encode(scene.data).decode()
    (tmp_path / "a b.bin").write_bytes(scene.data)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "c.bin").write_bytes(scene.data)
    escaped = "data:application/octet-stream," + "".join(f"%{byte:02x}" for byte in scene.data)
    for uri in (inline, escaped, "a%20b.bin", "./a b.bin", "parts/c.bin", "parts/../a%20b.bin"):
        path.write_text(json.dumps({**scene.content, "buffers": [{"byteLength": len(scene.data), "uri": uri}]}))
        assert is_box(read_mesh(path))
    (tmp_path / "link").symlink_to(tmp_path.parent)
    for uri, size, message in (
        ("../a.bin", 9, "must be in the same folder, got '../a.bin'"),
        ("parts/%2e%2e/../a.bin", 9, "must be in the same folder"),
        ("link/c.bin", 9, "must be in the same folder"),
        ("/etc/hosts", 9, "must be in the same folder"),
        ("c:a.bin", 9, "must be in the same folder"),
        ("none.bin", 9, r"none\.bin: cannot be read: No such file"),
        ("a%20b.bin", len(scene.data) + 1, f"buffer 0 has {len(scene.data)} bytes, not {len(scene.data) + 1}"),
        ("data:;base64,%%", 9, "not base64"),
    ):
        path.write_text(json.dumps({**scene.content, "buffers": [{"byteLength": size, "uri": uri}]}))
        with pytest.raises(UserError, match=message):
            read_mesh(path)


@pytest.mark.parametrize("name", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "VENDOR_of_the_future"])
def test_extensions_that_are_not_understood(tmp_path: Path, name: str) -> None:
    scene = Scene()
    scene.content["extensionsRequired"] = ["KHR_materials_unlit", "KHR_texture_transform", name]
    assert f"needs {name}, which is not read" in scene.refusal(tmp_path)
    scene.content["extensionsRequired"].pop()
    scene.content["extensionsUsed"] = [name]
    mesh = scene.read(tmp_path)
    assert is_box(mesh), "what is only used may be passed over"
    assert mesh.metadata.get("ignored", ()) == (("extension VENDOR_of_the_future",) if "VENDOR" in name else ())


def test_what_is_not_visible_or_has_no_positions(tmp_path: Path) -> None:
    """A hidden node hides those below it; a primitive without positions draws nothing."""
    scene = Scene()
    hidden = {"KHR_node_visibility": {"visible": False}}
    scene.content["nodes"] += [
        {"translation": [9, 0, 0], "children": [2], "extensions": hidden},
        {"mesh": 0, "children": [3]},
        {"mesh": 0},
        {"mesh": 0, "translation": [0, 9, 0], "extensions": {"KHR_node_visibility": {"visible": True}}},
    ]
    scene.content["scenes"] = [{"nodes": [0, 1]}]
    scene.content["extensionsRequired"] = ["KHR_node_visibility"]
    scene.content["meshes"][0]["primitives"].append({"attributes": {"NORMAL": 0}})
    mesh = scene.read(tmp_path)
    assert is_box(mesh)
    assert mesh.metadata["ignored"] == ("1 primitives without positions", "3 nodes that are not visible")


def test_compressed_data_without_a_plain_copy(tmp_path: Path) -> None:
    scene = Scene()
    scene.primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    assert is_box(scene.read(tmp_path)), "a plain copy is there"
    for accessor in scene.content["accessors"]:
        del accessor["bufferView"]
    assert "needs KHR_draco_mesh_compression" in scene.refusal(tmp_path)
    scene = Scene()
    for view in scene.content["bufferViews"]:
        view["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}
        view["buffer"] = 1
    scene.content["buffers"] = [{"byteLength": 0}, {"byteLength": len(scene.data)}]
    assert "needs EXT_meshopt_compression" in scene.refusal(tmp_path)
    scene = Scene()
    for view in scene.content["bufferViews"]:
        view["extensions"] = {"EXT_meshopt_compression": {"buffer": 1}}
    assert is_box(scene.read(tmp_path)), "the buffer itself has a plain copy"
    fallback = {"EXT_meshopt_compression": {"fallback": True}}
    scene.content["buffers"] = [{"byteLength": len(scene.data), "extensions": fallback}]
    assert "needs EXT_meshopt_compression" in scene.refusal(tmp_path)


def test_counts_and_structure(tmp_path: Path) -> None:
    def changed(change: Any) -> str:
        scene = Scene()
        change(scene.content, scene.primitive)
        return scene.refusal(tmp_path)

    assert "accessor 0 declares 9 values of 108 bytes, but 96 arrived" in changed(
        lambda content, _: content["accessors"][0].update(count=9)
    )
    assert "35 corners of triangles" in changed(lambda content, _: content["accessors"][1].update(count=35))
    assert "vertex that does not exist; there are 7" in changed(
        lambda content, _: content["accessors"][0].update(count=7)
    )
    assert "own ancestors" in changed(lambda content, _: content["nodes"][0].update(children=[0]))
    assert "two parents" in changed(lambda content, _: content["nodes"].extend([{"children": [0]}, {"children": [0]}]))
    assert "is glTF 3.0" in changed(lambda content, _: content["asset"].update(version="3.0"))
    assert "'version' is missing" in changed(lambda content, _: content["asset"].clear())
    assert "three coordinates" in changed(lambda content, _: content["accessors"][0].update(type="VEC2"))
    assert "does not describe" in changed(lambda content, _: content["nodes"][0].update(mesh=-1))
    assert "does not describe" in changed(lambda content, _: content["nodes"][0].update(scale=[1, 2]))
    assert "unsigned integers" in changed(lambda content, _: content["accessors"][1].update(componentType=5122))
