"""Repair: what is mended, what is left alone, and that signs are right after it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from broken_meshes import DEFECTS, broken_mesh, broken_meshes
from sdfgan.errors import UserError
from sdfgan.meshes import normalise, repair
from sdfgan.sdf import GroundTruth

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
    assert str(report) == "1280 faces in 1 part; nothing to repair; watertight"
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
    assert "1 duplicate faces dropped" in str(report) and "open edges" in str(report)
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


def shells(*radii: float, centre: tuple[float, float, float] = (0, 0, 0)) -> list[trimesh.Trimesh]:
    """Balls around one centre; of a negative radius, inside out."""
    found = []
    for radius in radii:
        ball = trimesh.creation.icosphere(2, radius=abs(radius)).apply_translation(centre)
        if radius < 0:
            ball.invert()
        found.append(ball)
    return found


def inside(mesh: trimesh.Trimesh, *x: float) -> list[bool]:
    """Whether points on the x axis lie inside."""
    points = torch.tensor([[value, 0.0, 0.0] for value in x])
    return (GroundTruth(mesh, thickness=0).signed_distance(points) < 0).tolist()


@pytest.mark.parametrize(
    ("radii", "expected", "turned"),
    [
        ((-1, 0.5), [False, True], 2),  # a hollow ball, inside out as a whole
        ((0.5, -1), [False, True], 2),
        ((1, -0.7, 0.3), [True, False, True], 0),  # a ball in it
        ((-1, 0.7, -0.3), [True, False, True], 3),
        ((1, -0.7, -0.3), [True, False, True], 1),  # only the ball is wrong
        ((1, 0.5), [True, True], 0),  # a solid in a solid is no cavity
        ((-1, -0.5), [True, True], 2),
    ],
)
def test_nested_shells(radii: tuple[float, ...], expected: list[bool], turned: int) -> None:
    mesh, report = repair(trimesh.util.concatenate(shells(*radii)))
    middles = [0.0, 0.85] if len(radii) == 2 else [0.0, 0.5, 0.85]
    assert inside(mesh, *middles) == expected and report.parts_turned == turned
    beside = shells(*radii) + shells(1, -0.5, centre=(5, 0, 0))  # which is as it should be
    mesh, report = repair(trimesh.util.concatenate(beside))
    assert inside(mesh, *middles, 5.0, 5.75) == [*expected, False, True] and report.parts_turned == turned


def test_shells_with_holes_are_turned_too() -> None:
    outer, inner = shells(-1, 0.5)
    outer = with_faces(outer.faces[5:], outer.vertices)
    inner = with_faces(inner.faces[2:], inner.vertices)
    mesh, report = repair(trimesh.util.concatenate([outer, inner]))
    assert inside(mesh, 0.0, -0.75) == [False, True] and report.parts_turned == 2
    flipped = inner.faces.copy()
    flipped[:20] = flipped[:20, ::-1]  # a cavity some of whose faces disagree
    mesh, report = repair(trimesh.util.concatenate([with_faces(flipped, inner.vertices), outer]))
    assert inside(mesh, 0.0, -0.75) == [False, True]


def test_a_ball_in_the_hole_of_a_ring_lies_in_nothing() -> None:
    ring = trimesh.creation.torus(0.8, 0.2, 32, 16)
    mesh, report = repair(trimesh.util.concatenate([ring, *shells(-0.3)]))
    assert inside(mesh, 0.0, 0.45, 0.8) == [True, False, True] and report.parts_turned == 1
    sheet = with_faces([[0, 1, 2], [0, 2, 3]], np.array([[0, 0, 3], [1, 0, 3], [1, 1, 3], [0, 1, 3]]))
    sheet.invert()  # has no side that is wrong
    assert not repair(trimesh.util.concatenate([ring, sheet]))[1].changed


@pytest.mark.parametrize("inverted", range(16))
def test_boxes_that_share_sides_are_turned_with_all_of_their_sides(inverted: int) -> None:
    """Four in a square, any of them inside out, faces in any order: at shared edges four or eight faces meet."""
    boxes = [trimesh.creation.box(bounds=[[x, y, 0], [x + 1, y + 1, 1]]) for x in (-1, 0) for y in (-1, 0)]
    for bit, box in enumerate(boxes):
        if inverted >> bit & 1:
            box.invert()
    whole = trimesh.util.concatenate(boxes)
    order = np.random.default_rng(inverted).permutation(len(whole.faces))
    mesh, _ = repair(with_faces(whole.faces[order], whole.vertices))
    block = lambda p: ((p - torch.tensor([0.0, 0.0, 0.5])).abs() - torch.tensor([1.0, 1.0, 0.5])).amax(1)  # noqa: E731
    assert wrong_signs(mesh, block) == 0


@pytest.mark.parametrize("inverted", [0, 1])
def test_boxes_that_share_an_edge_stay_two(inverted: int) -> None:
    boxes = [trimesh.creation.box(bounds=[[x, x, 0], [x + 1, x + 1, 1]]) for x in (-1, 0)]
    if inverted:
        boxes[1].invert()
    mesh, report = repair(trimesh.util.concatenate(boxes))
    assert (report.parts, report.parts_turned, report.crowded_edges) == (2, inverted, 1)
    assert mesh.volume == pytest.approx(2)


def test_what_the_file_holds_besides_faces_is_said() -> None:
    mesh = SPHERE.copy()
    mesh.metadata["ignored"] = ("3 lines",)
    assert str(repair(mesh)[1]).endswith("watertight; not used: 3 lines")


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


@pytest.mark.parametrize("count", [len(DEFECTS), pytest.param(100, marks=pytest.mark.slow)])
def test_broken_meshes(count: int) -> None:
    """The first few have one defect each, the others mixes of them."""
    names = set()
    for name, mesh in broken_meshes(count):
        mended, report = repair(mesh, name)
        truth = GroundTruth(normalise(mended)[0])
        points = 2 * torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) - 1
        distance = truth.signed_distance(points)
        assert distance.isfinite().all() and (distance > 0).any() and report.faces_left > 0, name
        names.add(name)
    assert len(names) == count
    assert np.array_equal(broken_mesh(57)[1].vertices, broken_mesh(57)[1].vertices)
