"""Wavefront OBJ: vertices and polygons, one record a line."""

from __future__ import annotations

import re

import numpy as np

from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons
from sdfgan.meshes.formats.text import COMMENT, floats, integers, plain_text, quoted

# A line of numbers that goes on after a backslash; names and comments may end with one (Windows' folders).
_BREAK = rb"\\[ \t]*\n"
_CONTINUED = re.compile(
    rb"(?m)^[ \t]*(?:v|vn|vt|vp|f|fo|l|p|curv|curv2|surf)(?=[ \t\\])[^#\n]*(?:" + _BREAK + rb"[^#\n]*)+"
)
_CURVED = {b"surf", b"bsp", b"bzp", b"cdc", b"cdp", b"res"}
_COUNTED = {b"l": "lines", b"p": "points"}


def read_obj(data: bytes) -> Polygons:
    """Indices count from 1, or from where the line stands backwards. Raises MeshFormatError."""
    text = plain_text(data)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\\" in text:
        text = _CONTINUED.sub(lambda record: re.sub(_BREAK, b" ", record[0]), text)
    places: list[bytes] = []
    corners: list[bytes] = []
    counts: list[int] = []
    seen: list[int] = []  # vertices before each face
    lines: list[bytes] = []  # of faces
    others = dict.fromkeys(_COUNTED.values(), 0)
    for line in text.split(b"\n"):
        words = (COMMENT.sub(b"", line) if b"#" in line else line).split()
        if not words:
            continue
        key = words[0]
        if key == b"v":
            if len(words) < 4:
                raise MeshFormatError(f"{quoted(line)}: a vertex must have three coordinates")
            places += words[1:4]
        elif key in (b"f", b"fo"):
            if len(words) < 2:
                raise MeshFormatError(f"{quoted(line)}: a face must have corners")
            corners += [word.partition(b"/")[0] for word in words[1:]]
            counts.append(len(words) - 1)
            seen.append(len(places) // 3)
            lines.append(line)
        elif key in _COUNTED:
            others[_COUNTED[key]] += 1
        elif key in _CURVED:
            raise MeshFormatError(f"{quoted(line)}: curved surfaces are not read, only polygons")
        elif key == b"call":
            raise MeshFormatError(f"{quoted(line)}: no other file is read")
    given = integers(corners, "corners of faces")
    size = np.array(counts, np.int64)
    index = np.where(given < 0, given + np.repeat(np.array(seen, np.int64), size), given - 1)
    bad = (given == 0) | (index < 0) | (index >= len(places) // 3)
    if bad.any():
        line = lines[int(np.searchsorted(np.cumsum(size), int(bad.argmax()), side="right"))]
        why = "indices count from 1" if given[bad.argmax()] == 0 else f"there are {len(places) // 3}"
        raise MeshFormatError(f"{quoted(line)}: a face names a vertex that does not exist; {why}")
    ignored = tuple(f"{count} {name}" for name, count in others.items() if count)
    return Polygons(floats(places, "coordinates").reshape(-1, 3), index, size, ignored)
