"""glTF 2.0, as .glb or .gltf: the triangles of a scene, with everything that moves them.

https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html. trimesh and pygltflib were weighed: the first passes over
extensions, normalised integers, instances, skins and morph targets in silence, the second reads no geometry.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons, strip, triangles_of

_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_MODES = ("points", "lines", "line loops", "line strips", "triangles", "triangle strips", "triangle fans")
_DRACO = "KHR_draco_mesh_compression"
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
_INSTANCES = "EXT_mesh_gpu_instancing"
_VISIBILITY = "KHR_node_visibility"
_UNDERSTOOD = {"KHR_mesh_quantization", _INSTANCES, _VISIBILITY}
# They change how a surface looks, never where it is.
_LOOKS = (
    "KHR_materials_", "EXT_materials_", "KHR_texture_", "EXT_texture_", "MSFT_texture_", "MSFT_packing_", "KHR_lights_",
    "EXT_lights_", "KHR_techniques_webgl", "KHR_xmp", "ADOBE_materials_",
)  # fmt: skip
Opener = Callable[[str], bytes]


def read_glb(data: bytes, open_file: Opener, max_faces: int) -> Polygons:
    """A binary file. Raises MeshFormatError."""
    if len(data) < 20 or data[:4] != b"glTF":
        raise MeshFormatError("not a GLB file")
    version, total, length, kind = struct.unpack("<IIII", data[4:20])
    if version != 2:
        raise MeshFormatError(f"is glTF {version}; only 2.0 is read")
    if total > len(data) or length > len(data) - 20:
        raise MeshFormatError(f"a truncated GLB: {total} bytes are claimed, the file has {len(data)}")
    if kind != 0x4E4F534A:
        raise MeshFormatError("not a GLB file: its first chunk is not JSON")
    binary, position = None, 20 + length
    while position + 8 <= total:
        size, kind = struct.unpack("<II", data[position : position + 8])
        if size > total - position - 8:
            raise MeshFormatError(f"a truncated GLB: a chunk of {size} bytes at {position}, the file has {total}")
        if kind == 0x004E4942 and binary is None:
            binary = data[position + 8 : position + 8 + size]
        position += 8 + size
    return _read(data[20 : 20 + length], binary, len(data), open_file, max_faces)


def read_gltf(data: bytes, open_file: Opener, max_faces: int) -> Polygons:
    """A text file, whose buffers are in it or in files beside it. Raises MeshFormatError."""
    return _read(data, None, len(data), open_file, max_faces)


def _read(text: bytes, binary: bytes | None, size: int, open_file: Opener, max_faces: int) -> Polygons:
    try:
        return _Document(json.loads(text), binary, size, open_file).scene(max_faces)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        field = f" ({error.args[0]!r} is missing)" if isinstance(error, KeyError) and error.args else ""
        raise MeshFormatError(f"its JSON does not describe a glTF 2.0 scene{field}") from error


class _Document:
    def __init__(self, content: dict[str, Any], binary: bytes | None, size: int, open_file: Opener) -> None:
        self.content, self.binary, self.open_file = content, binary, open_file
        self._buffers: dict[int, bytes] = {}
        required = content.get("extensionsRequired", [])
        for name in required:
            if name not in _UNDERSTOOD and not name.startswith(_LOOKS):
                raise MeshFormatError(f"needs {name[:80]}, which is not read; export it without")
        accessors = content.get("accessors", [])
        largest = size + sum(buffer.get("byteLength", 0) for buffer in content.get("buffers", []) if "uri" in buffer)
        # Those without data are all zeros, however long.
        empty = sum(max(accessor.get("count", 0), 0) for accessor in accessors if "bufferView" not in accessor)
        for count in (empty, *(accessor["count"] for accessor in accessors)):
            if not 0 <= count <= largest:
                raise MeshFormatError(f"claims {count} values, but the file has {size} bytes")
        version = content["asset"].get("minVersion", content["asset"]["version"])
        if version != "2.0" and not ("minVersion" not in content["asset"] and version.startswith("2.")):
            raise MeshFormatError(f"is glTF {version[:20]}; only 2.0 is read")

    def scene(self, max_faces: int) -> Polygons:
        """All triangles of the default scene, in its coordinates."""
        nodes, meshes = self.content.get("nodes", []), self.content.get("meshes", [])
        chosen, order, globals_ = self._placed_nodes(nodes)
        primitives: dict[int, list[tuple[dict[str, Any], np.ndarray]]] = {}
        places = {i: self._instances(nodes[i]) for i in order if "mesh" in nodes[i]}
        total, other = {"faces": 0, "vertices": 0}, dict.fromkeys(_MODES[:4], 0)
        for i in order:
            if (mesh := nodes[i].get("mesh")) is None:
                continue
            if mesh not in primitives:
                primitives[mesh] = [(held, self._triangles(held)) for held in meshes[_index(mesh)]["primitives"]]
            for held, faces in primitives[mesh]:
                total["faces"] += len(places[i]) * len(faces)
                total["vertices"] += len(places[i]) * self._count(held) if len(faces) else 0
            for name, number in total.items():
                if number > max_faces:
                    raise MeshFormatError(f"its parts have {number:,} {name} together; at most {max_faces:,} are read")
        vertices, corners, count, bare = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0, 0
        for i, matrices in places.items():
            for held, faces in primitives[nodes[i]["mesh"]]:
                mode = held.get("mode", 4)
                if "POSITION" not in held["attributes"]:
                    bare += 1
                elif mode < 4:
                    other[_MODES[mode]] += 1
                if len(faces) == 0:
                    continue
                points = self._points(nodes[i], held, globals_)
                # A skin has placed them already.
                for matrix in [globals_[i] @ matrix for matrix in matrices] if "skin" not in nodes[i] else [np.eye(4)]:
                    vertices.append(points @ matrix[:3, :3].T + matrix[:3, 3])
                    mirrored = np.linalg.det(matrix[:3, :3]) < 0
                    corners.append(count + (faces[:, ::-1] if mirrored else faces))
                    count += len(points)
        ignored = [f"{number} primitives of {mode}" for mode, number in other.items() if number]
        outside = {node["mesh"] for i, node in enumerate(nodes) if "mesh" in node and i not in chosen}
        if outside := outside - primitives.keys():
            ignored.append(f"{len(outside)} meshes outside the scene")
        if bare:
            ignored.append(f"{bare} primitives without positions")
        if len(chosen) > len(order):
            ignored.append(f"{len(chosen) - len(order)} nodes that are not visible")
        passed = {*_UNDERSTOOD, _DRACO, *_MESHOPT}  # of which a plain copy has been read
        used = [name for name in self.content.get("extensionsUsed", []) if name not in passed]
        ignored += [f"extension {name[:80]}" for name in used if not name.startswith(_LOOKS)]
        return triangles_of(np.concatenate(vertices), np.concatenate(corners), tuple(ignored))

    # ------------------------------------------------------------------------------------------------------------ nodes

    def _placed_nodes(self, nodes: list[dict[str, Any]]) -> tuple[set[int], list[int], list[np.ndarray]]:
        """Those of the default scene; the visible ones of them, in order; and where each node is [4, 4]."""
        parents: dict[int, int] = {}
        for i, node in enumerate(nodes):
            for child in node.get("children", []):
                if _index(child) in parents:
                    raise MeshFormatError(f"node {child} has two parents")
                nodes[child]
                parents[child] = i
        globals_: list[Any] = [None] * len(nodes)
        roots = [i for i in range(len(nodes)) if i not in parents]
        waiting, placed = list(reversed(roots)), []
        while waiting:
            i = waiting.pop()
            local = _matrix(nodes[i])
            globals_[i] = globals_[parents[i]] @ local if i in parents else local
            placed.append(i)
            waiting += reversed(nodes[i].get("children", []))
        if len(placed) < len(nodes):
            raise MeshFormatError("some of its nodes are their own ancestors")
        scenes = self.content.get("scenes", [])
        begins = set(scenes[_index(self.content.get("scene", 0))].get("nodes", [])) if scenes else set(roots)
        chosen: set[int] = set()
        for i in placed:  # parents before children
            if i in begins or parents.get(i) in chosen:
                chosen.add(i)
        seen: set[int] = set()
        for i in placed:
            shown = nodes[i].get("extensions", {}).get(_VISIBILITY, {}).get("visible", True)
            if shown and (parents.get(i) in seen or i not in parents):
                seen.add(i)
        return chosen, [i for i in placed if i in chosen and i in seen], globals_

    def _instances(self, node: dict[str, Any]) -> list[np.ndarray]:
        """Where a node's mesh comes, relative to the node [4, 4] each."""
        held = node.get("extensions", {}).get(_INSTANCES)
        if held is None:
            return [np.eye(4)]
        given = {name: self.accessor(held["attributes"][name]) for name in held["attributes"] if name[0] != "_"}
        if not given or not given.keys() <= {"TRANSLATION", "ROTATION", "SCALE"}:
            raise MeshFormatError(
                f"{_INSTANCES} with attributes {sorted(given)}; TRANSLATION, ROTATION, SCALE are read"
            )
        if len(counts := {len(values) for values in given.values()}) != 1:
            raise MeshFormatError(f"{_INSTANCES} with attributes of different lengths")
        keys = {"TRANSLATION": "translation", "ROTATION": "rotation", "SCALE": "scale"}
        return [_matrix({keys[name]: values[i] for name, values in given.items()}) for i in range(counts.pop())]

    # ----------------------------------------------------------------------------------------------------------- meshes

    def _count(self, primitive: dict[str, Any]) -> int:
        return _index(self.content["accessors"][_index(primitive["attributes"]["POSITION"])]["count"])

    def _triangles(self, primitive: dict[str, Any]) -> np.ndarray:
        """[F, 3] of one primitive; none of points and lines."""
        mode = primitive.get("mode", 4)
        if "POSITION" not in primitive["attributes"]:
            return np.zeros((0, 3), np.int64)
        accessors = self.content["accessors"]
        position = accessors[_index(primitive["attributes"]["POSITION"])]
        needed = [position] + ([accessors[_index(primitive["indices"])]] if "indices" in primitive else [])
        if _DRACO in primitive.get("extensions", {}) and any("bufferView" not in held for held in needed):
            raise MeshFormatError(f"needs {_DRACO}, which is not read; export it without")
        _MODES[_index(mode)]
        if mode < 4:
            return np.zeros((0, 3), np.int64)
        count = position["count"]
        if "indices" in primitive:
            corners = self.accessor(primitive["indices"])
            if corners.shape[1] != 1 or corners.dtype.kind != "u":
                raise MeshFormatError("its indices must be unsigned integers")
            corners = corners[:, 0].astype(np.int64)
        else:
            corners = np.arange(count)
        if len(corners) and corners.max() >= count:
            raise MeshFormatError(f"a face names a vertex that does not exist; there are {count}")
        if mode == 4:
            if len(corners) % 3:
                raise MeshFormatError(f"has {len(corners)} corners of triangles, which is not a multiple of three")
            return corners.reshape(-1, 3)
        if len(corners) < 3:
            return np.zeros((0, 3), np.int64)
        if mode == 5:
            return strip(corners)
        return np.stack([np.full(len(corners) - 2, corners[0]), corners[1:-1], corners[2:]], 1)

    def _points(self, node: dict[str, Any], primitive: dict[str, Any], globals_: list[np.ndarray]) -> np.ndarray:
        """Vertices [V, 3] float64 of one primitive, morphed and on its skeleton."""
        attributes = primitive["attributes"]
        points = self._vectors(attributes["POSITION"])
        targets = primitive.get("targets", [])
        weights = node.get("weights", self.content["meshes"][node["mesh"]].get("weights", []))
        for weight, target in zip(weights, targets, strict=False):
            if weight and "POSITION" in target:
                points = points + weight * self._vectors(target["POSITION"])
        if "skin" not in node:
            return points
        skin = self.content["skins"][_index(node["skin"])]
        bones = np.stack([globals_[_index(joint)] for joint in skin["joints"]])  # [J, 4, 4]
        if "inverseBindMatrices" in skin:
            inverse = self.accessor(skin["inverseBindMatrices"])
            bones = bones @ inverse[: len(bones)].reshape(-1, 4, 4).transpose(0, 2, 1)  # by columns
        moved, total = np.zeros_like(points), np.zeros(len(points))
        for k in range(len(attributes)):
            if f"JOINTS_{k}" not in attributes:
                break
            joints, shares = self.accessor(attributes[f"JOINTS_{k}"]), self.accessor(attributes[f"WEIGHTS_{k}"])
            for joint, share in zip(joints.T, shares.T.astype(np.float64), strict=True):
                matrix = bones[joint.astype(np.int64)]
                moved += share[:, None] * (np.einsum("vij,vj->vi", matrix[:, :3, :3], points) + matrix[:, :3, 3])
                total += share
        if not (total > 0.5).all():
            raise MeshFormatError("has a skin whose vertices do not all hang on joints")
        return moved / total[:, None]

    def _vectors(self, index: Any) -> np.ndarray:
        values = self.accessor(index)
        if values.shape[1] != 3:
            raise MeshFormatError(f"its positions must have three coordinates, got {values.shape[1]}")
        return values.astype(np.float64)

    # ---------------------------------------------------------------------------------------------------------- numbers

    def accessor(self, index: Any) -> np.ndarray:
        """[count, width] as stored, normalised integers as float64."""
        held = self.content["accessors"][_index(index)]
        kind, width, count = np.dtype(_TYPES[held["componentType"]]), _WIDTHS[held["type"]], _index(held["count"])
        where = f"accessor {index}"
        values = np.zeros((count, width), kind)
        if "bufferView" in held:
            values = self._strided(held["bufferView"], held.get("byteOffset", 0), kind, width, count, where)
        if "sparse" in held:
            sparse = held["sparse"]
            number, at, to = _index(sparse["count"]), sparse["indices"], sparse["values"]
            index_kind = np.dtype(_TYPES[at["componentType"]])
            rows = self._strided(at["bufferView"], at.get("byteOffset", 0), index_kind, 1, number, where)[:, 0]
            if number and not 0 <= rows.max() < count:
                raise MeshFormatError(f"{where}: a sparse value for row {rows.max()} of {count}")
            values = values.copy()
            values[rows] = self._strided(to["bufferView"], to.get("byteOffset", 0), kind, width, number, where)
        if held.get("normalized", False) and kind.kind in "iu":
            return np.maximum(values / np.float64(np.iinfo(kind).max), -1.0)
        return values

    def _strided(self, view: Any, offset: int, kind: np.dtype, width: int, count: int, where: str) -> np.ndarray:
        held = self.content["bufferViews"][_index(view)]
        data = self._buffer(_index(held["buffer"]), held)
        begin, length = _index(held.get("byteOffset", 0)), _index(held["byteLength"])
        size = kind.itemsize * width
        stride = _index(held.get("byteStride", size)) or size
        needed = _index(offset) + (stride * (count - 1) + size if count else 0)
        if needed > length or begin + length > len(data):
            have = max(0, min(length, len(data) - begin))
            raise MeshFormatError(f"{where} declares {count} values of {needed} bytes, but {have} arrived")
        return np.ndarray((count, width), kind, data, begin + offset, (stride, kind.itemsize))

    def _buffer(self, index: int, view: dict[str, Any]) -> bytes:
        if index not in self._buffers:
            held = self.content["buffers"][index]
            uri = held.get("uri")
            if uri is None:
                packed = [name for name in _MESHOPT if name in view.get("extensions", {})]
                fallback = any(held.get("extensions", {}).get(name, {}).get("fallback") for name in _MESHOPT)
                if index or self.binary is None or fallback:
                    if packed:
                        raise MeshFormatError(f"needs {packed[0]}, which is not read; export it without")
                    raise MeshFormatError(f"its buffer {index} has no data")
                data = self.binary
            elif uri.startswith("data:"):
                form, _, text = uri.partition(",")
                try:
                    data = base64.b64decode(text, validate=True) if ";base64" in form else unquote_to_bytes(text)
                except binascii.Error:
                    raise MeshFormatError(f"the data of its buffer {index} is not base64") from None
            else:
                data = self.open_file(unquote(uri))
            if len(data) < held["byteLength"]:
                raise MeshFormatError(f"its buffer {index} has {len(data)} bytes, not {held['byteLength']}")
            self._buffers[index] = data
        return self._buffers[index]


def _index(value: Any) -> int:
    """A number that is no negative index, nor anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not an index")
    return value


def _matrix(node: dict[str, Any]) -> np.ndarray:
    """[4, 4] from a matrix by columns, or from translation, rotation (x, y, z, w) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    placed = np.eye(4)
    quaternion = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    if not np.linalg.norm(quaternion) > 0:
        raise MeshFormatError("has a node whose rotation is not a quaternion")
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    placed[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    placed[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return placed
