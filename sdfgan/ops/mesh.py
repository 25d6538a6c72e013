"""Triangle meshes over a tree of boxes: exact signed distances, and where rays meet them first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .. import _C
from ._library import Checker, kernel_threads, native, refuse_gradient, register, require_tensors

_LARGEST = 1e12  # coordinates: their cubes are float32 too
_MORTON_BITS = 10


class MeshTree(NamedTuple):
    """A mesh and the tree over its faces, as `mesh_tree` makes it; csrc/core/mesh.h says what it holds."""

    vertices: Tensor  # [V, 3] float32
    faces: Tensor  # [F, 3] int32
    nodes: Tensor  # [M, 19, 8] float32
    children: Tensor  # [M, 8] int32
    leaves: Tensor  # [L, 17, 8] float32
    leaf_faces: Tensor  # [L, 8] int32
    closed: Tensor  # [] bool, whether the faces bound something: each edge is used as often forwards as backwards

    def to(self, device: torch.device | str) -> MeshTree:
        """The same on another device."""
        return MeshTree(*(tensor.to(device) for tensor in self))


class MeshDistance(NamedTuple):
    """What `mesh_distance` finds for N points; NaN, and face -1, for points that are not finite."""

    distance: Tensor  # [N] float32, negative where the winding number exceeds 1/2
    face: Tensor  # [N] int32, one that is nearest
    closest: Tensor  # [N, 3] float32, the point of that face
    winding: Tensor  # [N] float32


class MeshHits(NamedTuple):
    """Where N rays meet a mesh first; NaN, and face -1, for rays that are not finite or have no direction."""

    distance: Tensor  # [N] float32 in lengths of the direction; infinite where nothing is met
    face: Tensor  # [N] int32; -1 where nothing is met
    barycentric: Tensor  # [N, 3] float32 weights of the face's corners, which sum to 1; 0 where nothing is met


def mesh_tree(vertices: Tensor, faces: Tensor) -> MeshTree:
    """The tree of a mesh, for `mesh_distance` and `mesh_raycast`; built on the CPU, alike for any number of threads.

    Args:
        vertices: [V, 3] float32 on the CPU, finite, no coordinate beyond 1e12.
        faces: [F, 3] int32, F >= 1, anticlockwise from outside. Any triangles: open, intersecting, without area.

    Raises ValueError for anything else. Not differentiable.
    """
    require_tensors("mesh_tree", vertices=vertices, faces=faces)
    refuse_gradient("mesh_tree", vertices=vertices)
    check = Checker("mesh_tree")
    check.device = torch.device("cpu")
    check("vertices", vertices, ("V", 3), (torch.float32,))
    check("faces", faces, ("F", 3), (torch.int32,))
    if len(faces) == 0:
        raise ValueError("mesh_tree: faces must be [F, 3] with F >= 1, got [0, 3]")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= len(vertices):
        raise ValueError(f"mesh_tree: faces must be in [0, V), got {low} to {high} (V={len(vertices)})")
    if not bool((vertices.abs() <= _LARGEST).all()):
        raise ValueError(f"mesh_tree: vertices must be finite and within {_LARGEST:g}")
    built = _C.MeshTree(vertices.data_ptr(), faces.data_ptr(), len(faces), kernel_threads())
    # Whatever torch's default dtype and device are: the memory is written below.
    nodes, leaves = vertices.new_empty(built.nodes, 19, 8), vertices.new_empty(built.leaves, 17, 8)
    children, leaf_faces = faces.new_empty(built.nodes, 8), faces.new_empty(built.leaves, 8)
    built.write(nodes.data_ptr(), children.data_ptr(), leaves.data_ptr(), leaf_faces.data_ptr())
    return MeshTree(vertices, faces, nodes, children, leaves, leaf_faces, _is_closed(faces.long(), len(vertices)))


def mesh_distance(tree: MeshTree, points: Tensor) -> MeshDistance:
    """Signed distances from points to a mesh, to 1e-6 of the extent of mesh and points, slivers included.

    The nearest triangle is found in float32 over the tree, and the distance to it computed in float64. Inside is where
    the generalised winding number (Jacobson et al. 2013) exceeds 1/2; that of far nodes is expanded to the second term
    (Barill et al. 2018), which keeps it to 0.06, and better where meshes are fine. Points near each other in space
    share work, in any order: of a closed mesh, also the winding number, where no surface can lie between them.

    Args:
        tree: from `mesh_tree`; trees from elsewhere are not checked.
        points: [N, 3] float32 on the device of the tree.

    Returns:
        Distances, faces, closest points and winding numbers. Not differentiable: RuntimeError when `points` requires
        grad. Where points are not on the surface, the gradient of the distance is (points - closest) / distance.
    """
    require_tensors("mesh_distance", points=points)
    refuse_gradient("mesh_distance", points=points)
    return MeshDistance(*_op(*tree, points))


def mesh_raycast(tree: MeshTree, origins: Tensor, directions: Tensor) -> MeshHits:
    """Where rays first meet the triangles of a mesh, from either side, from their origins on.

    Triangles are found in float32 over the tree and met in float64, by the signed volumes that a ray spans with the
    sides (Woop et al., "Watertight Ray/Triangle Intersection", 2013, has them in float32): no ray slips between two
    that share a side. Triangles without area are never met. Rays near each other should be neighbours in order.

    Args:
        tree: from `mesh_tree`; trees from elsewhere are not checked.
        origins: [N, 3] float32 on the device of the tree.
        directions: [N, 3] float32, of any length.

    Returns:
        Distances, faces and barycentric weights. Not differentiable: RuntimeError when a tensor requires grad.
    """
    require_tensors("mesh_raycast", origins=origins, directions=directions)
    refuse_gradient("mesh_raycast", origins=origins, directions=directions)
    return MeshHits(*_raycast_op(*tree, origins, directions))


_TREE = ", ".join(f"Tensor {name}" for name in MeshTree._fields)


def _is_closed(faces: Tensor, vertices: int) -> Tensor:
    """Whether the winding number of faces [F, 3] is a whole number everywhere, so that it only changes at them."""
    start, end = faces.flatten(), faces.roll(-1, 1).flatten()
    edges, edge = torch.unique(torch.minimum(start, end) * vertices + torch.maximum(start, end), return_inverse=True)
    return (torch.zeros_like(edges).index_add(0, edge, (end - start).sign()) == 0).all()


def _checked_tree(name: str, tree: MeshTree) -> Checker:
    check, real, whole = Checker(name), (torch.float32,), (torch.int32,)
    check("vertices", tree.vertices, ("V", 3), real)
    check("faces", tree.faces, ("F", 3), whole)
    check("nodes", tree.nodes, ("M", 19, 8), real)
    check("children", tree.children, ("M", 8), whole)
    check("leaves", tree.leaves, ("L", 17, 8), real)
    check("leaf_faces", tree.leaf_faces, ("L", 8), whole)
    check("closed", tree.closed, (), (torch.bool,))
    return check


def _fake(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *tree, points = tensors
    check = _checked_tree("mesh_distance", MeshTree(*tree))
    check("points", points, ("N", 3), (torch.float32,))
    count = len(points)
    distance, winding = points.new_empty(count), points.new_empty(count)
    return distance, points.new_empty(count, dtype=torch.int32), torch.empty_like(points), winding


def _kernel(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    out = distance, face, closest, winding = _fake(*tensors)
    points = tensors[-1]
    order = _morton(points).argsort().to(torch.int32) if points.is_cuda else None
    native(points).mesh_distance(
        tree=dict(zip(MeshTree._fields, tensors, strict=False)),
        points=points,
        order=order,
        distance=distance,
        face=face,
        closest=closest,
        winding=winding,
        count=len(points),
    )
    return out


def _morton(points: Tensor) -> Tensor:
    """[N] int32 places of points along a Morton curve; the CPU kernel sorts along it by itself."""
    if len(points) == 0:
        return points.new_empty(0, dtype=torch.int32)
    low, high = points.nan_to_num(0, 0, 0).aminmax(dim=0)
    cells = ((points - low) / (high - low) * 2**_MORTON_BITS).nan_to_num(0).clamp(0, 2**_MORTON_BITS - 1).int()
    code = torch.zeros_like(cells[:, 0])
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= (cells[:, axis] >> bit & 1) << (3 * bit + axis)
    return code


_op = register(f"mesh_distance({_TREE}, Tensor points) -> (Tensor, Tensor, Tensor, Tensor)", _kernel, _fake)


def _raycast_fake(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    *tree, origins, directions = tensors
    check = _checked_tree("mesh_raycast", MeshTree(*tree))
    check("origins", origins, ("N", 3), (torch.float32,))
    check("directions", directions, ("N", 3), (torch.float32,))
    count = len(origins)
    return origins.new_empty(count), origins.new_empty(count, dtype=torch.int32), torch.empty_like(origins)


def _raycast_kernel(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    out = distance, face, barycentric = _raycast_fake(*tensors)
    origins, directions = tensors[-2:]
    native(origins).mesh_raycast(
        tree=dict(zip(MeshTree._fields, tensors, strict=False)),
        origins=origins,
        directions=directions,
        distance=distance,
        face=face,
        barycentric=barycentric,
        count=len(origins),
    )
    return out


_raycast_op = register(
    f"mesh_raycast({_TREE}, Tensor origins, Tensor directions) -> (Tensor, Tensor, Tensor)",
    _raycast_kernel,
    _raycast_fake,
)
