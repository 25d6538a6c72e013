"""Sets of shapes against sets of others, where the answers are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from sdfgan.errors import UserError
from sdfgan.gan import shape_sets
from sdfgan.gan.shape_sets import Generated, TrueShapes


def wedge(length: float) -> trimesh.Trimesh:
    """A body that no turn but a whole one maps to itself, with its nose on +z and its fin on +y."""
    parts = [trimesh.creation.box((0.3, 0.2, length)), trimesh.creation.box((0.6, 0.1, 0.1))]
    parts.append(trimesh.creation.box((0.1, 0.5, 0.1)))
    parts[1].apply_translation((0.3, 0, -0.2))
    parts[2].apply_translation((0, 0.25, -length / 2))
    return trimesh.util.concatenate(parts)


def rotation(degrees: float, axis: tuple[int, int, int] = (0, 1, 0)) -> np.ndarray:
    return trimesh.transformations.rotation_matrix(math.radians(degrees), axis)


LENGTHS = (0.8, 1.0, 1.3, 1.6)


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Each of two liveries."""
    for number, length in enumerate(LENGTHS):
        for livery in (0, 1):
            wedge(length).export(tmp_path / f"{number}--{livery}.ply")
    return tmp_path


def test_objects_are_read_once_and_placed(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = shape_sets.of_meshes(objects)
    assert [file.name for file in found.files] == [f"{n}--0.ply" for n in range(len(LENGTHS))]
    assert found.clouds.shape == (len(LENGTHS), 1024, 3) and 0.8 < found.clouds.norm(dim=-1).max() <= 0.9 + 1e-6
    assert found.clouds[0, :, 1].median() < -0.2, "the fin is up"
    standing = tmp_path_factory.mktemp("standing")
    for file in found.files:  # the file's z is up: (x, y, z) here is (x, -z, y) there
        trimesh.load(file).apply_transform(rotation(90, (1, 0, 0))).export(standing / file.name)
    assert torch.allclose(shape_sets.of_meshes(standing, z_up=True).clouds, found.clouds, atol=1e-5)
    assert len(shape_sets.of_meshes(objects, most=2).clouds) == 2


def test_one_object_is_no_set(tmp_path: Path) -> None:
    for livery in (0, 1):
        wedge(1).export(tmp_path / f"plane--{livery}.ply")
    with pytest.raises(UserError, match="1 object: shapes are compared in sets of at least two"):
        shape_sets.of_meshes(tmp_path)


@pytest.mark.parametrize("degrees", [0, 47, 213])
def test_the_turn_of_a_class_is_undone(objects: Path, degrees: int) -> None:
    true = shape_sets.of_meshes(objects)
    meshes = [trimesh.Trimesh(mesh.vertices, mesh.faces) for mesh in map(trimesh.load, true.files)]
    turned = [mesh.copy().apply_transform(rotation(-degrees)) for mesh in meshes]
    clouds = shape_sets.turned(true.clouds, -math.radians(degrees))
    scores = shape_sets.set_scores(Generated(turned, clouds, 5), true, true, true)
    assert abs((scores["turned"] - degrees + 180) % 360 - 180) <= 1
    assert scores["mmd"] < 0.02 and scores["coverage"] == 1 and scores["novelty"] < 0.02
    assert scores["reversed"] == 0 and scores["either_mmd"] == scores["mmd"]
    assert scores["shapeless"] == pytest.approx(1 / 5) and scores["floor_mmd"] == scores["floor_novelty"] == 0


def test_shapes_that_face_the_other_way_are_counted(objects: Path) -> None:
    true = shape_sets.of_meshes(objects)
    some = len(true.clouds) // 4 or 1
    clouds = torch.cat([shape_sets.turned(true.clouds[:some], math.pi), true.clouds[some:]])
    meshes = [trimesh.Trimesh(mesh.vertices, mesh.faces) for mesh in map(trimesh.load, true.files)]
    scores = shape_sets.set_scores(Generated(meshes, clouds, len(meshes)), true)
    assert scores["turned"] in (0, 359, 1) and scores["reversed"] == some / len(clouds)
    assert scores["either_mmd"] < 0.01 < scores["mmd"] and scores["either_coverage"] == 1 > scores["coverage"]


def test_pieces_are_counted(objects: Path) -> None:
    true = shape_sets.of_meshes(objects)
    ball = trimesh.creation.icosphere(2)
    two = trimesh.util.concatenate([ball, ball.copy().apply_translation((3, 0, 0))])
    scores = shape_sets.set_scores(Generated([ball, ball, two, ball], true.clouds, 4), true)
    assert scores["connected"] == scores["one_body"] == 0.75
    assert not {"novelty", "floor_mmd", "floor_connected"} & scores.keys()
    speck, hollow = ball.copy().apply_scale(0.2).apply_translation((3, 0, 0)), ball.copy().apply_scale(0.9)
    hollow.invert()  # volumes of .008 and -.73
    shapes = [trimesh.util.concatenate([ball, part]) for part in (speck, hollow)]
    scores = shape_sets.set_scores(Generated([*shapes, two, ball], true.clouds, 4), true)
    assert scores["connected"] == 0.25 and scores["one_body"] == 0.75


def test_pieces_of_the_truth_are_those_of_the_same_grid(tmp_path: Path) -> None:
    bars = [trimesh.creation.box((length, 0.2, 0.2)) for length in (1, 0.5, 0.5)]
    for bar, x in zip(bars[1:], (0.755, -1.05), strict=True):
        bar.apply_translation((x, 0, 0))  # gaps of .4 cells, between two points of the grid, and of 22
    triangle = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    for name, parts in {"close": bars[:2], "apart": bars[::2], "sheet": [triangle]}.items():
        trimesh.util.concatenate(parts).export(tmp_path / f"{name}.ply")
    assert shape_sets.of_meshes(tmp_path).pieces is None
    true = shape_sets.of_meshes(tmp_path, with_pieces=True)
    assert true.pieces == pytest.approx({"connected": 2 / 3, "one_body": 2 / 3})
    scores = shape_sets.set_scores(Generated([], torch.empty(0, 1024, 3), 7), true)
    assert scores["floor_connected"] == true.pieces["connected"] and scores["floor_one_body"] == 2 / 3
    built = shape_sets.built_in(3, "chairs")
    assert built.pieces == {"connected": 1, "one_body": 1}


def test_a_generator_without_shapes(objects: Path) -> None:
    true = shape_sets.of_meshes(objects)
    scores = shape_sets.set_scores(Generated([], torch.empty(0, 1024, 3), 7), true, true)
    assert scores["shapeless"] == 1 and "mmd" not in scores and scores["floor_coverage"] == 1


def test_generated_shapes_stand_above_the_nearest(objects: Path) -> None:
    true = shape_sets.of_meshes(objects)
    meshes = [trimesh.load(true.files[i]).copy().apply_scale(0.9) for i in (2, 0)]
    made = Generated(meshes, true.clouds[[2, 0]], 2)
    picture = shape_sets.nearest_sheet(made, TrueShapes(true.clouds, true.files), 48)
    assert picture.shape == (3, 96, 96) and picture.min() < 0.9 and picture[:, 0, 0].tolist() == [1, 1, 1]
    above, below = (part.mean(0) < 0.99 for part in (picture[:, :48], picture[:, 48:]))
    assert (above & below).sum() > 0.5 * above.sum() > 0, "the same objects from the same side"
