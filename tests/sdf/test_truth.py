"""Ground truth of meshes, and the densities that samples follow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh

from sdfgan.meshes import normalise
from sdfgan.sdf import GroundTruth, SampleStream, sample


def seeded(device, seed: int = 0) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@pytest.fixture(scope="module")
def ball() -> trimesh.Trimesh:
    return trimesh.creation.icosphere(4, radius=0.7)


def test_normalise_and_back() -> None:
    mesh = trimesh.creation.box((1.0, 2.0, 4.0)).apply_translation([1000.0, 0, 7])
    for shape in ("ball", "box"):
        small, placement = normalise(mesh, shape, margin=0.2)
        extent = np.linalg.norm(small.vertices, axis=1).max() if shape == "ball" else np.abs(small.vertices).max()
        assert extent == pytest.approx(0.8)
        assert np.allclose(placement.original(np.asarray(small.vertices)), mesh.vertices)
        assert torch.allclose(placement.normalised(torch.tensor(mesh.vertices)), torch.tensor(small.vertices))
    with pytest.raises(ValueError, match="normalise: shape must be one of ball, box, got 'cone'"):
        normalise(mesh, "cone")
    with pytest.raises(ValueError, match=r"normalise: margin must be in \[0, 1\), got 1"):
        normalise(mesh, margin=1)
    with pytest.raises(ValueError, match="normalise: the mesh must have an extent, got 0"):
        normalise(trimesh.Trimesh([[1, 1, 1]] * 3, [[0, 1, 2]], process=False))


def test_distances_and_normals_of_a_ball(device, ball) -> None:
    truth = GroundTruth(ball, device=device)
    points = 2 * torch.rand(2000, 3, device=device, generator=seeded(device)) - 1
    assert (truth.signed_distance(points) - (points.norm(dim=1) - 0.7)).abs().max() < 2e-3
    away = points.norm(dim=1) > 0.1
    cosine = torch.nn.functional.cosine_similarity(truth.normals(points), points)
    assert cosine[away].min() > 0.99 and truth.thickness == 0
    on, _ = truth.surface(3000, seeded(device))
    assert truth.signed_distance(on).abs().max() < 1e-6
    assert torch.nn.functional.cosine_similarity(truth.normals(on), on).min() > 0.99
    # Even over the sphere: the mean of x^2 is a third of the radius squared.
    assert on.square().mean(0).cpu().numpy() == pytest.approx([0.49 / 3] * 3, rel=0.06)
    assert torch.equal(truth.surface(9, seeded(device, 5))[0], truth.surface(9, seeded(device, 5))[0])


def test_sheets_become_plates(device) -> None:
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    truth = GroundTruth(sheet, device=device)
    assert truth.thickness == pytest.approx(0.005 * math.sqrt(2))
    points = torch.tensor([[0.2, 0.2, 0.0], [0.2, 0.2, 0.1], [0.2, 0.2, -0.1]], device=device)
    distances, normals = truth.distance_and_normal(points)
    assert (distances + truth.thickness).tolist() == pytest.approx([0, 0.1, 0.1])
    assert normals[1:, 2].tolist() == pytest.approx([1, -1])
    assert GroundTruth(sheet, thickness=0).thickness == 0
    with pytest.raises(ValueError, match="GroundTruth: the mesh must have an area, got none"):
        GroundTruth(trimesh.Trimesh([[0, 0, 0], [1, 0, 0]], [[0, 1, 1]], process=False))


def test_curvature_is_that_of_a_cylinder() -> None:
    tube = trimesh.creation.cylinder(radius=0.5, height=4.0, sections=64)
    truth = GroundTruth(tube)
    middle = np.abs(tube.face_normals[:, 2]) < 0.1
    bend = (truth.curvature().double() * truth.areas)[torch.from_numpy(middle)].sum() / truth.areas[middle].sum()
    # The mean of the curvatures 1 / r and 0, and half of what the quarter turns at the rims add.
    rims = 2 * (2 * math.pi * 0.5) * (math.pi / 2) / 4 / (2 * math.pi * 0.5 * 4.0)
    assert bend.item() / truth.diagonal == pytest.approx(1 + rims, rel=0.03)


def test_importance_follows_its_density(device, ball) -> None:
    """Shares of samples in shells |s| < d, against the integral of exp(-beta |s|) over the cube, by plain sampling."""
    truth, beta = GroundTruth(ball, device=device), 20.0
    found = sample(truth, 20000, "importance", beta=beta, generator=seeded(device))
    cube = 2 * torch.rand(200000, 3, generator=seeded("cpu")) - 1
    exact = (cube.norm(dim=1) - 0.7).abs()
    density = (-beta * exact).exp()
    for depth in (0.02, 0.05, 0.2):
        expected = (density * (exact < depth)).sum() / density.sum()
        assert (found.distances.abs() < depth).float().mean().item() == pytest.approx(expected.item(), abs=0.015)
    assert len(found.points.unique(dim=0)) == 20000
    ratio = found.weights * (-beta * found.distances.abs()).exp()
    assert (ratio / density.mean().item() - 1).abs().max() < 0.02  # the exact weight


@pytest.mark.parametrize("kind", ["mixed", "uniform"])
def test_weighted_means_are_those_of_the_cube(device, ball, kind) -> None:
    found = sample(GroundTruth(ball, device=device), 20000, kind, generator=seeded(device))
    assert found.points.abs().max() <= 1 and found.weights.mean().item() == pytest.approx(1, abs=0.05)
    volume = (found.weights * (found.distances < 0)).mean().item() * 8
    assert volume == pytest.approx(4 / 3 * math.pi * 0.7**3, rel=0.06)
    if kind == "mixed":
        assert found.weights.max() < 11 and (found.distances.abs() < 0.02).float().mean() > 0.4


def test_surface_and_curvature(device) -> None:
    truth = GroundTruth(
        normalise(trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide())[0], device=device
    )
    edge = truth.mesh.vertices.max()
    near_edges = {}
    for kind in ("surface", "curvature"):
        found = sample(truth, 4000, kind, noise=0.01, generator=seeded(device))
        assert found.distances.std().item() == pytest.approx(0.01, rel=0.1) and (found.weights == 1).all()
        near_edges[kind] = ((found.points.abs() > 0.9 * edge).sum(1) >= 2).float().mean().item()
    assert near_edges["curvature"] > 1.5 * near_edges["surface"]


def test_streams_are_the_same_samples_in_another_order(device, ball) -> None:
    truth = GroundTruth(ball, device=device)
    held = SampleStream(truth, 1000, "mixed", seed=3)
    pieces = SampleStream(truth, 1000, "mixed", seed=3, in_memory=300)
    for stream in (held, pieces):
        epochs = [list(stream.epoch(number, 128)) for number in (0, 1, 0)]
        assert [len(batch.points) for batch in epochs[0]] == [128] * 7 + [104] and len(stream) == 1000
        first, second, again = (torch.cat([batch.points for batch in epoch]) for epoch in epochs)
        assert torch.equal(first, again) and not torch.equal(first, second)
        assert torch.equal(first.unique(dim=0), second.unique(dim=0)) and len(first.unique(dim=0)) == 1000
    assert torch.equal(
        sample(truth, 50, generator=seeded(device)).points, sample(truth, 50, generator=seeded(device)).points
    )


def test_rejections(ball) -> None:
    truth = GroundTruth(ball)
    with pytest.raises(ValueError, match="sample: kind must be one of mixed, importance"):
        sample(truth, 5, "best")
    with pytest.raises(ValueError, match="sample: beta must be at least 0, got -1"):
        sample(truth, 5, beta=-1)
    with pytest.raises(
        ValueError, match=r"sample: the surface must be in reach of \[-1, 1\]\^3 with beta 100, got none"
    ):
        sample(GroundTruth(ball.copy().apply_translation([5, 0, 0])), 5, "importance", beta=100)
    with pytest.raises(ValueError, match="GroundTruth: thickness must be at least 0, got -1"):
        GroundTruth(ball, thickness=-1)
    with pytest.raises(ValueError, match="sample: count must be at least 0, got -5"):
        sample(truth, -5)
    with pytest.raises(ValueError, match="SampleStream: count and in_memory must be at least 1, got 0 and"):
        SampleStream(truth, 0)
    assert sample(truth, 0).points.shape == (0, 3)


def test_repr() -> None:
    said = repr(GroundTruth(trimesh.creation.box()))
    assert said == "GroundTruth(8 vertices, 12 faces, thickness=0, unsigned=False, device='cpu')"
