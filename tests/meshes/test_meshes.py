"""Meshes of solids with known volumes, and what comes back from files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from sdfgan.errors import UserError
from sdfgan.fields import Box, Field, FilmSirenSDF, Plane, Sphere, Torus
from sdfgan.fields.function import FunctionField
from sdfgan.meshes import export_mesh, marching_cubes
from sdfgan.sdf import read_mesh


class Painted(Field):
    """A sphere whose colour is its position, with a condition that is its radius; counts its evaluations."""

    evaluated = 0

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        self.evaluated += len(points)
        return points.norm(dim=-1) - condition[image]

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return (points + 1) / 2


@pytest.mark.parametrize(
    ("field", "volume"),
    [
        (Sphere(radius=0.7), 4 / 3 * math.pi * 0.7**3),
        (Box((0.5, 0.3, 0.6)), 8 * 0.5 * 0.3 * 0.6),  # its faces lie on grid points
        (Box((0.513, 0.377, 0.6)), 8 * 0.513 * 0.377 * 0.6),
        (Torus(0.6, 0.2), 2 * math.pi**2 * 0.6 * 0.2**2),
        (Sphere(radius=0.3).translated((0.6, -0.5, 0.4)), 4 / 3 * math.pi * 0.3**3),
    ],
    ids=["sphere", "box", "box-off-grid", "torus", "moved"],
)
def test_volume(field: Field, volume: float) -> None:
    mesh = marching_cubes(field, resolution=100)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(volume, rel=0.01)  # positive: faces look outwards
    points = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32)
    assert field.sdf(points).abs().max() < 0.5 * 2 / 100


def test_what_the_box_cuts_is_closed() -> None:
    mesh = marching_cubes(Plane((0.0, 1.0, 0.0), 0.25), resolution=40, bound=0.8)
    assert mesh.is_watertight and mesh.volume > 0
    assert np.abs(mesh.vertices).max() == pytest.approx(0.8, abs=1e-4)
    assert mesh.bounds[1][1] - mesh.bounds[0][1] < 1.5


def test_condition_colours_and_skipped_blocks() -> None:
    field, calls = Painted(), []
    mesh = marching_cubes(field, torch.tensor([0.5]), 96, on_progress=lambda done, total: calls.append((done, total)))
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.01)
    expected = np.round((np.asarray(mesh.vertices) + 1) / 2 * 255)
    assert mesh.visual.vertex_colors.dtype == np.uint8 and (mesh.visual.vertex_colors[:, 3] == 255).all()
    assert np.abs(mesh.visual.vertex_colors[:, :3] - expected).max() <= 1
    assert field.evaluated < 0.5 * 97**3
    assert calls[-1][0] == calls[-1][1]


def test_skipping_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    field = Box((0.4, 0.3, 0.5)).rotated(axis=(1.0, 2.0, 0.5), angle=0.7) - Sphere(radius=0.35)
    mesh = marching_cubes(field, resolution=50)
    monkeypatch.setattr("sdfgan.meshes.isosurface._SAFETY", 100.0)
    dense = marching_cubes(field, resolution=50)
    assert np.array_equal(mesh.vertices, dense.vertices) and np.array_equal(mesh.faces, dense.faces)


def test_a_function_is_not_asked_for_no_points(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ball(points: torch.Tensor) -> torch.Tensor:
        asked.append(len(points))
        return points.norm(dim=1) - 0.2

    whole = marching_cubes(FunctionField(ball), resolution=50)
    monkeypatch.setattr("sdfgan.meshes.isosurface._BLOCKS_AT_ONCE", 1)
    mesh = marching_cubes(FunctionField(ball), resolution=50)
    assert min(asked) > 0 and np.array_equal(mesh.vertices, whole.vertices)


def test_learned_field() -> None:
    torch.manual_seed(0)
    field = FilmSirenSDF(width=16, latent_size=4, mapping_width=16)
    mesh = marching_cubes(field, field.condition(torch.randn(1, 4)), 24)
    assert mesh.is_watertight and mesh.volume > 0


def test_no_surface() -> None:
    with pytest.raises(UserError, match="no surface: all of the box from -1 to 1 is outside"):
        marching_cubes(Sphere(radius=0.2).translated((5.0, 0.0, 0.0)), resolution=16)
    with pytest.raises(UserError, match="no surface: all of the box from -1 to 1 is inside"):
        marching_cubes(Sphere(radius=9.0), resolution=16)
    with pytest.raises(UserError, match="not finite"):
        marching_cubes(Painted(), torch.tensor([math.nan]), resolution=16)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="marching_cubes: resolution must be at least 1, got 0"):
        marching_cubes(Sphere(radius=0.5), resolution=0)
    with pytest.raises(ValueError, match="marching_cubes: bound must be positive, got -1"):
        marching_cubes(Sphere(radius=0.5), bound=-1)


def test_others_write_our_glb_again(tmp_path: Path) -> None:
    """As reports do, with its colours: trimesh knows those of vertices with a material as bytes only."""
    export_mesh(marching_cubes(Painted(), torch.tensor([0.6]), 20), tmp_path / "a.glb")
    trimesh.load_scene(tmp_path / "a.glb", process=False).export(tmp_path / "b.glb")
    assert np.array_equal(shown_colours(tmp_path / "a.glb"), shown_colours(tmp_path / "b.glb"))


def shown_colours(path: Path) -> np.ndarray:
    """[V, 3] in 0..255 of a file's vertices as a screen shows them; those of glTF are in linear light."""
    (mesh,) = trimesh.load_scene(path, process=False).geometry.values()
    if path.suffix != ".glb":
        return mesh.visual.vertex_colors[:, :3]
    linear = mesh.visual.vertex_attributes["color"][:, :3] / 255
    assert mesh.visual.material.metallicFactor == 0, "a metal is black where nothing is reflected"
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply", ".PLY"])
def test_export_keeps_places_and_colours(tmp_path: Path, suffix: str) -> None:
    mesh = marching_cubes(Painted(), torch.tensor([0.6]), 20)
    path = tmp_path / "new" / f"shape{suffix}"
    export_mesh(mesh, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing but the mesh is left"
    again = trimesh.load(path, force="mesh", process=False)
    assert np.allclose(again.bounds, mesh.bounds, atol=1e-6)
    assert again.volume == pytest.approx(mesh.volume, rel=1e-4)
    expected = (np.asarray(again.vertices) + 1) / 2 * 255
    error = np.abs(shown_colours(path) - expected)
    assert error.max() <= 7 and error[expected > 100].max() <= 1.5 if suffix == ".glb" else error.max() <= 1


def test_colours_of_faces_are_in_linear_light_too(tmp_path: Path) -> None:
    mesh = trimesh.creation.box()
    mesh.visual.face_colors = [128, 200, 250, 255]
    export_mesh(mesh, tmp_path / "box.glb")
    assert np.abs(shown_colours(tmp_path / "box.glb") - [128, 200, 250]).max() <= 1.5


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_export_far_from_the_origin(tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    """At UTM coordinates single precision has steps of half a metre."""
    place = np.array([500000.0, 4649776.1, 120.0])
    mesh = marching_cubes(Painted(), torch.tensor([0.6]), 20)
    mesh.vertices = mesh.vertices + place
    path = tmp_path / f"far{suffix}"
    export_mesh(mesh, path)
    again = read_mesh(path)
    assert np.abs(again.vertices - mesh.vertices).max() < 1e-6
    assert (again.area_faces > 1e-9).all() == (mesh.area_faces > 1e-9).all()
    by_others = trimesh.load(path, force="mesh", process=False)
    assert np.allclose(by_others.bounds, mesh.bounds, rtol=0, atol=1e-6)
    assert np.abs(shown_colours(path) - mesh.visual.vertex_colors[:, :3]).max() <= (7 if suffix == ".glb" else 0)
    assert not caplog.records


def test_a_glb_far_from_the_origin_has_a_node_translation(tmp_path: Path) -> None:
    mesh = trimesh.creation.box((1, 1, 1)).apply_translation([0, 1e6 + 0.03, 0])
    export_mesh(mesh, tmp_path / "a.glb")
    data = (tmp_path / "a.glb").read_bytes()
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    assert [node.get("translation") for node in content["nodes"] if "mesh" in node] == [[0, 1e6, 0]]
    assert max(abs(value) for held in content["accessors"] for value in held.get("max", [])) < 100


def test_an_stl_far_from_the_origin_is_written_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = trimesh.creation.box((1, 1, 1))
    export_mesh(near, tmp_path / "near.stl")
    assert not caplog.records
    export_mesh(near.apply_translation([0, 4649776.1, 0]), tmp_path / "far.stl")
    assert "far.stl: STL has single precision" in caplog.text and "moves vertices by up to 0.1" in caplog.text


def test_a_tiny_obj_keeps_its_digits(tmp_path: Path) -> None:
    mesh = trimesh.creation.icosphere(2, radius=1e-7)
    export_mesh(mesh, tmp_path / "a.obj")
    assert read_mesh(tmp_path / "a.obj").volume == pytest.approx(mesh.volume, rel=1e-6)


def test_export_refusals(tmp_path: Path) -> None:
    mesh = trimesh.creation.box()
    with pytest.raises(UserError, match=r"a\.off: a mesh must be \.glb, \.obj, \.ply"):
        export_mesh(mesh, tmp_path / "a.off")
    with pytest.raises(UserError, match=r"a\.ply: there is no mesh to write"):
        export_mesh(trimesh.Trimesh(), tmp_path / "a.ply")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export_mesh(mesh, tmp_path / "file" / "a.glb")
