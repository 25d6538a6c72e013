"""The files of materials and textures that a mesh file names, and which of these are not used."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import struct
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import trimesh
from PIL import EpsImagePlugin, Image

from sdfgan.images import DEEP_MODES, to_rgba
from sdfgan.meshes.formats.text import plain_text

# Somebody else's lines: each of these patterns takes time in proportion to what it is tried on.
_LIBRARY = re.compile(rb"(?m)^[ \t]*mtllib[ \t]+(\S.*)$")
_TEXTURE = re.compile(rb"(?mi)^[ \t]*map_Kd[ \t]+(\S.*)$")
_MATERIAL = re.compile(rb"(?mi)^[ \t]*newmtl[ \t]+(\S.*)$")
_USED = re.compile(rb"(?m)^[ \t]*usemtl[ \t]+(\S.*)$")
_OPACITY = re.compile(rb"(?mi)^[ \t]*(d|Tr)[ \t]+(?:-halo[ \t]+)?([-+.\deE]+)[ \t]*(?:#.*|\r)?$")
_COLOUR = re.compile(rb"(?mi)^([ \t]*Kd[ \t]+)([^#\r\n]*)(?:#[^\r\n]*)?")
_EMISSION = re.compile(rb"(?mi)^[ \t]*Ke[ \t]+([^#\r\n]*)")
_PLACED = re.compile(r"-(s|o|t|clamp|mm)((?: +(?:on|off|[-+.\d][-+.\deE]*))*)(?= )")  # options that move or change it
_NEUTRAL: dict[str, set[Any]] = {"s": {1.0}, "o": {0.0}, "t": {0.0}, "clamp": {"off"}, "mm": {0.0, 1.0}}
_OPTION = re.compile(r"-[a-zA-Z]\w*(?: +(?:on|off|[-+.\d][-+.\deE]*|[rgbmlz]))* +")  # of a texture: -s 1 1 1 a.png
_LARGEST = 64 << 20  # bytes of a material library that are looked at
_IN_PLACE = {"offset": [0, 0], "rotation": 0, "scale": [1, 1]}  # of KHR_texture_transform
_SPECULAR = "KHR_materials_pbrSpecularGlossiness"
Wrap = Literal["repeat", "clamp", "mirror"]
_REPEAT = 10497  # glTF's default
_WRAPS: dict[int, Wrap] = {_REPEAT: "repeat", 33071: "clamp", 33648: "mirror"}
_WRAP_NAME = re.compile(f"wraps ({'|'.join(map(str, _WRAPS))}) ({'|'.join(map(str, _WRAPS))})")
_MAX_LETTERS, _MAX_NOTES = 250, 3  # letters of a name that a note shows, and notes


class FolderResolver(trimesh.resolvers.FilePathResolver):
    """Reads what a mesh names, in its folder: also by names with MTL's options before them, or of Windows' folders."""

    def get(self, name: str) -> bytes:
        """The content of the file, of a material library with colours that trimesh reads.

        ValueError or FileNotFoundError, which trimesh takes for no texture.
        """
        found: bytes = super().get(_plain(name))
        return _COLOUR.sub(_three_numbers, found) if _plain(name).lower().endswith(".mtl") else found


@contextmanager
def no_ghostscript() -> Iterator[None]:
    """Meanwhile Pillow runs no other program: a texture may be PostScript, whatever it is called."""
    before = EpsImagePlugin.gs_binary
    EpsImagePlugin.gs_binary = False
    try:
        yield
    finally:
        EpsImagePlugin.gs_binary = before


def _three_numbers(line: re.Match[bytes]) -> bytes:
    """A line Kd without a comment; one number stands for three."""
    values = line[2].split()
    return line[1] + b" ".join(3 * values if len(values) == 1 else values)


def _plain(name: str) -> str:
    """A name without MTL's options, and with slashes."""
    name, start = name.strip(), 0
    while option := _OPTION.match(name, start):
        start = option.end()
    return name[start:].replace("\\", "/")


def unused_files(path: Path) -> list[str]:
    """One note for each file that an OBJ or glTF names for its colours and that is missing, outside its folder, or no
    image that is read; for materials that an OBJ uses and its libraries lack; for images in a glTF that are none, and
    what it says of its textures that is not followed.

    A mesh is somebody else's file: what lies outside its folder is not read for it.
    """
    kinds = {".obj": (_of_obj, _lacking), ".gltf": (_of_gltf, _not_followed), ".glb": (_of_gltf, _not_followed)}
    if path.suffix.lower() not in kinds:
        return []
    files, others = kinds[path.suffix.lower()]
    notes = [note for name, is_texture in dict.fromkeys(files(path)) if (note := _note(path, name, is_texture))]
    notes += [f"{path}: {what}" for what in dict.fromkeys(others(path))]
    more = [f"{path}: and {len(notes) - _MAX_NOTES} more such notes"] if len(notes) > _MAX_NOTES else []
    return notes[:_MAX_NOTES] + more


