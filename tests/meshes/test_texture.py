"""Textures and decimation: what independent readers see of a mesh whose colours and shape are known."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from sdfgan.errors import UserError
from sdfgan.fields import Box, Field, Sphere, Torus
from sdfgan.meshes import atlas, decimate, export_mesh, marching_cubes, read_mesh, read_model, textured
from sdfgan.meshes.atlas import unwrap

pytest.importorskip("xatlas", reason='not installed: pip install "sdfgan[meshes]"')
pytest.importorskip("fast_simplification", reason='not installed: pip install "sdfgan[meshes]"')

RADIUS = 0.7
RIPPLES = 6.0  # of the colours, over a unit of length


class Rippled(Field):
    """A sphere with a colour that is a known function of the place, for a condition that is its radius."""

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return points.norm(dim=-1) - condition[image]

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return torch.from_numpy(true_colours(points.double().numpy())).float()


def true_colours(points: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(RIPPLES * points)


class Seen(NamedTuple):
    """A mesh as a reader has it."""

    vertices: np.ndarray  # [V, 3]
    faces: np.ndarray  # [F, 3]
    uv: np.ndarray  # [V, 2], v upwards
    image: np.ndarray  # [H, W, 3], 0 to 1
    normals: np.ndarray | None = None  # [V, 3]

    def at(self, face: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places and colours [N, 3], bilinear, at weights [N, 3] of the corners of faces [N]."""
        corner = self.faces[face]
        places, uv = ((weights[..., None] * values[corner]).sum(1) for values in (self.vertices, self.uv))
        height, width = self.image.shape[:2]
        x, y = uv[:, 0] * width - 0.5, (1 - uv[:, 1]) * height - 0.5
        left, top = np.floor(x).astype(int), np.floor(y).astype(int)
        colours = np.zeros((len(face), 3))
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            share = (1 - abs(x - left - dx)) * (1 - abs(y - top - dy))
            colours += share[:, None] * self.image[np.clip(top + dy, 0, height - 1), np.clip(left + dx, 0, width - 1)]
        return places, colours


def by_trimesh(path: Path) -> Seen:
    mesh = trimesh.load(path, force="mesh", process=False)
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB")) / 255
    return Seen(np.asarray(mesh.vertices), np.asarray(mesh.faces), np.asarray(mesh.visual.uv), image)


def by_assimp(path: Path) -> Seen:
    """Places, corners and coordinates by Open Asset Import Library; the image that its material names, by Pillow."""
    assimp = pytest.importorskip("assimp_py", reason="not installed: pip install assimp-py")
    scene = assimp.import_file(str(path), assimp.Process_Triangulate)
    (mesh,) = scene.meshes
    assert scene.materials[mesh.material_index]["TEXTURE_BASE"] == "*0"  # the first of those in the file
    content, data = chunks(path)
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    start = view.get("byteOffset", 0)
    image = Image.open(io.BytesIO(data[start : start + view["byteLength"]])).convert("RGB")
    # Copies: the memory is the scene's.
    uv = np.array(mesh.texcoords[0]).reshape(-1, mesh.num_uv_components[0])[:, :2]
    vertices, faces, normals = (np.array(part).reshape(-1, 3) for part in (mesh.vertices, mesh.indices, mesh.normals))
    return Seen(vertices, faces.astype(int), uv, np.asarray(image) / 255, normals)


def chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary part of a GLB."""
    data = path.read_bytes()
    end = 20 + int.from_bytes(data[12:16], "little")
    return json.loads(data[20:end]), data[end + 8 :]


@pytest.fixture(scope="module")
def ball() -> trimesh.Trimesh:
    """Of 1200 faces, whose middles are well inside the sphere."""
    return decimate(marching_cubes(Rippled(), torch.tensor([RADIUS]), 41), 1200)


@pytest.fixture(scope="module")
def path(ball: trimesh.Trimesh, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("textured") / "ball.glb"
    export_mesh(textured(ball, 256, Rippled(), torch.tensor([RADIUS])), path)
    return path


@pytest.mark.parametrize("reader", [by_trimesh, by_assimp])
def test_readers_see_the_true_colours_on_faces_and_across_seams(reader: Any, path: Path, ball: trimesh.Trimesh) -> None:
    seen = reader(path)
    assert len(seen.faces) == len(ball.faces) and seen.image.shape == (256, 256, 3)
    random = np.random.default_rng(0)
    areas = trimesh.Trimesh(seen.vertices, seen.faces, process=False).area_faces
    face = random.choice(len(areas), size=20000, p=areas / areas.sum())
    weights = random.dirichlet([1, 1, 1], len(face))
    edges = weights * [0, 1, 1] / weights[:, 1:].sum(1, keepdims=True)
    for where in (weights, edges):
        places, colours = seen.at(face, where)
        on_sphere = RADIUS * places / np.linalg.norm(places, axis=1, keepdims=True)
        error = np.abs(colours - true_colours(on_sphere))
        assert error.mean() < 0.003 and np.quantile(error, 0.999) < 0.03 and error.max() < 0.1, where is edges
    # The same place from both sides of an edge, of which many lie between two charts.
    joined = trimesh.Trimesh(seen.vertices, seen.faces, process=False)
    joined.merge_vertices(merge_tex=True, merge_norm=True)
    assert joined.is_watertight
    sides = joined.face_adjacency  # [E, 2] faces
    ends = joined.face_adjacency_edges
    halves = []
    for side in (0, 1):
        corners = joined.faces[sides[:, side]]
        halves.append(seen.at(sides[:, side], 0.5 * (corners[..., None] == ends[:, None]).any(-1)))
    assert np.abs(halves[0][0] - halves[1][0]).max() < 1e-5
    difference = np.abs(halves[0][1] - halves[1][1])
    crossing = seen.uv[seen.faces[sides[:, 0]]].mean(1) - seen.uv[seen.faces[sides[:, 1]]].mean(1)
    assert (np.linalg.norm(crossing, axis=1) > 0.1).sum() > 50, "of edges between charts"
    assert difference.mean() < 0.004 and difference.max() < 0.08


def test_our_own_readers_see_it(path: Path, ball: trimesh.Trimesh) -> None:
    assert np.allclose(read_mesh(path).triangles, ball.triangles, atol=1e-6)
    model, notes = read_model(path, margin=1 - RADIUS)
    assert notes == [] and len(model.textures) == 1
    face = torch.arange(len(model.tree.faces))
    colours = model.albedo(face, torch.full((len(face), 3), 1 / 3))
    middles = model.tree.vertices[model.tree.faces.long()].mean(1)
    truth = true_colours(RADIUS * torch.nn.functional.normalize(middles, dim=1).double().numpy())
    assert np.abs(colours[:, :3].numpy() - truth).mean() < 0.006 and (colours[:, 3] == 1).all()


def test_what_the_file_says(path: Path) -> None:
    content, _ = chunks(path)
    (material,) = content["materials"]
    assert material["pbrMetallicRoughness"] == {
        "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0
    }  # fmt: skip
    assert {"POSITION", "NORMAL", "TEXCOORD_0"} == set(content["meshes"][0]["primitives"][0]["attributes"])
    seen = by_assimp(path)
    outwards = seen.vertices / np.linalg.norm(seen.vertices, axis=1, keepdims=True)
    assert seen.normals is not None
    assert (seen.normals * outwards).sum(1).min() > 0.9999  # the field's, not those of the few faces


def test_charts_do_not_overlap_and_use_the_plane(ball: trimesh.Trimesh) -> None:
    side = 256
    charts = unwrap(ball, side)
    assert np.array_equal(charts.vertex[charts.faces], ball.faces)
    a, b, c = (charts.uv[charts.faces[:, corner]] * side for corner in range(3))
    texels = np.stack(np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5), -1).reshape(-1, 2)
    covered = np.zeros(len(texels), int)
    for start, second, third in zip(a, b, c, strict=True):
        low, high = np.min([start, second, third], 0), np.max([start, second, third], 0)
        near = np.flatnonzero(((texels >= low) & (texels <= high)).all(1))
        u, v, p = second - start, third - start, texels[near] - start
        area = u[0] * v[1] - u[1] * v[0]
        x, y = (p[:, 0] * v[1] - p[:, 1] * v[0]) / area, (u[0] * p[:, 1] - u[1] * p[:, 0]) / area
        covered[near[(x > 1e-6) & (y > 1e-6) & (x + y < 1 - 1e-6)]] += 1
    assert covered.max() == 1
    share = (covered == 1).mean()
    areas = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / side**2
    assert share == pytest.approx(areas.sum(), abs=0.01) and share > 0.4
    stretch = areas / ball.area_faces  # alike on all faces: about as many texels everywhere
    assert np.quantile(stretch, 0.99) < 2.5 * np.quantile(stretch, 0.01)


def test_far_from_the_origin(path: Path, ball: trimesh.Trimesh, tmp_path: Path) -> None:
    mesh = textured(ball, 256, Rippled(), torch.tensor([RADIUS])).apply_scale(10).apply_translation([5e5, 4.6e6, 120.0])
    export_mesh(mesh, tmp_path / "far.glb")
    again = trimesh.load(tmp_path / "far.glb", force="mesh", process=False)
    assert np.allclose(again.vertices, mesh.vertices, rtol=0, atol=1e-4)
    assert np.allclose(again.visual.uv, mesh.visual.uv, atol=1e-6)
    assert np.allclose(by_assimp(tmp_path / "far.glb").normals, by_assimp(path).normals, atol=1e-5)


def test_decimation_keeps_the_surface_closed() -> None:
    """In one step the library loses half of this solid's volume."""
    field = Torus(0.6, 0.2) | Box((0.3, 0.3, 0.3)).rotated(axis=(1.0, 2.0, 0.5), angle=0.7)
    mesh = marching_cubes(field, resolution=80)
    for faces, error in ((8000, 1e-3), (1000, 1e-2)):
        fewer = decimate(mesh, faces)
        assert faces * 0.95 <= len(fewer.faces) <= faces
        assert fewer.is_watertight and fewer.is_winding_consistent and fewer.body_count == 1
        assert fewer.volume == pytest.approx(mesh.volume, rel=0.015)
        points = torch.tensor(fewer.triangles.mean(1), dtype=torch.float32)
        assert field.sdf(points).abs().mean() < error
    assert np.array_equal(decimate(mesh, 10**6).faces, mesh.faces)
    small, far = mesh.copy().apply_scale(1e-3), mesh.copy().apply_translation([1e5, 0, 0])
    for moved in (small, far):  # what is kept does not depend on units
        assert len(decimate(moved, 8000).faces) <= 8000


