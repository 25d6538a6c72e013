"""Distances to meshes and rays that meet them in plain torch: what `sdfgan.ops.mesh` means."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..mesh import MeshDistance, MeshHits, MeshTree

_PAIRS_AT_ONCE = 2**21


def mesh_distance(tree: MeshTree, points: Tensor) -> MeshDistance:
    """Every point against every face, in float64.

    The winding number is the sum of the faces' solid angles over 4 pi (van Oosterom and Strackee, "The Solid Angle of a
    Plane Triangle", 1983).
    """
    corners = tree.vertices.double()[tree.faces.long()]  # [F, 3, 3]
    parts = [_mesh_distance(corners, some) for some in points.double().split(max(1, _PAIRS_AT_ONCE // len(corners)))]
    distance, face, closest, winding = (torch.cat(columns) for columns in zip(*parts, strict=True))
    signed = torch.where(winding > 0.5, -distance, distance)
    dtype = points.dtype
    return MeshDistance(signed.to(dtype), face.to(torch.int32), closest.to(dtype), winding.to(dtype))


def _mesh_distance(corners: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c = corners.unbind(1)  # [F, 3]
    normal = torch.linalg.cross(b - a, c - a)
    at = points[:, None]  # [N, 1, 3]
    foot = at - ((at - a) * normal).sum(-1, keepdim=True) * normal / normal.square().sum(-1, keepdim=True)
    inside = torch.ones_like(foot[..., 0], dtype=torch.bool)
    candidates = []
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        inside &= (torch.linalg.cross(edge.expand_as(foot), foot - start) * normal).sum(-1) >= 0
        along = ((at - start) * edge).sum(-1, keepdim=True) / edge.square().sum(-1, keepdim=True)
        candidates.append(start + along.nan_to_num().clamp(0, 1) * edge)
    candidates.append(torch.where(inside[..., None], foot, candidates[0]))
    closest = torch.stack(candidates, 2)  # [N, F, 4, 3]
    squares = (closest - at[:, :, None]).square().sum(-1)
    best = squares.flatten(1).argmin(1)  # [N]
    rows = torch.arange(len(points), device=points.device)

    x, y, z = (corner - at for corner in (a, b, c))  # [N, F, 3]
    lx, ly, lz = (v.norm(dim=-1) for v in (x, y, z))
    volume = (x * torch.linalg.cross(y, z)).sum(-1)
    scale = lx * ly * lz + (x * y).sum(-1) * lz + (y * z).sum(-1) * lx + (z * x).sum(-1) * ly
    angle = torch.where(volume == 0, 0.0, 2 * torch.atan2(volume, scale))
    winding = angle.sum(1) / (4 * math.pi)
    return squares.flatten(1)[rows, best].sqrt(), best // 4, closest.flatten(1, 2)[rows, best], winding


def mesh_raycast(tree: MeshTree, origins: Tensor, directions: Tensor) -> MeshHits:
    """Every ray against every face, in float64 (Moeller and Trumbore, "Fast, Minimum Storage Ray-Triangle
    Intersection", 1997). Sides belong to their faces."""
    a, b, c = tree.vertices.double()[tree.faces.long()].unbind(1)  # [F, 3]
    parts = []
    at_once = max(1, _PAIRS_AT_ONCE // len(a))
    for origin, direction in zip(origins.double().split(at_once), directions.double().split(at_once), strict=True):
        o, d = origin[:, None], direction[:, None]  # [N, 1, 3]
        across = torch.linalg.cross(d.expand(-1, len(a), -1), (c - a).expand(len(o), -1, -1))
        determinant = ((b - a) * across).sum(-1)  # [N, F]
        u = ((o - a) * across).sum(-1) / determinant
        q = torch.linalg.cross(o - a, (b - a).expand(len(o), -1, -1))
        v = (d * q).sum(-1) / determinant
        t = ((c - a) * q).sum(-1) / determinant
        met = (determinant != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0)
        distance, face = torch.where(met, t, torch.inf).min(1)
        weights = torch.stack([1 - u - v, u, v], -1)[torch.arange(len(o), device=o.device), face]
        hit = distance.isfinite()
        sound = torch.cat([origin, direction], 1).isfinite().all(1) & (direction != 0).any(1)
        parts.append(
            (
                torch.where(sound, distance, torch.nan),
                torch.where(hit & sound, face, -1),
                torch.where((hit & sound)[:, None], weights, 0.0),
            )
        )
    distance, face, weights = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return MeshHits(distance.to(origins.dtype), face.to(torch.int32), weights.to(origins.dtype))
