"""What is known of a mesh: signed distances, normals, points of its surface and where it bends."""

from __future__ import annotations

import copy

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan import ops

_CLOSED_ENOUGH = 0.6  # mean winding number just below the faces: 1 in a solid, 1/2 below a flat sheet
_SHEET_HALF_THICKNESS = 0.005  # of the mesh's diagonal
_PROBES = 4096
_BELOW = 1e-4  # of the diagonal


class GroundTruth:
    """Exact signed distances to a mesh, negative inside; in float32, on one device.

    Inside is where the generalised winding number exceeds 1/2. A mesh that encloses nothing (a sheet, a single
    triangle) is taken for a plate: `thickness` is subtracted from its distances. Nothing here is differentiable.

    Args:
        mesh: best as `repair` and `normalise` leave it.
        thickness: half the thickness of a plate; None: 0 for what encloses something, else 0.5% of the diagonal.
        unsigned: distances are those to the faces, nowhere negative, and `thickness` is 0.
        device: where tensors are, in and out.

    Raises ValueError where `ops.mesh_tree` does, for a mesh without area, and for a negative thickness.
    """

    def __init__(
        self,
        mesh: trimesh.Trimesh,
        *,
        thickness: float | None = None,
        unsigned: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        if thickness is not None and thickness < 0:
            raise ValueError(f"GroundTruth: thickness must be at least 0, got {thickness}")
        self.mesh, self.unsigned = mesh, unsigned
        self.device = torch.device(device)
        vertices = torch.from_numpy(np.asarray(mesh.vertices, np.float32))
        self.tree = ops.mesh_tree(vertices, torch.from_numpy(np.asarray(mesh.faces, np.int32))).to(self.device)
        a, b, c = self.tree.vertices.double()[self.tree.faces.long()].unbind(1)
        cross = torch.linalg.cross(b - a, c - a)  # [F, 3]
        self.areas = cross.norm(dim=1) / 2  # [F] float64
        self.face_normals = torch.nn.functional.normalize(cross, dim=1, eps=1e-300).float()  # [F, 3]; 0 without area
        if not self.areas.sum() > 0:
            raise ValueError("GroundTruth: the mesh must have an area, got none")
        used = vertices[torch.from_numpy(np.unique(mesh.faces))]
        self.diagonal = (used.amax(0) - used.amin(0)).norm().item()
        self.thickness = 0.0
        if thickness is None and not unsigned and self._winding_below() < _CLOSED_ENOUGH:
            thickness = _SHEET_HALF_THICKNESS * self.diagonal
        self.thickness = 0.0 if unsigned else thickness or 0.0

    def __repr__(self) -> str:
        size = f"{len(self.tree.vertices)} vertices, {len(self.tree.faces)} faces"
        return (
            f"GroundTruth({size}, thickness={self.thickness:g}, unsigned={self.unsigned}, device={str(self.device)!r})"
        )

    def _winding_below(self) -> float:
        points, faces = self.surface(_PROBES, torch.Generator(self.device).manual_seed(0))
        return self.winding_at_faces(points, faces)[1].mean().item()

    def as_unsigned(self) -> GroundTruth:
        """The same mesh with unsigned distances."""
        other = copy.copy(self)
        other.unsigned, other.thickness = True, 0.0
        return other

    def winding_at_faces(self, points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Winding numbers [N] just above and just below points of faces, as `surface` gives them."""
        offset = _BELOW * self.diagonal * self.face_normals[faces]
        return self.winding(points + offset), self.winding(points - offset)

    def winding(self, points: Tensor) -> Tensor:
        """[N] generalised winding numbers at points [N, 3]."""
        return ops.mesh_distance(self.tree, points).winding

    def signed_distance(self, points: Tensor) -> Tensor:
        """[N] from points [N, 3] float32 on this device."""
        return self.distance_and_normal(points)[0]

    def normals(self, points: Tensor) -> Tensor:
        """[N, 3] unit gradients of the signed distance at points [N, 3]; on the surface the normals of faces."""
        return self.distance_and_normal(points)[1]

    def distance_and_normal(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """`signed_distance` and `normals` together, for the price of one."""
        found = ops.mesh_distance(self.tree, points)
        away = points - found.closest
        length = away.norm(dim=1)
        distance, sign = found.distance, torch.where(found.distance < 0, -1.0, 1.0)
        if self.unsigned or self.thickness > 0:
            distance, sign = distance.abs() - self.thickness, torch.ones_like(sign)
        # Very near the surface rounding decides where `away` points.
        normals = torch.where(
            (length > 1e-5 * self.diagonal)[:, None],
            away * (sign / length)[:, None],
            self.face_normals[found.face.long()],
        )
        return distance, normals

    def surface(
        self, count: int, generator: torch.Generator | None = None, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Random points [count, 3] of the surface and their faces [count] int64.

        A face is drawn with a probability proportional to its area times its weight [F], if given. The normals of the
        points are `face_normals[faces]`.
        """
        mass = self.areas if weights is None else self.areas * weights
        cumulative = mass.cumsum(0)
        u = torch.rand(count, dtype=torch.float64, device=self.device, generator=generator) * cumulative[-1]
        faces = torch.searchsorted(cumulative, u, right=True).clamp(max=len(mass) - 1)
        s, t = torch.rand(2, count, 1, device=self.device, generator=generator, dtype=torch.float32)
        root = s.sqrt()  # uniform in the triangle
        a, b, c = self.tree.vertices[self.tree.faces[faces].long()].unbind(1)
        return (1 - root) * a + root * (1 - t) * b + root * t * c, faces

    def curvature(self) -> Tensor:
        """[F] float32 how much the surface bends at each face: the mean absolute curvature times the diagonal.

        At an edge of length l with the angle theta between its faces the integral of the mean curvature is theta l / 2
        (Cohen-Steiner and Morvan, 2003); either face gets half. Edges of one face, or of more than two, count as flat.
        """
        adjacency = torch.from_numpy(np.array(self.mesh.face_adjacency)).to(self.device)  # [E, 2]
        edges = torch.from_numpy(np.array(self.mesh.face_adjacency_edges)).to(self.device)
        length = (self.tree.vertices[edges[:, 0]] - self.tree.vertices[edges[:, 1]]).norm(dim=1).double()
        left, right = self.face_normals[adjacency].double().unbind(1)
        angle = torch.atan2(torch.linalg.cross(left, right).norm(dim=1), (left * right).sum(1))
        bend = torch.zeros_like(self.areas).index_add_(
            0, adjacency.flatten(), (angle * length / 4).repeat_interleave(2)
        )
        return (bend / self.areas.clamp(min=1e-12 * self.diagonal**2) * self.diagonal).float()