def _note(path: Path, name: str, is_texture: bool) -> str | None:
    file = _found(path.parent, name)
    if file is not None and not (is_texture and _is_unreadable(file)):
        return None
    why = "not an image that is read" if file is not None else "missing"
    if file is None and _leads_out(path.parent, name):
        why = "outside its folder, and not read"
    return f"{path}: {_shown(name)} is {why}: what it colours has its plain colour"


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in name[:_MAX_LETTERS])


def _is_unreadable(file: Path | io.BytesIO) -> bool:
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
        for texture in _TEXTURE.findall(_library(path.parent, library) or b""):
            yield _plain(texture.decode(errors="replace")), True


def _library(folder: Path, name: str) -> bytes | None:
    """The text of a material library; None where it is not found."""
    found = _found(folder, name)
    if found is None:
        return None
    with found.open("rb") as file:
        return plain_text(file.read(_LARGEST))


def _lacking(path: Path) -> Iterator[str]:
    """The materials that an OBJ uses and none of its libraries has, unless one of these is missing itself."""
    text = plain_text(path.read_bytes())
    names = [_plain(given.decode(errors="replace")) for given in _LIBRARY.findall(text)]
    libraries = [_library(path.parent, name) for name in names]
    for library in libraries:
        yield from _not_followed_of_obj(library or b"")
    if libraries and None not in libraries:
        known = {b" ".join(name.split()) for library in libraries for name in _MATERIAL.findall(library or b"")}
        for used in dict.fromkeys(name.strip() for name in _USED.findall(text)):
            if used not in known:
                material = _shown(used.decode(errors="replace"))
                yield f"material {material} is missing from {', '.join(map(_shown, names))}: what it colours is grey"


def _not_followed_of_obj(library: bytes) -> Iterator[str]:
    """What a material library says of colours, textures and opacity, and trimesh does not read."""
    for _, given in _COLOUR.findall(library):
        values = given.decode(errors="replace").split()
        if len(values) not in (1, 3, 4) or not all(math.isfinite(_number(value)) for value in values):
            yield f"Kd {_shown(' '.join(values))} is not R G B, and not read: what it colours is grey"
    for texture in _TEXTURE.findall(library):
        options, start = texture.decode(errors="replace").strip(), 0
        while option := _OPTION.match(options, start):
            start = option.end()
        for name, given in _PLACED.findall(options[:start]):
            values = {word if word in ("on", "off") else _number(word) for word in given.split()}
            if not values <= _NEUTRAL[name]:
                yield f"option -{name} of map_Kd is not read: its textures look different"
    for given in _EMISSION.findall(library):
        if any(_number(word) > 0 for word in given.decode(errors="replace").split()):
            yield "emission (Ke) is not read: what emits light looks darker"
    for name, value in _OPACITY.findall(library):
        if _number(value.decode()) != (1.0 if name == b"d" else 0.0):
            yield f"opacity ({name.decode()}) is not read: the mesh is opaque"


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")


def _of_gltf(path: Path) -> Iterator[tuple[str, bool]]:
    for image in _dictionaries(_gltf(path)[0], "images"):
        uri = image.get("uri")
        if isinstance(uri, str) and not uri.startswith("data:"):
            yield urllib.parse.unquote(uri), True


def _not_followed(path: Path) -> Iterator[str]:
    """What a glTF says of where its colours lie, and trimesh does not read; and images in it that are none."""
    content, binary = _gltf(path)
    for texture in _dictionaries(content, "textures"):
        image = _held_image(path, content, binary, texture["source"]) if "source" in texture else None
        if image is not None and _is_unreadable(io.BytesIO(image)):
            yield f"image {texture['source']} in it is not an image that is read: what it colours has its plain colour"
        if "source" not in texture and "KHR_texture_basisu" in _inner(texture, "extensions"):
            yield "KHR_texture_basisu is not read: what it colours has its plain colour"
    for material in _dictionaries(content, "materials"):
        colour = _inner(_inner(material, "pbrMetallicRoughness"), "baseColorTexture")
        colour = colour or _inner(_inner(_inner(material, "extensions"), _SPECULAR), "diffuseTexture")
        emitted = material.get("emissiveFactor")
        if isinstance(emitted, list) and any(isinstance(one, (int, float)) and one > 0 for one in emitted):
            yield "emissiveFactor is not read: what emits light looks darker"
        moved = _inner(_inner(colour, "extensions"), "KHR_texture_transform")
        if any(moved.get(name, same) != same for name, same in _IN_PLACE.items()):
            yield "KHR_texture_transform is not read: its textures lie elsewhere"
        if moved.get("texCoord", colour.get("texCoord", 0)) != 0:
            yield "texture coordinates other than the first are not read: its textures lie elsewhere"


