"""STL, binary and in text: triangles, each with corners of its own."""

from __future__ import annotations

import re
import struct

import numpy as np

from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons, triangles_of
from sdfgan.meshes.formats.text import COMMENT, floats, plain_text, quoted

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])  # 50 bytes
_COMMENT = re.compile(COMMENT.pattern + rb"|(?://|;)[^\r\n]*", re.I)
_FACET = re.compile(
    rb"\bfacet\s+(?:normal\s+\S+\s+\S+\s+\S+\s+)?outer\s+loop\s+((?:vertex\s+\S+\s+\S+\s+\S+\s+)+)end\s*loop\s+end\s*facet\b",
    re.I,
)


def read_stl(data: bytes) -> Polygons:
    """What is as long as its count says is binary, whatever it begins with. Raises MeshFormatError."""
    count = struct.unpack("<I", data[80:84])[0] if len(data) >= 84 else 0
    needed = 84 + 50 * count
    text = plain_text(data).rstrip(b"\0")
    if len(data) != needed and b"\0" not in text[:4096] and re.search(rb"^\s*solid|\bfacet\s", text, re.I):
        return _read_text(text)
    if len(data) < needed:
        raise MeshFormatError(f"a truncated STL: {count} triangles take {needed} bytes, the file has {len(data)}")
    records = np.frombuffer(data, _RECORD, count, 84)
    rest = data[needed:]
    if more := max(_triangles_in(rest), _triangles_in(rest[84:])):  # as they are, or as a second file
        raise MeshFormatError(f"declares {count} triangles, but at least {more} more follow")
    return triangles_of(records["corners"].reshape(-1, 3), np.arange(3 * count))


def _triangles_in(rest: bytes) -> int:
    """How many whole triangles there are in bytes that should be none; padding and notes have no unit normals."""
    records = np.frombuffer(rest, _RECORD, len(rest) // 50)
    with np.errstate(all="ignore"):
        length = np.linalg.norm(records["normal"].astype(np.float64), axis=1)
        a, b, c = records["corners"].astype(np.float64).transpose(1, 0, 2)
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        unit = np.isclose(length, 1, atol=1e-3) | (length == 0)
        return int((unit & (area > 0) & np.isfinite(area)).sum())


def _read_text(text: bytes) -> Polygons:
    text = _COMMENT.sub(b"", text.replace(b"\r", b"\n"))
    pieces = _FACET.split(text)
    loops, frame = pieces[1::2], b"\n".join(pieces[::2])  # corners of facets, the lines of solids
    rest = re.sub(rb"(?im)^[ \t]*(end\s*)?solid\b[^\r\n]*", b"", frame).strip()
    if rest:
        raise MeshFormatError(f"after {len(loops)} facets, {quoted(rest[:80])} is not a facet of a text STL")
    opened, closed = (len(re.findall(rb"(?im)^[ \t]*" + word, frame)) for word in (rb"solid\b", rb"end\s*solid\b"))
    if opened > closed:
        raise MeshFormatError(f"a truncated STL: no endsolid after {len(loops)} facets")
    counts = np.array([len(loop.split()) // 4 for loop in loops], np.int64)
    words = b" ".join(loops).split()  # vertex x y z
    vertices = np.stack([floats(words[i::4], "coordinates") for i in (1, 2, 3)], 1)
    return Polygons(vertices, np.arange(len(vertices)), counts)
