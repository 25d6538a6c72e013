"""Meshes from files that nobody vouches for."""

from __future__ import annotations

import io
import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from sdfgan.errors import UserError

READ_SUFFIXES = (".stl", ".obj", ".ply", ".off", ".glb")
_MOST_FACES = 10**8
_ASCII = bytes(range(128)) + b"?" * 128


def read_mesh(path: str | os.PathLike[str]) -> trimesh.Trimesh:
    """The triangles of an STL, OBJ, PLY, OFF or GLB file; all parts of a scene in one mesh, where the scene has them.

    Nothing is repaired, but at least one face has finite corners that are not on a line. What a file claims to hold is
    compared with its length before memory is taken, and no other file is opened.

    Raises UserError, one line that names `path`, for anything else.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READ_SUFFIXES:
        raise UserError(f"{path}: a mesh must be one of {', '.join(READ_SUFFIXES)}")
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path}: not a file")
        if size == 0:
            raise UserError(f"{path}: the file is empty")
        with path.open("rb") as file:
            _CHECKS.get(suffix, _no_check)(path, file, size)
            file.seek(0)
            plain = _plain(suffix, file.read())
        scene = trimesh.load_scene(plain, file_type=suffix[1:], process=False, skip_materials=True)
        points = sum(len(part.vertices) for part in scene.geometry.values())
        parts = (scene.geometry[scene.graph[node][1]] for node in scene.graph.nodes_geometry)
        faces = sum(len(getattr(part, "faces", ())) for part in parts)  # parts may come often
        if faces > _MOST_FACES:
            raise UserError(f"{path}: its parts have {faces:,} faces together; at most {_MOST_FACES:,} are read")
        mesh = scene.to_mesh() if points else None
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a parser stumbles over
        reason = (str(error).splitlines() or [""])[0][:100]
        raise UserError(
            f"{path}: not a readable {suffix[1:].upper()} file ({type(error).__name__}: {reason})"
        ) from error
    if mesh is None:
        raise UserError(f"{path}: holds no mesh")
    if len(mesh.faces) == 0:
        raise UserError(f"{path}: holds {points} points, but no faces")
    _check_faces(path, mesh)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def _plain(suffix: str, data: bytes) -> io.BytesIO:
    """A file with each byte of its text that is not ASCII as a question mark: names and comments in any encoding."""
    text = len(data)
    if suffix == ".ply":
        text = data.find(b"end_header") + 1
    elif suffix == ".glb" or (suffix == ".stl" and not _is_text_stl(data[:84], len(data))):
        text = 0
    return io.BytesIO(data[:text].translate(_ASCII) + data[text:])


def _no_check(path: Path, file: Any, size: int) -> None:
    """Text that is read line by line claims nothing."""


def _check_stl(path: Path, file: Any, size: int) -> None:
    head = file.read(84)
    if _is_text_stl(head, size):
        return
    needed, count = _stl_size(head)
    if len(head) < 84 or needed > size:
        raise UserError(f"{path}: a truncated STL: {count} triangles take {max(needed, 84)} bytes, the file has {size}")


def _is_text_stl(head: bytes, size: int) -> bool:
    return head.lstrip()[:5].lower() == b"solid" and _stl_size(head)[0] != size


def _stl_size(head: bytes) -> tuple[int, int]:
    """Bytes and triangles that a binary STL must have."""
    count = struct.unpack("<I", head[80:84])[0] if len(head) == 84 else 0
    return 84 + 50 * count, count


def _check_ply(path: Path, file: Any, size: int) -> None:
    head = file.read(65536).split(b"end_header")[0]
    _check_counts(path, re.findall(rb"^\s*element\s+(\w+)\s+(\d+)", head, re.M), size)


def _check_off(path: Path, file: Any, size: int) -> None:
    lines = [line.split(b"#")[0] for line in file.read(65536).splitlines()]
    numbers = re.findall(rb"(?<![\w.])\d+(?![\w.])", b"\n".join(lines))
    _check_counts(path, list(zip((b"vertices", b"faces"), numbers, strict=False)), size)


def _check_counts(path: Path, counts: list[tuple[bytes, bytes]], size: int) -> None:
    for name, count in counts:
        if len(count) > 18 or int(count) > size:  # each takes a byte at least
            raise UserError(f"{path}: claims {count.decode()} of {name.decode()}, but the file has {size} bytes")


def _check_glb(path: Path, file: Any, size: int) -> None:
    head = file.read(20)
    if len(head) < 20 or head[:4] != b"glTF":
        raise UserError(f"{path}: not a GLB file")
    total, length = struct.unpack("<II", head[8:16])
    if total > size or length > size - 20:
        raise UserError(f"{path}: a truncated GLB: {total} bytes are claimed, the file has {size}")
    accessors = json.loads(file.read(length)).get("accessors", [])
    # Those without data are all zeros, however long.
    empty = sum(max(accessor.get("count", 0), 0) for accessor in accessors if "bufferView" not in accessor)
    for count in (empty, *(accessor.get("count", 0) for accessor in accessors)):
        if count > size:
            raise UserError(f"{path}: claims {count} values, but the file has {size} bytes")


_CHECKS = {".stl": _check_stl, ".ply": _check_ply, ".off": _check_off, ".glb": _check_glb}


def _check_faces(path: Path, mesh: trimesh.Trimesh) -> None:
    faces, vertices = np.asarray(mesh.faces), np.asarray(mesh.vertices)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(f"{path}: a face names a vertex that does not exist; there are {len(vertices)}")
    finite = np.isfinite(vertices).all(1)
    if not finite[faces].all(1).any():
        raise UserError(f"{path}: all {len(faces)} faces have corners that are not finite numbers")
    with np.errstate(all="ignore"):
        a, b, c = vertices[faces].transpose(1, 0, 2)
        if not (np.nan_to_num(np.cross(b - a, c - a)) != 0).any():
            raise UserError(f"{path}: all {len(faces)} faces have no area")
