"""Mesh files with random damage: each is read, or refused in one line; nothing fails in another way, or hangs."""

from __future__ import annotations

import random
import re
import time
import warnings
from pathlib import Path

import pytest
import trimesh

from polygon_files import SOLIDS, binary_stl, obj, off, ply, text_stl
from sdfgan.errors import UserError
from sdfgan.sdf import read_mesh

WORDS = [b"0", b"-1", b"99999999999", b"nan", b"1e999", b"4294967295", b"null", b"[]", b"{}", b'"x"', b"-0.5", b"\n"]


def seeds() -> list[tuple[str, bytes]]:
    found = []
    for name in ("u", "keyhole", "comb"):
        solid = SOLIDS[name][0]
        found += [("obj", obj(solid)), ("obj", obj(solid, relative=True)), ("off", off(solid)), ("ply", ply(solid))]
        found += [("ply", ply(solid, f"binary_{order}_endian", flags=True)) for order in ("little", "big")]
    box = SOLIDS["box"][0]
    found += [("stl", binary_stl(box)), ("stl", text_stl(box).encode())]
    scene = trimesh.Scene([trimesh.creation.box((1, 2, 3))])
    scene.add_geometry(trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([4, 0, 0]))
    return [*found, *[("glb", scene.export(file_type="glb"))] * 4]


def damaged(data: bytes, choice: random.Random) -> bytes:
    data = bytearray(data)
    for _ in range(choice.randint(1, 4)):
        i = choice.randrange(len(data)) if data else 0
        kind = choice.randrange(6)
        if kind == 0 and data:
            data[i] = choice.randrange(256)
        elif kind == 1:
            del data[i : i + choice.randint(1, 20)]
        elif kind == 2:
            data[i:i] = data[i : i + choice.randint(1, 40)]
        elif kind == 3:
            data[i : i + choice.randint(0, 3)] = choice.choice(WORDS)
        elif kind == 4 and choice.random() < 0.3:
            del data[i:]
        elif numbers := [found.span() for found in re.finditer(rb"-?\d+", bytes(data[:2000]))]:
            begin, end = choice.choice(numbers)
            data[begin:end] = choice.choice(WORDS)
    return bytes(data)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutants(tmp_path: Path, count: int) -> None:
    choice, whole = random.Random(count), seeds()
    read = 0
    for _ in range(count):
        suffix, data = choice.choice(whole)
        path = tmp_path / f"mutant.{suffix}"
        path.write_bytes(damaged(data, choice))
        begin = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read_mesh(path)
                read += 1
            except UserError as error:
                assert str(error).startswith(str(path)) and "\n" not in str(error)
        assert time.process_time() - begin < 5, path
    assert {file.name.partition(".")[0] for file in tmp_path.iterdir()} == {"mutant"} and 0 < read < count