def test_something_is_left_of_a_ring_that_four_faces_cannot_show() -> None:
    ring = marching_cubes(Torus(0.6, 0.22), resolution=32)
    fewer = decimate(ring, 4)
    assert 0 < len(fewer.faces) < 50 and fewer.is_watertight


def test_that_charts_of_many_faces_take_long_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mesh = trimesh.creation.icosphere(2)
    unwrap(mesh, 64)
    assert not caplog.messages
    monkeypatch.setattr(atlas, "_MANY", 300)
    unwrap(mesh, 64)
    assert caplog.messages == ["a texture: charts of 320 faces take minutes; --faces (meshes.decimate) leaves fewer"]


def test_an_open_surface_is_decimated_too() -> None:
    mesh = trimesh.creation.icosphere(4)
    mesh.update_faces(mesh.triangles_center[:, 2] > 0)
    fewer = decimate(mesh, 300)
    assert len(fewer.faces) <= 300 and fewer.area == pytest.approx(mesh.area, rel=0.05)


def test_what_python_refuses(ball: trimesh.Trimesh, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="textured: size must be at least 16, got 0"):
        textured(ball, 0, Sphere(radius=0.5))
    with pytest.raises(ValueError, match="textured: a field or colours must be given"):
        textured(ball, 64)
    with pytest.raises(ValueError, match="decimate: faces must be at least 4, got 3"):
        decimate(ball, 3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'^a texture needs xatlas: pip install "sdfgan\[meshes\]"$'):
        textured(ball, 64, Sphere(radius=0.5))
    with pytest.raises(UserError, match=r'^decimate needs fast_simplification: pip install "sdfgan\[meshes\]"$'):
        decimate(ball, 100)
