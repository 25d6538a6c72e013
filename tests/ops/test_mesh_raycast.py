"""sdfgan.ops.mesh_raycast: against the reference, spheres, and closed meshes through whose sides no ray slips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdfgan import _C, ops
from sdfgan.ops import MeshTree, mesh_raycast, mesh_tree, reference

OP = torch.ops.sdfgan.mesh_raycast.default


def tree_of(mesh: trimesh.Trimesh, device: torch.device | str = "cpu") -> MeshTree:
    vertices = torch.from_numpy(np.array(mesh.vertices, np.float32))
    return mesh_tree(vertices, torch.from_numpy(np.array(mesh.faces, np.int32))).to(device)


def rays_at(count: int, seed: int = 0, distance: float = 2.0) -> tuple[Tensor, Tensor]:
    """Rays from a sphere of that radius towards its middle, more or less."""
    random = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(count, 3, generator=random)) * distance
    return origins, 0.4 * torch.randn(count, 3, generator=random) - origins


def compare(tree: MeshTree, origins: Tensor, directions: Tensor) -> None:
    """Distances agree; so do faces, but for rays that pass within rounding of a side."""
    found = mesh_raycast(tree, origins, directions)
    expected = reference.mesh_raycast(tree, origins.double(), directions.double())
    both = found.distance.isfinite() & expected.distance.isfinite()
    assert (found.distance.isfinite() != expected.distance.isfinite()).sum() <= len(origins) // 2000
    error = (found.distance.double() - expected.distance)[both].abs()
    assert not error.numel() or error.max() <= 1e-6 * expected.distance[both].max()
    hit = found.face >= 0
    assert torch.equal(hit, found.distance.isfinite())
    assert (found.face != expected.face).sum() <= len(origins) // 500
    corners = tree.vertices[tree.faces[found.face[hit].long()].long()].double()  # [n, 3, 3]
    meeting = (found.barycentric[hit].double()[..., None] * corners).sum(1)
    along = origins[hit].double() + found.distance[hit, None].double() * directions[hit].double()
    assert ((meeting - along).abs() <= 3e-6).all()
    assert (found.barycentric[hit] >= 0).all() and (found.barycentric[~hit] == 0).all()


@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.icosphere(2),
        trimesh.creation.torus(0.8, 0.3, major_sections=24, minor_sections=12),
        trimesh.creation.box((1, 1.5, 0.01)),
        trimesh.creation.cylinder(radius=0.5, height=1.5, sections=500),
        trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.2]], [[0, 1, 2]], process=False),
    ],
    ids=["sphere", "torus", "plate", "slivers", "triangle"],
)
def test_matches_the_reference(device, mesh):
    origins, directions = rays_at(2000)
    compare(tree_of(mesh, device), origins.to(device), directions.to(device))


@settings(max_examples=20, deadline=None)
@given(faces=st.integers(1, 60), rays=st.integers(0, 60), seed=st.integers(0, 10**6))
def test_any_triangles(device, faces, rays, seed):
    """Soups with segments, points and needles among them, met by rays that are parallel to the axes as well."""
    random = np.random.default_rng(seed)
    soup = random.standard_normal((faces, 3, 3)) * 10.0 ** random.integers(-3, 1, (faces, 3, 1))
    soup[::5, 2] = soup[::5, 1]
    soup[1::5] = soup[1::5, :1]
    mesh = trimesh.Trimesh(soup.reshape(-1, 3), np.arange(3 * faces).reshape(-1, 3), process=False)
    origins, directions = rays_at(rays, seed)
    directions[::3, 0] = 0
    directions[1::6, :2] = 0
    compare(tree_of(mesh, device), origins.to(device), directions.to(device))


def test_a_sphere(device):
    """Distances of a fine sphere from outside and inside; the direction's length is the unit."""
    tree = tree_of(trimesh.creation.icosphere(5), device)
    directions = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)))
    directions = directions.to(device)
    assert (mesh_raycast(tree, -3 * directions, directions).distance - 2).abs().max() < 5e-4
    assert (mesh_raycast(tree, torch.zeros_like(directions), directions / 4).distance - 4).abs().max() < 2e-3
    assert mesh_raycast(tree, 3 * directions, directions).distance.isinf().all()


