"""OFF, as Geomview defines it, in text."""

from __future__ import annotations

import re

import numpy as np

from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons
from sdfgan.meshes.formats.text import COMMENT, floats, integers, plain_text, quoted

# What vertices have besides, in any order: MeshLab writes NCOFF. A small n is another letter: of any dimensions.
_HEAD = re.compile(rb"\s*((?:st|ST|c|C|n|N|4)*)(off|OFF|Off)(?![a-zA-Z])\s*((?i:binary)\b)?")


def read_off(data: bytes) -> Polygons:
    """One record a line; or spread over lines at will, where no face has a colour. Raises MeshFormatError."""
    text = b"\n".join(COMMENT.sub(b"", plain_text(data)).splitlines())
    head = _HEAD.match(text)
    has = _letters(head) if head else ""
    if head and ("4" in has or "n" in has or head[3]):
        raise MeshFormatError(f"{quoted(head[0])}: only OFF of three dimensions, in text, is read")
    text = text[head.end() :] if head else text  # which Geomview lets be missing, and some write beside the counts
    lines = [words for line in text.split(b"\n") if (words := line.split())]
    words = [word for line in lines for word in line]
    split = bool(lines) and len(lines[0]) == 1  # the counts too are spread over lines
    declared = words[:3] if split else lines[0][:3] if lines else []
    if len(declared) < 2 or not all(word.isdigit() for word in declared):
        raise MeshFormatError("must begin with OFF and the numbers of vertices, faces and edges")
    for name, word in zip(("vertices", "faces"), declared, strict=False):
        if len(word) > 18 or int(word) > len(data):  # each takes a byte at least
            raise MeshFormatError(f"claims {word.decode()} of {name}, but the file has {len(data)} bytes")
    vertices, faces = int(declared[0]), int(declared[1])
    if len(lines) == 1 + vertices + faces and len(lines[0]) <= 3:
        return _by_lines(lines[1 : 1 + vertices], lines[1 + vertices :])
    width = 3 + 2 * ("ST" in has) + 4 * ("C" in has) + 3 * ("N" in has)
    more = len(lines) - 1 - vertices - faces
    try:
        return _by_words(words[3:] if split or len(lines[0]) > 2 else words[2:], vertices, faces, width)
    except MeshFormatError:
        if more > 0 and not split:
            raise MeshFormatError(
                f"declares {vertices} vertices and {faces} faces, but {more} more lines follow"
            ) from None
        raise


def _letters(head: re.Match[bytes]) -> str:
    """ST, C, N, 4 in capitals; n where that is small beside a capital OFF."""
    letters = head[1].decode()
    return letters if head[2].isupper() and "n" in letters else letters.upper()


def _by_lines(places: list[list[bytes]], faces: list[list[bytes]]) -> Polygons:
    """Whatever follows the coordinates, or the corners of a face, is a normal or a colour."""
    for words in places:
        if len(words) < 3:
            raise MeshFormatError(f"{quoted(b' '.join(words))}: a vertex must have three coordinates")
    counts = integers([words[0] for words in faces], "numbers of corners")
    for count, words in zip(counts, faces, strict=True):
        if not 0 <= count < len(words):
            raise MeshFormatError(f"{quoted(b' '.join(words))}: a face must have as many corners as it declares")
    corners = [word for count, words in zip(counts, faces, strict=True) for word in words[1 : 1 + count]]
    vertices = floats([word for words in places for word in words[:3]], "coordinates").reshape(-1, 3)
    return Polygons(vertices, integers(corners, "corners of faces"), counts)


def _by_words(words: list[bytes], vertices: int, faces: int, stride: int) -> Polygons:
    places = floats(words[: vertices * stride], "coordinates")
    position, counts, corners = vertices * stride, list[int](), list[bytes]()
    while len(counts) < faces and position < len(words):
        count = int(integers(words[position : position + 1], "numbers of corners")[0])
        if not 2 < count < len(words) - position:  # of fewer corners it is more likely a colour
            break
        corners += words[position + 1 : position + 1 + count]
        counts.append(count)
        position += 1 + count
    if len(places) < vertices * stride or len(counts) < faces or position < len(words):
        arrived = f"{len(places) // stride} vertices and {len(counts)} faces"
        rest = f" and {len(words) - position} words more" if position < len(words) else ""
        raise MeshFormatError(f"declares {vertices} vertices and {faces} faces, but holds {arrived}{rest}")
    return Polygons(
        places.reshape(-1, stride)[:, :3], integers(corners, "corners of faces"), np.array(counts, np.int64)
    )
