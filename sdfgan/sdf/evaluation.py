"""How well a field, and the mesh made from it, agree with the mesh that it learnt from."""

from __future__ import annotations

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan import ops
from sdfgan.meshes.normalise import Placement
from sdfgan.meshes.signed_distance import GroundTruth

_GRID = 64  # points along a side
_VOLUME_POINTS = 200_000  # random ones, for the intersection over union
_SURFACE_POINTS = 50_000  # of each surface
_NEAR = 0.01  # standard deviation of points near the surface, of the diagonal
_CLOSE = 0.005  # of the diagonal: a point that close to the other surface counts for the F-score
_MARGIN = 0.02  # of the diagonal, around the mesh: where its field may bulge
_AT_ONCE = 2**16


@torch.no_grad()
def evaluate(field: torch.nn.Module, points: Tensor) -> Tensor:
    """Distances [N] of a field at points [N, 3], a part at a time."""
    return torch.cat([field(part).float() for part in points.split(_AT_ONCE)]) if len(points) else points[:, 0]


def grid_points(resolution: int, device: torch.device) -> Tensor:
    """[resolution^3, 3]: the centres of the cells of the cube [-1, 1]^3, x slowest."""
    ticks = ((torch.arange(resolution, device=device, dtype=torch.float32) + 0.5) / resolution) * 2 - 1
    return torch.cartesian_prod(ticks, ticks, ticks)


def field_metrics(field: torch.nn.Module, truth: GroundTruth, seed: int = 0) -> dict[str, float]:
    """Errors of distances, in units of the normalised mesh, and the intersection over union of the insides.

    error_grid: mean |error| at the centres of 64^3 cells of the cube; error_near: at points of the surface moved by
    normal noise of 1% of the diagonal; error_surface: mean |distance| at points of the surface. iou: of 200,000
    points of the cube, half of them in the box of the mesh, each weighed by the inverse of its density; not of what is
    unsigned.
    """
    random = torch.Generator(truth.device).manual_seed(seed)
    grid = grid_points(_GRID, truth.device)
    surface, _ = truth.surface(_SURFACE_POINTS, random)
    noise = torch.randn(surface.shape, generator=random, device=truth.device, dtype=torch.float32)
    near = surface + _NEAR * truth.diagonal * noise
    metrics = {
        "error_grid": (evaluate(field, grid) - truth.signed_distance(grid)).abs().mean().item(),
        "error_near": (evaluate(field, near) - truth.signed_distance(near)).abs().mean().item(),
        "error_surface": (evaluate(field, surface).abs() - truth.thickness).abs().mean().item(),
    }
    return metrics if truth.unsigned else metrics | {"iou": _iou(field, truth, random)}


def _iou(field: torch.nn.Module, truth: GroundTruth, random: torch.Generator) -> float:
    """Of uniform points few lie in something thin: half are drawn in the box around the mesh."""
    margin = max(_MARGIN * truth.diagonal, truth.thickness)
    low, high = (
        (truth.tree.vertices.amin(0) - margin).clamp(min=-1),
        (truth.tree.vertices.amax(0) + margin).clamp(max=1),
    )
    points = torch.rand(_VOLUME_POINTS, 3, generator=random, device=truth.device, dtype=torch.float32)
    half = _VOLUME_POINTS // 2
    points = torch.cat([low + (high - low) * points[:half], 2 * points[half:] - 1])
    boxed = ((points >= low) & (points <= high)).all(1)
    weights = 1 / (1 / 8 + boxed / (high - low).double().prod().clamp(min=1e-9))
    inside, truly = evaluate(field, points) < 0, truth.signed_distance(points) < 0
    either = weights[inside | truly].sum()
    return (weights[inside & truly].sum() / either).item() if either > 0 else 0.0


def mesh_metrics(mesh: trimesh.Trimesh, truth: GroundTruth, seed: int = 0) -> dict[str, float]:
    """Agreement of two surfaces, by 50,000 random points of each and their exact distance to the other.

    Of a signed truth, faces that are buried in solids, with inside on both of their sides, bound nothing and are not
    counted.
    chamfer_percent: the mean distance, averaged over both ways, in percent of the true mesh's diagonal (a plate's
    thickness is allowed for). normal_consistency: mean |cosine| between normals. f_score: harmonic mean of the shares
    of points within 0.5% of the diagonal.
    """
    own = GroundTruth(mesh, unsigned=True, device=truth.device)
    there, back = _way(own, truth, seed), _way(truth, own, seed)
    close = [(distance <= _CLOSE * truth.diagonal).double().mean().item() for distance, _ in (there, back)]
    return {
        "chamfer_percent": 50 * sum(distance.mean().item() for distance, _ in (there, back)) / truth.diagonal,
        "normal_consistency": sum(cosine.mean().item() for _, cosine in (there, back)) / 2,
        "f_score": 2 * close[0] * close[1] / max(sum(close), 1e-12),
    }


def _way(a: GroundTruth, b: GroundTruth, seed: int) -> tuple[Tensor, Tensor]:
    """Distances to b, and |cosine| of normals, at points of a."""
    points, faces = a.surface(_SURFACE_POINTS, torch.Generator(a.device).manual_seed(seed))
    if not a.unsigned and a.thickness == 0:
        above, below = a.winding_at_faces(points, faces)
        buried = (above > 0.5) & (below > 0.5)
        points, faces = points[~buried], faces[~buried]
    found = ops.mesh_distance(b.tree, points)
    allowed = max(a.thickness, b.thickness)
    distance = (found.distance.abs() - allowed).abs()
    return distance, (a.face_normals[faces] * b.face_normals[found.face.long()]).sum(1).abs()


def to_original(mesh: trimesh.Trimesh, placement: Placement) -> trimesh.Trimesh:
    """The mesh where the one it was learnt from lay."""
    moved = mesh.copy(include_cache=True).apply_scale(1 / placement.scale)  # which keeps its normals
    return moved.apply_translation(placement.centre)


def to_normalised(mesh: trimesh.Trimesh, placement: Placement) -> trimesh.Trimesh:
    """What lies where the original lay, in the ball or cube that was learnt in."""
    moved = mesh.copy()
    moved.vertices = placement.normalised(np.asarray(mesh.vertices))
    return moved
