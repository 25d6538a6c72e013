"""The files of materials and textures that a mesh file names, and which of these are not used."""

from __future__ import annotations

import json
import re
import struct
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import trimesh

from sdfgan.meshes.formats.text import plain_text

_LIBRARY = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+(.+?)[ \t\r]*$")
_TEXTURE = re.compile(rb"(?m)^[ \t]*map_Kd[ \t]+(.+?)[ \t\r]*$")
_OPTIONS = re.compile(r"(?:-\w+(?: +(?:on|off|[-+.\d][-+.\deE]*|[rgbmlz]))* +)*(.+)")  # of a texture: -s 1 1 1 a.png
_LARGEST = 64 << 20  # bytes of a material library that are looked at
_LONGEST, _MOST = 250, 3  # letters of a name that a note shows, and notes


class FolderResolver(trimesh.resolvers.FilePathResolver):
    """Reads what a mesh names, in its folder: also by names with MTL's options before them, or of Windows' folders."""

    def get(self, name: str) -> bytes:
        """The content of the file. ValueError or FileNotFoundError, which trimesh takes for no texture."""
        return super().get(_plain(name))


def _plain(name: str) -> str:
    """A name without MTL's options, and with slashes."""
    found = _OPTIONS.fullmatch(name.strip())
    return (name if found is None else found[1]).replace("\\", "/")


def unused_files(path: Path) -> list[str]:
    """One note for each file that an OBJ or glTF names for its colours and that is missing, or outside its folder.

    A mesh is somebody else's file: what lies outside its folder is not read for it.
    """
    names = {".obj": _of_obj, ".gltf": _of_gltf, ".glb": _of_gltf}.get(path.suffix.lower())
    notes = [] if names is None else [note for name in dict.fromkeys(names(path)) if (note := _note(path, name))]
    more = [f"{path}: and {len(notes) - _MOST} more such files"] if len(notes) > _MOST else []
    return notes[:_MOST] + more


def _note(path: Path, name: str) -> str | None:
    if _found(path.parent, name) is not None:
        return None
    outside = _leads_out(path.parent, name)
    why = "outside its folder, and not read" if outside else "missing"
    return f"{path}: {name[:_LONGEST]} is {why}: what it colours has its plain colour"


def _found(folder: Path, name: str) -> Path | None:
    """The file that trimesh reads by a name: in the folder, where the name says or else beside the mesh."""
    for candidate in (name, name.lstrip("/"), name.rpartition("/")[2]):
        try:
            if not _leads_out(folder, candidate) and (folder / candidate).is_file():
                return folder / candidate
        except (OSError, ValueError):  # a name that no file can have
            continue
    return None


def _leads_out(folder: Path, name: str) -> bool:
    try:
        return not (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError):
        return False


def _of_obj(path: Path) -> Iterator[str]:
    for given in _LIBRARY.findall(plain_text(path.read_bytes())):
        library = _plain(given.decode(errors="replace"))
        yield library
        found = _found(path.parent, library)
        if found is not None:
            with found.open("rb") as file:
                text = file.read(_LARGEST)
            for texture in _TEXTURE.findall(plain_text(text)):
                yield _plain(texture.decode(errors="replace"))


def _of_gltf(path: Path) -> Iterator[str]:
    data = path.read_bytes()
    if data[:4] == b"glTF":
        (size,) = struct.unpack_from("<I", data, 12)
        data = data[20 : 20 + size]
    images = json.loads(data).get("images")
    for image in images if isinstance(images, list) else ():
        uri = image.get("uri") if isinstance(image, dict) else None
        if isinstance(uri, str) and not uri.startswith("data:"):
            yield urllib.parse.unquote(uri)
