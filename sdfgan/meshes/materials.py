"""The files of materials and textures that a mesh file names, and which of these are not used."""

from __future__ import annotations

import json
import re
import struct
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trimesh
from PIL import EpsImagePlugin, Image

from sdfgan.images import DEEP_MODES, to_rgba
from sdfgan.meshes.formats.text import plain_text

# Somebody else's lines: each of these patterns takes time in proportion to what it is tried on.
_LIBRARY = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+(\S.*)$")
_TEXTURE = re.compile(rb"(?mi)^[ \t]*map_Kd[ \t]+(\S.*)$")
_OPTION = re.compile(r"-[a-zA-Z]\w*(?: +(?:on|off|[-+.\d][-+.\deE]*|[rgbmlz]))* +")  # of a texture: -s 1 1 1 a.png
_LARGEST = 64 << 20  # bytes of a material library that are looked at
_LONGEST, _MOST = 250, 3  # letters of a name that a note shows, and notes


class FolderResolver(trimesh.resolvers.FilePathResolver):
    """Reads what a mesh names, in its folder: also by names with MTL's options before them, or of Windows' folders."""

    def get(self, name: str) -> bytes:
        """The content of the file. ValueError or FileNotFoundError, which trimesh takes for no texture."""
        return super().get(_plain(name))


@contextmanager
def no_ghostscript() -> Iterator[None]:
    """Meanwhile Pillow runs no other program: a texture may be PostScript, whatever it is called."""
    before = EpsImagePlugin.gs_binary
    EpsImagePlugin.gs_binary = False
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary = before


def _plain(name: str) -> str:
    """A name without MTL's options, and with slashes."""
    name, start = name.strip(), 0
    while option := _OPTION.match(name, start):
        start = option.end()
    return name[start:].replace("\\", "/")


def unused_files(path: Path) -> list[str]:
    """One note for each file that an OBJ or glTF names for its colours and that is missing, outside its folder, or no
    image that is read.

    A mesh is somebody else's file: what lies outside its folder is not read for it.
    """
    names = {".obj": _of_obj, ".gltf": _of_gltf, ".glb": _of_gltf}.get(path.suffix.lower())
    named = () if names is None else dict.fromkeys(names(path))
    notes = [note for name, is_texture in named if (note := _note(path, name, is_texture))]
    more = [f"{path}: and {len(notes) - _MOST} more such files"] if len(notes) > _MOST else []
    return notes[:_MOST] + more


def _note(path: Path, name: str, is_texture: bool) -> str | None:
    file = _found(path.parent, name)
    if file is not None and not (is_texture and _is_unreadable(file)):
        return None
    why = "no image that is read" if file is not None else "missing"
    if file is None and _leads_out(path.parent, name):
        why = "outside its folder, and not read"
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name[:_LONGEST])
    return f"{path}: {shown} is {why}: what it colours has its plain colour"


def _is_unreadable(file: Path) -> bool:
    """Whether an image is of a kind that is not read, or damaged, as far as that is seen without decoding all of it."""
    try:
        with Image.open(file) as image:
            if image.mode in DEEP_MODES:
                to_rgba(image)
            else:
                image.verify()
    except Exception:  # decoders raise almost anything on damaged data
        return True
    return False


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


def _of_obj(path: Path) -> Iterator[tuple[str, bool]]:
    """Names, and whether they are of textures."""
    for given in _LIBRARY.findall(plain_text(path.read_bytes())):
        library = _plain(given.decode(errors="replace"))
        yield library, False
        found = _found(path.parent, library)
        if found is not None:
            with found.open("rb") as file:
                text = file.read(_LARGEST)
            for texture in _TEXTURE.findall(plain_text(text)):
                yield _plain(texture.decode(errors="replace")), True


def _of_gltf(path: Path) -> Iterator[tuple[str, bool]]:
    data = path.read_bytes()
    if data[:4] == b"glTF":
        (size,) = struct.unpack_from("<I", data, 12)
        data = data[20 : 20 + size]
    images = json.loads(data).get("images")
    for image in images if isinstance(images, list) else ():
        uri = image.get("uri") if isinstance(image, dict) else None
        if isinstance(uri, str) and not uri.startswith("data:"):
            yield urllib.parse.unquote(uri), True
