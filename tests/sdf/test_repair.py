"""Repair: what is mended, what is left alone, and that signs are right after it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from broken_meshes import broken_mesh, broken_meshes
from sdfgan.errors import UserError
from sdfgan.sdf import GroundTruth, normalise, repair

SPHERE = trimesh.creation.icosphere(3)


def with_faces(faces: np.ndarray, vertices: np.ndarray = SPHERE.vertices) -> trimesh.Trimesh:
    return trimesh.Trimesh(vertices, faces, process=False, validate=False)


def wrong_signs(mesh: trimesh.Trimesh, sdf) -> float:
    """Share of random points whose sign is not that of `sdf`, those near its surface apart."""
    points = 3 * torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)) - 1.5
    true = sdf(points)
    far = true.abs() > 0.02
    return ((GroundTruth(mesh, thickness=0).signed_distance(points) < 0) != (true < 0))[far].float().mean().item()


def sphere(points: torch.Tensor) -> torch.Tensor:
    return points.norm(dim=1) - 1


def test_a_clean_mesh_stays_as_it_is() -> None:
    mesh, report = repair(SPHERE)
    assert not report.changed and mesh.faces.shape == SPHERE.faces.shape
    assert str(report) == "1280 faces in 1 part; nothing to repair; left: no hole"
    assert np.array_equal(np.sort(mesh.triangles, axis=0), np.sort(SPHERE.triangles, axis=0))


def test_counts_and_words() -> None:
    vertices = SPHERE.vertices[SPHERE.faces].reshape(-1, 3)  # a seam along every edge
    faces = np.arange(len(vertices)).reshape(-1, 3)
    faces[::4] = faces[::4, ::-1]
    vertices = np.concatenate([vertices, [[np.nan, 0, 0]]])
    extra = [[0, 1, 1], [0, 1, len(vertices) - 1], [0, 1, 2], [2, 1, 0]]
    mesh, report = repair(with_faces(np.concatenate([faces[8:], extra]), vertices))
    assert (report.not_finite, report.degenerate, report.duplicates) == (1, 1, 1)
    assert report.welded == 3 * 1272 + 3 - len(mesh.vertices)
    assert 300 <= report.turned <= 330 and report.parts_turned <= 1
    assert report.open_edges > 0 and report.crowded_edges == 0
    assert "1 duplicate faces dropped" in str(report) and "edges open" in str(report)
    assert wrong_signs(mesh, sphere) < 0.002


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.9, 1.0])
def test_faces_are_turned_outwards(share: float) -> None:
    faces = SPHERE.faces.copy()
    wrong = SPHERE.triangles_center[:, 0] < np.quantile(SPHERE.triangles_center[:, 0], share)  # contiguous
    faces[wrong] = faces[wrong][:, ::-1]
    mesh, report = repair(with_faces(faces))
    assert report.changed and mesh.volume == pytest.approx(SPHERE.volume)
    assert wrong_signs(mesh, sphere) == 0


def test_cavities_stay_and_inverted_neighbours_do_not() -> None:
    inner = trimesh.creation.icosphere(2, radius=0.5)
    inner.invert()
    mesh, report = repair(trimesh.util.concatenate([SPHERE, inner]))
    assert not report.changed
    assert wrong_signs(mesh, lambda p: torch.maximum(p.norm(dim=1) - 1, 0.5 - p.norm(dim=1))) == 0
    aside = trimesh.creation.icosphere(2, radius=0.3).apply_translation([1.2, 0.6, 0])
    both = lambda p: torch.minimum(p.norm(dim=1) - 1, (p - torch.tensor([1.2, 0.6, 0])).norm(dim=1) - 0.3)  # noqa: E731
    aside.invert()
    mesh, report = repair(trimesh.util.concatenate([SPHERE, aside]))
    assert report.parts_turned == 1 and wrong_signs(mesh, both) < 1e-3


def test_a_moebius_strip_is_left() -> None:
    """It cannot be oriented; nothing fails."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radius, lift = 0.2 * np.cos(angle / 2), 0.2 * np.sin(angle / 2)
    rims = [
        np.stack([(1 + s * radius) * np.cos(angle), (1 + s * radius) * np.sin(angle), s * lift], 1) for s in (1, -1)
    ]
    i = np.arange(24)
    next_low = np.where(i < 23, i + 1, 24)
    next_high = np.where(i < 23, i + 25, 0)
    faces = np.concatenate([np.stack([i, next_low, i + 24], 1), np.stack([next_low, next_high, i + 24], 1)])
    mesh, report = repair(with_faces(faces, np.concatenate(rims)))
    assert report.parts == 1 and report.turned == 0
    assert GroundTruth(mesh).thickness > 0


def test_nothing_left() -> None:
    with pytest.raises(UserError, match=r"part\.stl: no face is left: of 2, 1 are not finite, the rest have no area"):
        repair(
            with_faces([[0, 1, 1], [0, 1, 3]], np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [np.nan] * 3])), "part.stl"
        )


def test_a_hundred_broken_meshes() -> None:
    names = set()
    for name, mesh in broken_meshes():
        mended, report = repair(mesh, name)
        truth = GroundTruth(normalise(mended)[0])
        points = 2 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) - 1
        distance = truth.signed_distance(points)
        assert distance.isfinite().all() and (distance > 0).any() and report.faces_left > 0, name
        names.add(name)
    assert len(names) == 100
    assert np.array_equal(broken_mesh(57)[1].vertices, broken_mesh(57)[1].vertices)
