"""PLY (Turk, "The PLY Polygon File Format", 1994): in text, and binary of either byte order.

trimesh and plyfile were weighed: the first refuses binary polygons of mixed sizes, which is what Blender writes, the
second is under the GPL.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np

from sdfgan.meshes.formats.polygons import MeshFormatError, Polygons, strip
from sdfgan.meshes.formats.text import floats, integers, plain_text, quoted

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "int64": "i8", "uint64": "u8",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8", "float16": "f2",
}  # fmt: skip
_STRUCTS = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "i8": "q", "u8": "Q"}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER = re.compile(rb"\s*ply[ \t]*(\r\n|\n|\r)(.*?)(?<=[\r\n])[ \t]*end_header[ \t]*(?:\1|\n|\Z)", re.S)
_MAX_PADDING = 12  # bytes; a triangle in any type is longer, or its index too short to matter


@dataclass
class _Property:
    name: str
    type: str  # of numpy
    count_type: str | None = None  # of a list


@dataclass
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    def find(self, *names: str) -> int:
        """The place of the property of one of these names, or -1."""
        return next((i for i, found in enumerate(self.properties) if found.name in names), -1)


@dataclass
class _Lists:
    values: np.ndarray  # [sum(counts)] int64
    counts: np.ndarray  # [N] int64


def read_ply(data: bytes) -> Polygons:
    """Faces and triangle strips. Raises MeshFormatError."""
    text = plain_text(data)
    head = _HEADER.match(text)
    if head is None:
        raise MeshFormatError("not a PLY file: no header from ply to end_header")
    form, elements = _elements(head[2], len(data))
    if all(element.name != "vertex" for element in elements):
        raise MeshFormatError(f"its header declares no vertex, but {[element.name for element in elements]}")
    body = text[head.end() :]
    source = _Text(body) if form == "ascii" else _Binary(body, _ORDERS[form])
    vertices, faces = np.zeros((0, 3)), _Lists(np.zeros(0, np.int64), np.zeros(0, np.int64))
    strips, ignored = None, []
    for element in elements:
        if element.name == "vertex":
            axes = [element.find(axis) for axis in "xyz"]
            if min(axes) < 0 or any(p.count_type for p in (element.properties[i] for i in axes)):
                raise MeshFormatError("its vertices have no x, y and z")
            vertices = source.scalars(element, axes)
        elif element.name in ("face", "tristrips") and element.count:
            lists = source.lists(element, _index_list(element))
            faces, strips = (lists, strips) if element.name == "face" else (faces, lists)
        else:
            source.lists(element, -1)
            ignored += [f"{element.count} {element.name}"] if element.count and element.name != "edge" else []
    if left := source.left():
        raise MeshFormatError(f"{left} follow after all that its header declares")
    if strips is not None:
        faces = _with_strips(faces, strips)
    return Polygons(vertices, faces.values, faces.counts, tuple(ignored))


def _elements(header: bytes, size: int) -> tuple[str, list[_Element]]:
    form, elements = "", list[_Element]()
    for line in header.splitlines():
        words = line.decode("ascii", "replace").split()
        match words:
            case [] | ["comment" | "obj_info", *_]:
                pass
            case ["format", ("ascii" | "binary_little_endian" | "binary_big_endian") as form, "1.0"]:
                pass
            case ["element", name, count] if count.isdecimal():
                if len(count) > 18 or int(count) > size:  # each takes a byte at least
                    raise MeshFormatError(f"claims {count[:18]} of {name}, but the file has {size} bytes")
                elements.append(_Element(name, int(count)))
            case ["property", kind, name] if elements and kind in _TYPES:
                elements[-1].properties.append(_Property(name, _TYPES[kind]))
            case ["property", "list", length, kind, name] if elements and length in _TYPES and kind in _TYPES:
                if _TYPES[length][0] == "f":
                    raise MeshFormatError(f"{quoted(line)}: the length of a list must be an integer")
                elements[-1].properties.append(_Property(name, _TYPES[kind], _TYPES[length]))
            case _:
                raise MeshFormatError(f"{quoted(line)}: not a line of a PLY header")
    if not form:
        raise MeshFormatError("its header names no format (ascii, binary_little_endian, binary_big_endian)")
    names = [element.name for element in elements]
    if len(set(names)) < len(names):
        raise MeshFormatError("its header declares an element twice")
    return form, elements


def _index_list(element: _Element) -> int:
    """The property that holds the corners."""
    found = element.find("vertex_indices", "vertex_index")
    lists = [i for i, held in enumerate(element.properties) if held.count_type]
    lists = [i for i in lists if element.properties[i].type[0] != "f"]
    if found < 0 and len(lists) == 1:
        found = lists[0]
    if found < 0 or not element.properties[found].count_type or element.properties[found].type[0] == "f":
        raise MeshFormatError(f"its element {element.name} has no list of integers vertex_indices")
    return found


def _with_strips(faces: _Lists, strips: _Lists) -> _Lists:
    """Strips end at -1."""
    values = np.insert(strips.values, np.cumsum(strips.counts), -1)  # and at the end of their list
    pieces = np.split(values, np.flatnonzero(values == -1) + 1)
    triangles = np.concatenate([strip(piece[:-1]) for piece in pieces if len(piece) > 3] or [np.zeros((0, 3), int)])
    counts = np.concatenate([faces.counts, np.full(len(triangles), 3)])
    return _Lists(np.concatenate([faces.values, triangles.reshape(-1)]), counts)


def _as_wanted(wanted: list[int]) -> np.ndarray:
    """Where each of the wanted properties is among them in the order of the file, in which rows are walked."""
    return np.argsort(np.argsort(wanted))


class _Text:
    """Numbers one after another, however they are spread over lines."""

    def __init__(self, body: bytes) -> None:
        self._words = body.split()
        self._position = 0

    def scalars(self, element: _Element, wanted: list[int]) -> np.ndarray:
        """[N, wanted] float64."""
        if any(p.count_type for p in element.properties):
            rows = self._walk(element, -1, wanted)[2]
            return floats(rows, "coordinates").reshape(-1, len(wanted))[:, _as_wanted(wanted)]
        width = len(element.properties)
        words = self._words[self._position : self._position + width * element.count]
        if len(words) < width * element.count:
            raise MeshFormatError(_short(element, len(words) // width))
        self._position += len(words)
        return np.stack([floats(words[i::width], "coordinates") for i in wanted], 1)

    def lists(self, element: _Element, wanted: int) -> _Lists:
        """What the list `wanted` of each row holds; -1: nothing."""
        counts, words, _ = self._walk(element, wanted, [])
        return _Lists(integers(words, "corners of faces"), np.array(counts, np.int64))

    def _walk(self, element: _Element, wanted: int, scalars: list[int]) -> tuple[list[int], list[bytes], list[bytes]]:
        words, position = self._words, self._position
        counts, items, rows = list[int](), list[bytes](), list[bytes]()
        for row in range(element.count):
            for i, held in enumerate(element.properties):
                length = 1
                if held.count_type:
                    word = words[position] if position < len(words) else b"-1"
                    length = int(word) if word.isdigit() else -1
                    position += 1
                end = position + length
                if length < 0 or end > len(words):
                    raise MeshFormatError(_short(element, row))
                if i == wanted:
                    counts.append(length)
                    items += words[position:end]
                elif i in scalars:
                    rows += words[position:end]
                position = end
        self._position = position
        return counts, items, rows

    def left(self) -> str:
        """What nothing declared, in words; empty where there is nothing."""
        return f"{len(self._words) - self._position} words" if self._position < len(self._words) else ""


class _Binary:
    """Rows of bytes."""

    def __init__(self, body: bytes, order: str) -> None:
        self._body, self._order = body, order
        self._position = 0

    def scalars(self, element: _Element, wanted: list[int]) -> np.ndarray:
        """[N, wanted] float64."""
        if any(p.count_type for p in element.properties):
            starts = self._walk(element, wanted)
            kinds = [self._order + element.properties[i].type for i in sorted(wanted)]
            columns = [self._gather(starts[:, k], kind, None) for k, kind in enumerate(kinds)]
            return np.stack(columns, 1).astype(np.float64)[:, _as_wanted(wanted)]
        rows = self._rows(element, [None] * len(element.properties))
        if rows is None:
            size = max(1, self._dtype(element, [None] * len(element.properties)).itemsize)
            raise MeshFormatError(_short(element, (len(self._body) - self._position) // size))
        return np.stack([rows[f"{i}"].astype(np.float64) for i in wanted], 1)

    def lists(self, element: _Element, wanted: int) -> _Lists:
        """What the list `wanted` of each row holds; -1: nothing."""
        nothing = np.zeros(0, np.int64)
        lengths = self._first_lengths(element)
        begin = self._position
        rows = self._rows(element, lengths) if lengths else None
        if rows is not None and lengths:
            same = [(rows[f"n{i}"] == n).all() for i, n in enumerate(lengths) if n is not None]
            if all(same):
                if wanted < 0:
                    return _Lists(nothing, nothing)
                values = rows[f"{wanted}"].astype(np.int64)
                return _Lists(values.reshape(-1), np.full(len(rows), lengths[wanted], np.int64))
            self._position = begin
        if wanted < 0:
            self._walk(element, [])
            return _Lists(nothing, nothing)
        starts = self._walk(element, [wanted])[:, 0]
        held = element.properties[wanted]
        width = np.dtype(held.count_type).itemsize
        counts = self._gather(starts, self._order + str(held.count_type), None).astype(np.int64)
        return _Lists(self._gather(starts + width, self._order + held.type, counts).astype(np.int64), counts)

    def _dtype(self, element: _Element, lengths: list[int | None]) -> np.dtype:
        """Of rows whose lists have these lengths."""
        fields: list[tuple] = []
        for i, (held, length) in enumerate(zip(element.properties, lengths, strict=True)):
            if length is not None:
                fields.append((f"n{i}", self._order + str(held.count_type)))
            fields.append((f"{i}", self._order + held.type, () if length is None else (length,)))
        return np.dtype(fields)

    def _rows(self, element: _Element, lengths: list[int | None]) -> np.ndarray | None:
        """All rows, if they have these lengths; None if the file is too short for them."""
        kind = self._dtype(element, lengths)
        end = self._position + kind.itemsize * element.count
        if end > len(self._body):
            return None
        rows = np.frombuffer(self._body, kind, element.count, self._position)
        self._position = end
        return rows

    def _first_lengths(self, element: _Element) -> list[int | None]:
        """Of the lists of the first row; empty where there is none."""
        position, lengths = self._position, list[int | None]()
        for held in element.properties:
            if not held.count_type:
                lengths.append(None)
                position += np.dtype(held.type).itemsize
                continue
            kind = np.dtype(self._order + held.count_type)
            if position + kind.itemsize > len(self._body):
                return []
            length = int(np.frombuffer(self._body, kind, 1, position)[0])
            position += kind.itemsize + length * np.dtype(held.type).itemsize
            if length < 0 or position > len(self._body):
                return []
            lengths.append(length)
        return lengths

    def _walk(self, element: _Element, wanted: list[int]) -> np.ndarray:
        """[N, wanted] where these properties begin, a list with its length; row by row, for lists of mixed lengths."""
        body, position, end = self._body, self._position, len(self._body)
        plan = [
            (
                i in wanted,
                struct.Struct(self._order + _STRUCTS[held.count_type]).unpack_from if held.count_type else None,
                np.dtype(held.count_type).itemsize if held.count_type else 0,
                np.dtype(held.type).itemsize,
            )
            for i, held in enumerate(element.properties)
        ]
        starts = list[int]()
        for row in range(element.count):
            for chosen, unpack, before, size in plan:
                if chosen:
                    starts.append(position)
                if unpack is None:
                    position += size
                    continue
                length = unpack(body, position)[0] if position + before <= end else -1
                if length < 0:
                    raise MeshFormatError(_short(element, row))
                position += before + length * size
            if position > end:
                raise MeshFormatError(_short(element, row))
        self._position = position
        return np.array(starts, np.int64).reshape(element.count, len(wanted))

    def _gather(self, starts: np.ndarray, kind: str, counts: np.ndarray | None) -> np.ndarray:
        """Values of one type: one at each start, or counts[i] from starts[i] on."""
        size = np.dtype(kind).itemsize
        if counts is not None:
            within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            starts = np.repeat(starts, counts) + size * within
        body = np.frombuffer(self._body, np.uint8)
        return body[starts[:, None] + np.arange(size)].reshape(-1).view(kind)

    def left(self) -> str:
        """What nothing declared, in words; empty where it is padding."""
        rest = self._body[self._position :]
        return f"{len(rest)} bytes" if len(rest) > _MAX_PADDING and rest.strip(b"\0 \t\r\n") else ""


def _short(element: _Element, arrived: int) -> str:
    return f"declares {element.count} of {element.name}, but ends after {arrived}"
