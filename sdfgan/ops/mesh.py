"""Signed distances to triangle meshes: exact distance over a tree of boxes, sign by the winding number."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MeshTree(NamedTuple):
    """A mesh and the tree over it, from `mesh_tree`."""

    vertices: Tensor  # [V, 3] float32
    faces: Tensor  # [F, 3] int32

    def to(self, device: torch.device | str) -> MeshTree:
        """The same on another device."""
        return MeshTree(*(tensor.to(device) for tensor in self))


class MeshDistance(NamedTuple):
    """What `mesh_distance` finds for N points."""

    distance: Tensor  # [N] signed, negative where the winding number exceeds 1/2; NaN for points that are not finite
    face: Tensor  # [N] int32, a face that is closest; -1 for points that are not finite
    closest: Tensor  # [N, 3] the closest point of that face
    winding: Tensor  # [N] generalised winding number


def mesh_tree(vertices: Tensor, faces: Tensor) -> MeshTree:
    """The tree of a mesh, for `mesh_distance`; built on the CPU."""
    return MeshTree(vertices, faces)


def mesh_distance(tree: MeshTree, points: Tensor) -> MeshDistance:
    """Signed distances from points [N, 3] float32 to a mesh. Not differentiable."""
    from . import reference

    return reference.mesh_distance(tree, points)
