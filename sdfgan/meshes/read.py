"""Reading meshes from untrusted files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh

from sdfgan.errors import UserError
from sdfgan.meshes.formats.gltf import read_glb, read_gltf
from sdfgan.meshes.formats.obj import read_obj
from sdfgan.meshes.formats.off import read_off
from sdfgan.meshes.formats.ply import read_ply
from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons, triangulate
from sdfgan.meshes.formats.stl import read_stl
from sdfgan.training.files import read_errors

_READERS: dict[str, Callable[[bytes], Polygons]] = {
    ".stl": read_stl,
    ".obj": read_obj,
    ".ply": read_ply,
    ".off": read_off,
}
_SCENE_READERS = {".glb": read_glb, ".gltf": read_gltf}
READ_SUFFIXES = (*_READERS, *_SCENE_READERS)
IGNORED = "ignored"  # in a mesh's metadata: what else the file holds, in words
_MAX_FACES = 10**8
_FACES_AT_ONCE = 2**16
_MAX_COORDINATE = 1e30  # float32, in which most files are written, ends at 3e38, and loses digits below 1e-38
_MAX_BUFFER = 2**32  # bytes


def read_mesh(path: str | os.PathLike[str]) -> trimesh.Trimesh:
    """The triangles of an STL, OBJ, PLY, OFF, GLB or glTF file; all parts of a scene in one mesh, where they are there.

    Nothing is repaired, but at least one face has finite corners that are not on a line. What a file declares is
    compared with what it holds. No other file is opened but buffers of a glTF file, in its own folder.
    `metadata["ignored"]` says in words what was passed over (lines, points); appearance is passed over without a word.

    Raises UserError, one line that names `path`, for anything else.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in READ_SUFFIXES:
        raise UserError(f"{path}: a mesh must be one of {', '.join(READ_SUFFIXES)}")
    data = _bytes(path)
    if not data:
        raise UserError(f"{path}: the file is empty")
    try:
        if suffix in _READERS:
            polygons = _READERS[suffix](data)
        else:
            polygons = _SCENE_READERS[suffix](data, lambda name: _buffer(path, name), _MAX_FACES)
        faces = triangulate(polygons)
    except MeshFormatError as error:
        raise UserError(f"{path}: {error}") from error
    except MemoryError as error:
        raise UserError(f"{path}: too large for this machine's memory ({len(data):,} bytes)") from error
    if len(faces) == 0:
        count = len(polygons.vertices)
        held = f"{count} points, but no faces" if count else "no mesh"
        also = f" ({', '.join(polygons.ignored)})" if polygons.ignored else ""
        raise UserError(f"{path}: holds {held}{also}")
    _check_faces(path, polygons.vertices, faces)
    metadata = {IGNORED: polygons.ignored} if polygons.ignored else None
    return trimesh.Trimesh(polygons.vertices, faces, process=False, metadata=metadata)


def _bytes(path: Path) -> bytes:
    with read_errors(path):
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        return path.read_bytes()


def _buffer(path: Path, name: str) -> bytes:
    """A glTF file's buffer: a file in the same folder or in one inside it, and no other."""
    beside = path.parent / name
    strange = not name or name.startswith("/") or any(mark in name for mark in ("\\", "\0", ":"))
    if strange or not beside.resolve().is_relative_to(path.parent.resolve()):
        raise MeshFormatError(f"its buffer must be in the same folder, got {name[:80]!r}")
    if beside.is_file() and beside.stat().st_size > _MAX_BUFFER:
        raise UserError(f"{beside}: larger than {_MAX_BUFFER:,} bytes")
    return _bytes(beside)


def _check_faces(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    finite = np.isfinite(vertices).all(1)
    sound = finite[faces].all(1)
    if not sound.any():
        raise UserError(f"{path}: all {len(faces)} faces have corners that are not finite numbers")
    is_used = np.zeros(len(vertices), bool)
    is_used[faces[sound]] = True
    used = vertices[is_used]
    largest, size = float(np.abs(used).max()), float(np.ptp(used, axis=0).max())
    if largest > _MAX_COORDINATE:
        raise UserError(f"{path}: has coordinates of up to {largest:g}; at most {_MAX_COORDINATE:g} are read")
    if 0 < size < 1 / _MAX_COORDINATE:
        raise UserError(f"{path}: is {size:g} across; at least {1 / _MAX_COORDINATE:g} is read")
    with np.errstate(all="ignore"):
        for start in range(0, len(faces), _FACES_AT_ONCE):
            a, b, c = vertices[faces[start : start + _FACES_AT_ONCE]].transpose(1, 0, 2)
            if (np.nan_to_num(np.cross(b - a, c - a)) != 0).any():
                return
    raise UserError(f"{path}: all {len(faces)} faces have no area")
