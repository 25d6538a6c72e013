"""Textures of meshes: charts in a plane, and in each texel the colour of its place on the surface.

A texel at u, nearest to the chart's triangle with corners u_i in the plane and p_i in space, shows the place
    p = sum_i w_i p_i,  where  sum_i w_i u_i = u  and  sum_i w_i = 1,
then moved onto the surface of the field by Newton's method, p - f(p) grad f(p) / |grad f(p)|^2. Up to two texels beside
a chart its triangle goes on (some w_i < 0), so that filtering at a chart's border meets the surface's own colours;
farther away, where only coarse mipmaps look, the nearest of these texels is repeated. The charts are by xatlas.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from sdfgan import ops
from sdfgan.checks import check_whole
from sdfgan.errors import require_module
from sdfgan.fields.base import Field
from sdfgan.meshes.decimate import decimate
from sdfgan.meshes.isosurface import arguments_of, check_condition, colours_at, painted

Colours = Callable[[Tensor, Tensor], Tensor]  # of places [N, 3] with unit normals [N, 3] on the CPU: [N, 3] in [0, 1]

_log = logging.getLogger(__name__)
_EXTENT = 100.0  # of what is cut into charts: xatlas drops triangles whose area is below 1e-7
_PADDING = 4  # texels between charts
_MANY = 100_000  # faces, whose charts take most of a minute, and of rough meshes several
_BESIDE = 2.0  # texels beside a chart in which its triangles go on
_MAX_WEIGHT = 3.0  # of a corner there: a sliver would go on beyond all bounds
_STEPS = 2  # of Newton's method
_AT_ONCE = 2**17  # texels


class Charts(NamedTuple):
    """A mesh cut into charts: W vertices of its V, some of them several times."""

    vertex: np.ndarray  # [W] int64, which of the mesh's it is
    faces: np.ndarray  # [F, 3] int64, in the order of the mesh's
    uv: np.ndarray  # [W, 2] float64 in [0, 1], v upwards


def finished(
    mesh: trimesh.Trimesh,
    field: Field,
    condition: Any = None,
    faces: int = 0,
    texture: int = 0,
    colours: Colours | None = None,
) -> trimesh.Trimesh:
    """A field's mesh, in its coordinates, with at most so many faces (0: all) and a texture of so many texels along a
    side (0: colours at vertices, where it has some). See `decimate` and `textured`."""
    if faces and faces < len(mesh.faces):
        fewer = decimate(mesh, faces)
        if len(fewer.faces) > faces:
            _log.warning("--faces %d: the mesh has %d, and none of these can be left out", faces, len(fewer.faces))
        has_colours = mesh.visual is not None and mesh.visual.kind == "vertex" and not texture
        mesh = painted(fewer.vertices, fewer.faces, field, condition) if has_colours else fewer
    return textured(mesh, texture, field, condition, colours) if texture else mesh


@torch.no_grad()
def textured(
    mesh: trimesh.Trimesh,
    size: int,
    field: Field | None = None,
    condition: Any = None,
    colours: Colours | None = None,
) -> trimesh.Trimesh:
    """A mesh with a texture of size x size texels instead of its colours. Not differentiable.

    Args:
        mesh: in the coordinates of `field`. Corners are doubled where charts end; faces keep their order.
        size: at least 16. Charts have about four texels between them.
        field: whose surface it is: texels show places on it, and normals are those of its gradient. Without one, or for
            an unsigned field, texels show places on the triangles.
        condition: what `field.condition(latents)` gave for latents of one row, or None.
        colours: of places with normals; for None the field's `rgb`.

    Returns:
        A mesh with a PBR material: its base colour is the texture, as glTF has it in sRGB, like the images that a field
        has learned from and is shown in; metallic 0, roughness 1. It has normals at its vertices.

    Raises:
        UserError: xatlas is not installed (the extra `meshes`).
        ValueError: `size` is too small, or there is neither a field nor colours.
    """
    check_whole("textured", 16, size=size)
    if colours is None:
        if field is None:
            raise ValueError("textured: a field or colours must be given")
        check_condition("textured", field, condition)
        shown = field

        def colours(points: Tensor, normals: Tensor) -> Tensor:
            return colours_at(shown, condition, points)

    surface = None if field is None or field.unsigned else field
    charts = unwrap(mesh, size)
    corners = torch.from_numpy(np.asarray(mesh.vertices, np.float32)[charts.vertex])
    smooth = torch.from_numpy(np.asarray(mesh.vertex_normals, np.float32)[charts.vertex])  # not split by charts
    faces = torch.from_numpy(charts.faces)
    image, empty = np.zeros((size * size, 3), np.uint8), np.ones(size * size, bool)
    for texels, face, weights in _texels(charts, size):
        corner = faces[face]  # [N, 3]
        points = (weights[..., None] * corners[corner]).sum(1)
        normals = F.normalize((weights[..., None] * smooth[corner]).sum(1), dim=1)
        if surface is not None:
            points, normals = _onto(surface, condition, points, normals)
        image[texels] = (colours(points, normals).clamp(0, 1) * 255).round().byte().numpy()
        empty[texels] = False
    if surface is not None:
        smooth = _onto(surface, condition, corners, smooth, steps=0)[1]
    nearest = distance_transform_edt(empty.reshape(size, size), return_distances=False, return_indices=True)
    texture = Image.fromarray(image.reshape(size, size, 3)[tuple(nearest)])
    sheet = field is not None and field.unsigned  # which is seen from both sides
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=sheet)
    return trimesh.Trimesh(
        np.asarray(mesh.vertices)[charts.vertex],
        charts.faces,
        vertex_normals=smooth.double().numpy(),
        visual=TextureVisuals(uv=charts.uv, material=material),
        process=False,
    )


def unwrap(mesh: trimesh.Trimesh, size: int) -> Charts:
    """A mesh's charts, side by side in the unit square, for a texture of size x size texels. Raises UserError."""
    require_module("xatlas", "a texture", "meshes")
    import xatlas

    if (count := len(mesh.faces)) > _MANY:
        _log.warning("a texture: charts of %d faces take minutes; --faces (meshes.decimate) leaves fewer", count)
    vertices = np.asarray(mesh.vertices, np.float64)
    low, extent = vertices.min(0), max(float(np.ptp(vertices, axis=0).max()), 1e-30)
    atlas = xatlas.Atlas()
    atlas.add_mesh(((vertices - low) * (_EXTENT / extent)).astype(np.float32), np.asarray(mesh.faces, np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding = size, _PADDING
    atlas.generate(xatlas.ChartOptions(), options)
    vertex, faces, uv = atlas.get_mesh(0)
    sides = np.array([atlas.width, atlas.height], np.float64)  # near `size`; texels are to be squares
    return Charts(vertex.astype(np.int64), faces.astype(np.int64), uv.astype(np.float64) * sides / sides.max())


def _texels(charts: Charts, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The texels on charts and beside them, some [N] at a time, numbered row by row from the top, with their faces [N]
    and weights of corners [N, 3]."""
    flat = torch.from_numpy(charts.uv)
    faces = torch.from_numpy(charts.faces)
    tree = ops.mesh_tree(F.pad(flat, (0, 1)).float(), faces.int())
    for texels in torch.arange(size * size).split(_AT_ONCE):
        place = torch.stack([texels % size + 0.5, size - 0.5 - texels // size], 1) / size
        found = ops.mesh_distance(tree, F.pad(place, (0, 1)).float())
        near = (found.distance.abs() <= _BESIDE / size).nonzero()[:, 0]
        texels, place, face, closest = texels[near], place[near], found.face[near].long(), found.closest[near]
        triangle = flat[faces[face]]  # [N, 3, 2]
        inside = _weights(triangle, closest[:, :2].double()).clamp(0, 1)
        weights = _weights(triangle, place.double())
        onward = weights.abs().amax(1, keepdim=True) <= _MAX_WEIGHT
        weights = torch.where(onward, weights, inside / inside.sum(1, keepdim=True))
        yield texels, face, torch.where(weights.isfinite().all(1, keepdim=True), weights, 1 / 3).float()


def _weights(triangle: Tensor, points: Tensor) -> Tensor:
    """Barycentric weights [N, 3] of points [N, 2] of the planes of triangles [N, 3, 2]; not finite without an area."""
    a, b, c = triangle.unbind(1)
    u, v, p = b - a, c - a, points - a
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    second, third = (
        (p[:, 0] * v[:, 1] - p[:, 1] * v[:, 0]) / area,
        (u[:, 0] * p[:, 1] - u[:, 1] * p[:, 0]) / area,
    )
    return torch.stack([1 - second - third, second, third], 1)


def _onto(field: Field, condition: Any, points: Tensor, normals: Tensor, steps: int = _STEPS) -> tuple[Tensor, Tensor]:
    """Points [N, 3] after some steps of Newton's method, each where it came nearest to the surface, and unit normals
    there: the field's, unless it has none or one from behind that given."""
    best, found, normal = torch.full_like(points[:, 0], math.inf), points, normals
    for step in range(steps + 1):
        given, image = arguments_of(field, condition, points)
        value, gradient = (part.float().cpu() for part in field.sdf_and_gradient(given, condition, image))
        towards = F.normalize(gradient, dim=1)
        nearer = value.abs() < best
        best = torch.where(nearer, value.abs(), best)
        found = torch.where(nearer[:, None], points, found)
        normal = torch.where((nearer & ((towards * normals).sum(1) > 0))[:, None], towards, normal)
        if step < steps:
            points = points - value[:, None] * gradient / gradient.square().sum(1, keepdim=True).clamp(min=1e-12)
    return found, normal
