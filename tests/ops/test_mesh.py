"""sdfgan.ops.mesh_distance: against the reference, libigl where it is installed, and spheres."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from sdfgan import _C, ops
from sdfgan.ops import MeshTree, mesh_distance, mesh_tree, reference

OP = torch.ops.sdfgan.mesh_distance.default
EXACT = 1e-6  # of the diagonal


def tree_of(mesh: trimesh.Trimesh, device: torch.device | str = "cpu") -> MeshTree:
    vertices = torch.from_numpy(np.array(mesh.vertices, np.float32))
    return mesh_tree(vertices, torch.from_numpy(np.array(mesh.faces, np.int32))).to(device)


def turned(mesh: trimesh.Trimesh, share: float) -> trimesh.Trimesh:
    faces = mesh.faces.copy()
    wrong = np.random.default_rng(0).random(len(faces)) < share
    faces[wrong] = faces[wrong][:, ::-1]
    return trimesh.Trimesh(mesh.vertices, faces, process=False)


def meshes() -> dict[str, trimesh.Trimesh]:
    sphere, create = trimesh.creation.icosphere(2), trimesh.creation
    small = create.icosphere(2, radius=0.5)
    return {
        "closed": create.torus(0.8, 0.3, major_sections=24, minor_sections=12),
        "open": trimesh.Trimesh(sphere.vertices, sphere.faces[sphere.triangles_center[:, 2] < 0.4], process=False),
        "flipped": turned(sphere, 0.1),
        "duplicated": trimesh.Trimesh(sphere.vertices, np.r_[sphere.faces, sphere.faces[:90, ::-1]], process=False),
        "overlapping": trimesh.util.concatenate([sphere, sphere.copy().apply_translation([0.7, 0.2, 0])]),
        "nested": trimesh.util.concatenate([sphere, small]),
        "cavity": trimesh.util.concatenate([sphere, turned(small, 2.0)]),
        "slivers": create.cylinder(radius=0.5, height=1.5, sections=500),
        "needles": create.cylinder(radius=1e-4, height=1.5, sections=60),
        "triangle": trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.2]], [[0, 1, 2]], process=False),
        "no area": trimesh.Trimesh(
            [[0, 0, 0], [1, 0, 0], [0.5, 0, 0], [0, 1, 0]], [[0, 1, 2], [3, 3, 1], [2, 2, 2]] * 4, process=False
        ),
    }


def points_around(mesh: trimesh.Trimesh, count: int, seed: int = 0) -> torch.Tensor:
    """A third far, a third near the surface, a third at a ten-thousandth from it."""
    random = np.random.default_rng(seed)
    used = mesh.vertices[mesh.faces]
    low, high = used.min((0, 1)), used.max((0, 1))
    mix = random.dirichlet([1, 1, 1], 2 * count)
    near = (mix[:, :, None] * used[random.integers(0, len(used), 2 * count)]).sum(1)
    noise = np.repeat([1e-2, 1e-4], count)[:, None] * random.standard_normal(near.shape)
    far = low - 0.3 + (high - low + 0.6) * random.random((count, 3))
    return torch.from_numpy(np.concatenate([far, near + noise]).astype(np.float32))


def diagonal(tree: MeshTree) -> float:
    used = tree.vertices[tree.faces.long()].flatten(0, 1)
    return (used.amax(0) - used.amin(0)).norm().item()


def compare(tree: MeshTree, points: torch.Tensor) -> None:
    found, expected = mesh_distance(tree, points), reference.mesh_distance(tree, points.double())
    tolerance = EXACT * diagonal(tree)
    assert (found.distance.abs() - expected.distance.abs()).abs().max() <= tolerance
    assert ((found.closest - points).norm(dim=1) - found.distance.abs()).abs().max() <= tolerance
    # Expanding far faces costs some of the winding number: signs are as sure as it is far from 1/2.
    sure = ((expected.winding - 0.5).abs() > 0.06) & (expected.distance.abs() > tolerance)
    assert sure.float().mean() > 0.5
    assert torch.equal(found.distance[sure] < 0, expected.distance[sure] < 0)
    assert (found.winding - expected.winding).abs()[expected.distance.abs() > tolerance].max() < 0.06


@pytest.mark.parametrize("name", meshes())
def test_matches_the_reference(device, name):
    mesh = meshes()[name]
    compare(tree_of(mesh, device), points_around(mesh, 200).to(device))


@settings(max_examples=20, deadline=None)
@given(faces=st.integers(1, 60), points=st.integers(0, 40), seed=st.integers(0, 10**6))
def test_any_triangles(device, faces, points, seed):
    random = np.random.default_rng(seed)
    soup = random.standard_normal((faces, 3, 3)) * 10.0 ** random.integers(-4, 1, (faces, 3, 1))
    soup[::5, 2] = soup[::5, 1]  # segments, points, and corners on a line
    soup[1::5] = soup[1::5, :1]
    soup[2::5, 2] = soup[2::5, 0] + random.standard_normal((len(soup[2::5]), 1)) * (soup[2::5, 1] - soup[2::5, 0])
    mesh = trimesh.Trimesh(soup.reshape(-1, 3), np.arange(3 * faces).reshape(-1, 3), process=False)
    tree, where = tree_of(mesh, device), torch.from_numpy(random.standard_normal((points, 3)).astype(np.float32))
    found, expected = mesh_distance(tree, where.to(device)), reference.mesh_distance(tree, where.to(device).double())
    error = (found.distance.abs() - expected.distance.abs()).abs()
    assert (error <= EXACT * (diagonal(tree) + expected.distance.abs())).all()
    assert found.face.dtype == torch.int32 and found.closest.shape == (points, 3)


@pytest.mark.parametrize("name", ["closed", "slivers", "needles", "overlapping"])
def test_matches_libigl(device, name):
    igl = pytest.importorskip("igl", reason="libigl is not installed: pip install libigl")
    mesh = meshes()[name]
    tree, points = tree_of(mesh, device), points_around(mesh, 1000).to(device)
    arrays = (tree.vertices.cpu().double().numpy(), tree.faces.cpu().numpy().astype(np.int64))
    squares = igl.point_mesh_squared_distance(points.cpu().double().numpy(), *arrays)[0]
    found = mesh_distance(tree, points)
    assert np.abs(np.sqrt(squares) - found.distance.abs().cpu().numpy()).max() <= EXACT * diagonal(tree)
    winding = igl.winding_number(*arrays, points.cpu().double().numpy())
    away = squares > (EXACT * diagonal(tree)) ** 2
    assert ((winding > 0.5) == (found.distance.cpu().numpy() < 0))[away].all()


def test_a_finer_sphere(device):
    """Distances of a sphere, their slope, and the sign on both sides of it."""
    tree = tree_of(trimesh.creation.icosphere(5), device)  # its faces lie up to 3e-4 within the sphere
    points = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)).to(device)
    found = mesh_distance(tree, points)
    assert (found.distance - (points.norm(dim=1) - 1)).abs().max() < 5e-4
    gradient = (points - found.closest) / found.distance[:, None]
    assert torch.nn.functional.cosine_similarity(gradient, points).min() > 0.998
    ahead = mesh_distance(tree, points + 1e-2 * gradient).distance
    assert (ahead - found.distance - 1e-2).abs().max() < 1e-4  # |gradient| = 1
    on = found.closest
    assert (mesh_distance(tree, on * 1.0001).distance > 0).all() and (
        mesh_distance(tree, on * 0.9999).distance < 0
    ).all()


@pytest.mark.parametrize("level", _C.simd_levels.split(","))
def test_instruction_sets_agree(level):
    mesh = meshes()["overlapping"]
    tree, points, best = tree_of(mesh), points_around(mesh, 300), _C.simd()
    try:
        _C.set_simd(level)
    except ValueError:
        pytest.skip(f"this CPU has no {level}")
    try:
        compare(tree, points)
    finally:
        _C.set_simd(best)


def test_threads_and_order_change_nothing():
    mesh = trimesh.creation.icosphere(4)
    points = points_around(mesh, 2000)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            tree = tree_of(mesh)
            results.append((*tree, *mesh_distance(tree, points)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    order = torch.randperm(len(points))
    again = mesh_distance(tree, points[order])
    assert (again.distance - results[0][-4][order]).abs().max() <= EXACT * 4


def test_points_that_are_not_finite(device):
    points = torch.zeros(40, 3, device=device)
    points[::3, 1], points[1::9, 0] = float("nan"), float("inf")
    strange = ~points.isfinite().all(1)
    found = mesh_distance(tree_of(trimesh.creation.icosphere(1), device), points)
    for values in found:
        assert torch.equal(values.isnan().view(40, -1).all(1), strange) or values.dtype == torch.int32
    assert torch.equal(found.face == -1, strange)
    assert (found.distance[~strange] < -0.9).all()


def test_points_at_any_distance(device):
    """Together in a group; squares beyond float32 give no face."""
    points = torch.tensor([[0.0, 0, 0], [1e15, 3, 0], [-1e17, 0, 1e17], [0, 2e19, 0], [3e38, -3e38, 1]], device=device)
    found = mesh_distance(tree_of(trimesh.creation.icosphere(2), device), points)
    assert torch.allclose(found.distance[1:3], points[1:3].norm(dim=1))
    assert found.winding[0] > 0.99 and found.winding[1:3].abs().max() < 1e-6
    assert found.face[3:].tolist() == [-1, -1] and found.distance[3:].isnan().all()


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_units_do_not_matter(scale):
    mesh = meshes()["closed"]
    points = points_around(mesh, 100)
    plain = mesh_distance(tree_of(mesh), points)
    scaled = mesh_distance(tree_of(mesh.copy().apply_scale(scale)), points * scale)
    assert torch.equal(scaled.face, plain.face) and torch.equal(scaled.distance / scale, plain.distance)
    assert torch.allclose(scaled.winding, plain.winding, rtol=0, atol=1e-5)


def test_opcheck(device):
    tree = tree_of(trimesh.creation.icosphere(1), device)
    torch.library.opcheck(OP, (*tree, torch.randn(5, 3, device=device)))
    torch.library.opcheck(OP, (*tree, torch.randn(0, 3, device=device)))


def test_compiles(device):
    tree, points = tree_of(trimesh.creation.icosphere(1), device), torch.randn(9, 3, device=device)
    compiled = torch.compile(lambda p: mesh_distance(tree, p).distance * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(points), mesh_distance(tree, points).distance * 2)


def test_rejections():
    mesh = trimesh.creation.icosphere(1)
    vertices, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).int()
    tree = mesh_tree(vertices, faces)
    with pytest.raises(
        ValueError, match=r"mesh_distance: points must be \[N, 3\] float32, got \[4, 3\] float64 on cpu"
    ):
        mesh_distance(tree, torch.zeros(4, 3).double())
    with pytest.raises(ValueError, match=r"mesh_tree: faces must be \[F, 3\] with F >= 1, got \[0, 3\]"):
        mesh_tree(vertices, faces[:0])
    with pytest.raises(ValueError, match=r"mesh_tree: faces must be in \[0, V\), got 0 to 42 \(V=42\)"):
        mesh_tree(vertices, torch.cat([faces, torch.tensor([[0, 1, 42]]).int()]))
    with pytest.raises(ValueError, match="mesh_tree: vertices must be finite and within 1e"):
        mesh_tree(vertices / 0, faces)
    with pytest.raises(ValueError, match=r"mesh_tree: faces must be \[F, 3\] int32, got \[80, 3\] int64"):
        mesh_tree(vertices, faces.long())
    with pytest.raises(RuntimeError, match="mesh_distance: not differentiable, but points requires grad"):
        mesh_distance(tree, torch.zeros(1, 3, requires_grad=True))
    with pytest.raises(TypeError, match="mesh_distance: points must be a Tensor, got list"):
        ops.mesh_distance(tree, [0, 0, 0])