@pytest.mark.parametrize("scale", [2.0**-20, 1.0, 2.0**20])
def test_no_ray_slips_through(device, scale):
    """From inside closed meshes, towards their corners and the middles of their sides, exactly and beside them."""
    for mesh in (
        trimesh.creation.icosphere(3),
        trimesh.creation.box((1, 1.5, 0.1)),
        trimesh.creation.capsule(1.0, 0.3),
    ):
        mesh = mesh.copy().apply_translation(-mesh.center_mass)
        corners = torch.from_numpy(np.concatenate([mesh.vertices, mesh.vertices[mesh.edges].mean(1)])).float()
        noise = 1e-6 * torch.randn(10, len(corners), 3, generator=torch.Generator().manual_seed(0))
        targets = scale * torch.cat([corners[None], corners + noise]).flatten(0, 1).to(device)
        tree = tree_of(mesh.apply_scale(scale), device)
        for origin in (torch.zeros(3), scale * torch.tensor([0.01, -0.02, 0.03])):
            origins = origin.to(device).expand_as(targets).contiguous()
            found = mesh_raycast(tree, origins, targets - origins)
            assert (found.face >= 0).all() and (found.distance - 1).abs().max() < 1e-3


def test_origins_on_a_surface(device):
    """What a ray begins on is met at once."""
    tree = tree_of(trimesh.creation.box(), device)
    origins = torch.tensor([[0.5, 0.1, 0.2], [0.5, 0.1, 0.2]], device=device)
    found = mesh_raycast(tree, origins, torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]], device=device))
    assert found.distance.tolist() == [0, 0]


def test_rays_that_are_none(device):
    origins, directions = torch.zeros(6, 3, device=device), torch.ones(6, 3, device=device)
    origins[0, 1], origins[1, 2], directions[2, 0], directions[3] = float("nan"), float("inf"), float("-inf"), 0
    found = mesh_raycast(tree_of(trimesh.creation.icosphere(1), device), origins, directions)
    assert found.distance.isnan().tolist() == [True] * 4 + [False] * 2
    assert (found.face[:4] == -1).all() and (found.face[4:] >= 0).all() and (found.barycentric[:4] == 0).all()


@pytest.mark.parametrize("level", _C.simd_levels.split(","))
def test_instruction_sets_agree(level):
    tree, rays, best = tree_of(trimesh.creation.torus(0.8, 0.3)), rays_at(3000), _C.simd()
    usual = mesh_raycast(tree, *rays)
    try:
        _C.set_simd(level)
    except ValueError:
        pytest.skip(f"this CPU has no {level}")
    try:
        found = mesh_raycast(tree, *rays)
    finally:
        _C.set_simd(best)
    assert torch.allclose(found.distance, usual.distance, rtol=1e-6) and (found.face != usual.face).sum() <= 2


def test_threads_change_nothing():
    tree, rays, threads, results = tree_of(trimesh.creation.icosphere(4)), rays_at(5000), torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(mesh_raycast(tree, *rays))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_opcheck_and_compile(device):
    tree, (origins, directions) = tree_of(trimesh.creation.icosphere(1), device), rays_at(5)
    origins, directions = origins.to(device), directions.to(device)
    torch.library.opcheck(OP, (*tree, origins, directions))
    torch.library.opcheck(OP, (*tree, origins[:0], directions[:0]))
    compiled = torch.compile(lambda o, d: mesh_raycast(tree, o, d).distance * 2, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(origins, directions), mesh_raycast(tree, origins, directions).distance * 2)


def test_rejections():
    tree, rays = tree_of(trimesh.creation.icosphere(1)), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"mesh_raycast: directions must be \[N, 3\] float32, got \[3, 3\]"):
        mesh_raycast(tree, rays, rays[:3])
    with pytest.raises(RuntimeError, match="mesh_raycast: not differentiable, but directions requires grad"):
        mesh_raycast(tree, rays, rays.clone().requires_grad_())
    with pytest.raises(TypeError, match="mesh_raycast: origins must be a Tensor, got list"):
        ops.mesh_raycast(tree, [0, 0, 0], rays)