def _held_image(path: Path, content: dict[str, Any], binary: bytes, index: Any) -> bytes | None:
    """An image that a glTF holds, or has in a buffer; empty where that is not there. None for one in its own file."""
    try:
        image = content["images"][index]
        if "uri" in image:
            return _of_data(image["uri"]) if image["uri"].startswith("data:") else None
        view = content["bufferViews"][image["bufferView"]]
        uri = content["buffers"][view["buffer"]].get("uri")
        if uri is not None:
            file = _found(path.parent, urllib.parse.unquote(uri))
            binary = _of_data(uri) if uri.startswith("data:") else file.read_bytes() if file is not None else b""
        begin = view.get("byteOffset", 0)
        return binary[begin : begin + view["byteLength"]]
    except (LookupError, TypeError, ValueError, AttributeError, OSError):  # somebody's mistake
        return b""


def _of_data(uri: str) -> bytes:
    """What is written out in a URI. ValueError for what is no base64."""
    form, _, text = uri.partition(",")
    return base64.b64decode(text) if ";base64" in form else urllib.parse.unquote_to_bytes(text)


def _gltf(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON of a glTF, and what a GLB holds besides."""
    data, binary = path.read_bytes(), b""
    if data[:4] == b"glTF":
        (size,) = struct.unpack_from("<I", data, 12)
        data, binary = data[20 : 20 + size], data[28 + size :]
    content = json.loads(data)
    return content if isinstance(content, dict) else {}, binary


def with_materials(path: Path) -> tuple[Path | io.BytesIO, str | None]:
    """A file for trimesh, and its type if it does not say: a glTF whose coloured parts all have materials.

    The colours of a part that has none come as bytes from trimesh, those of 16 bits without their upper half. Neither
    samplers nor colours of specular-glossiness come from trimesh: materials get diffuse colours as base colours, and
    names that say how their textures go on, for `wraps_of`.
    """
    if path.suffix.lower() not in (".glb", ".gltf"):
        return path, None
    content, binary = _gltf(path)
    parts = [part for mesh in _dictionaries(content, "meshes") for part in _dictionaries(mesh, "primitives")]
    bare = [part for part in parts if "COLOR_0" in _inner(part, "attributes") and "material" not in part]
    changed = _take_diffuse(content)
    changed |= _name_by_wraps(content)
    if not (bare or changed):
        return path, None
    if bare:
        materials = content.setdefault("materials", [])
        for part in bare:
            part["material"] = len(materials)
        materials.append({})
    text = json.dumps(content).encode()
    if path.suffix.lower() == ".gltf":
        return io.BytesIO(text), "gltf"
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    return io.BytesIO(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks), "glb"


def wraps_of(material: Any) -> tuple[Wrap, Wrap]:
    """How a material's texture goes on along u and v outside [0, 1], as the glTF it is from says."""
    given = _WRAP_NAME.fullmatch(str(getattr(material, "name", "")))
    return (_WRAPS[int(given[1])], _WRAPS[int(given[2])]) if given else ("repeat", "repeat")


def _take_diffuse(content: dict[str, Any]) -> bool:
    """Give materials of KHR_materials_pbrSpecularGlossiness alone their diffuse colours; whether there are any."""
    taken = False
    for material in _dictionaries(content, "materials"):
        extensions = _inner(material, "extensions")
        diffuse = _inner(extensions, _SPECULAR)
        if not diffuse or "pbrMetallicRoughness" in material:
            continue
        names = {"diffuseFactor": "baseColorFactor", "diffuseTexture": "baseColorTexture"}
        material["pbrMetallicRoughness"] = {names[name]: diffuse[name] for name in names if name in diffuse}
        del extensions[_SPECULAR]
        taken = True
    return taken


def _name_by_wraps(content: dict[str, Any]) -> bool:
    """Name the materials of a glTF by the samplers of their colours, where these do not repeat; whether any has one."""
    named = False
    for material in _dictionaries(content, "materials"):
        colour = _inner(_inner(material, "pbrMetallicRoughness"), "baseColorTexture")
        try:
            sampler = content["samplers"][content["textures"][colour["index"]]["sampler"]]
            wraps = sampler.get("wrapS", _REPEAT), sampler.get("wrapT", _REPEAT)
        except (LookupError, TypeError, AttributeError):  # it has none, or somebody's mistake
            continue
        if wraps != (_REPEAT, _REPEAT) and all(type(wrap) is int and wrap in _WRAPS for wrap in wraps):
            material["name"] = f"wraps {wraps[0]} {wraps[1]}"
            named = True
    return named


def _dictionaries(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Those in a list; what is of another type is somebody's mistake, which others tell."""
    found = content.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _inner(content: dict[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}
