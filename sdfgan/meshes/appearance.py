"""Meshes as they look: colours, materials and textures of files, and images of them. Not differentiable."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from PIL import Image
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV, ray_grid
from sdfgan.checks import check_axes, check_fov, check_whole
from sdfgan.images import UnreadableImage, to_rgba, to_srgb
from sdfgan.meshes.materials import FolderResolver, Wrap, no_ghostscript, unused_files, with_materials, wraps_of
from sdfgan.meshes.normalise import Placement, normalise
from sdfgan.meshes.read import read_mesh
from sdfgan.raycast.lighting import Lighting

_GREY = 0.7  # of what has no colour
_DEFAULT_DIFFUSE = [102, 102, 102, 255]  # trimesh's, where a material has none
_CUTOFF = 0.5  # glTF's default of the opacity from which on a mask is opaque
_MAX_LAYERS = 16  # of transparent surfaces one behind the other
_OPAQUE = 1 - 1 / 512
_BEHIND = 1e-5  # how far behind a transparent surface a ray goes on, in units of the model's ball
_SAME_SIZE = 1e-5


class Model(NamedTuple):
    """Triangles that can be seen, in the unit ball; F faces, T textures. `model_of` and `read_model` make it."""

    tree: ops.MeshTree
    normals: Tensor  # [F, 3, 3] unit normals at the corners
    colours: Tensor  # [F, 3, 4] RGBA at the corners, which textures are multiplied by
    uv: Tensor  # [F, 3, 2], v upwards
    texture: Tensor  # [F] int64 index into textures; -1: none
    textures: list[Tensor]  # [H, W, 4] RGBA in [0, 1], row 0 at the top
    wraps: list[tuple[Wrap, Wrap]]  # of each texture: how it goes on along u and v outside [0, 1]

    def albedo(self, face: Tensor, weights: Tensor) -> Tensor:
        """RGBA [N, 4] at the points with barycentric weights [N, 3] of faces [N]."""
        colours = (weights[..., None] * self.colours[face]).sum(1)
        uv, texture = (weights[..., None] * self.uv[face]).sum(1), self.texture[face]
        for index in texture.unique().tolist():
            if index >= 0:
                there = texture == index
                colours[there] *= _lookup(self.textures[index], uv[there], self.wraps[index])
        return colours


def read_model(path: str | os.PathLike[str], margin: float = 0.1, texels: int | None = None) -> tuple[Model, list[str]]:
    """A mesh file (as `read_mesh` takes) with its colours in the ball of radius 1 - margin, and what was left out.

    Where a reader of colours cuts polygons into other triangles, `read_mesh`'s are taken, and coloured like the nearest
    of the others; where the two read another box altogether the model is grey, and a note says so. A material or
    texture that is missing, or outside the file's folder, is noted. `texels`: textures are reduced to about so many
    along their longer side.

    Raises UserError, one line that names the file.
    """
    with no_ghostscript():
        return _read_model(Path(path), margin, texels)


def _read_model(path: Path, margin: float, texels: int | None) -> tuple[Model, list[str]]:
    mesh, parts = read_mesh(path), _parts(path)
    plain, notes = model_of([mesh], margin), [f"{path}: colours, if it has any, cannot be read; it is grey"]
    if not parts:
        return plain, notes + unused_files(path)
    boxes = np.array([_extent(part.vertices, part.faces) for part in parts])
    box = (*boxes[:, :3].min(0), *boxes[:, 3:].max(0))
    if not np.allclose(box, _extent(mesh.vertices, mesh.faces), _SAME_SIZE):
        return plain, notes
    try:
        coloured = model_of(parts, margin, texels)
    except Exception:  # of whatever kind: trimesh takes materials of any types, such as a name for an image
        return plain, notes + unused_files(path)
    same = abs(_area(coloured) - _area(plain)) <= _SAME_SIZE * _area(plain)
    notes = [f"{path}: a texture is not used: not all of its faces have texture coordinates"]
    notes = unused_files(path) + (notes if any(map(_lacks_uv, parts)) else [])
    return (coloured if same else _repainted(plain, coloured)), notes


def model_of(parts: Sequence[trimesh.Trimesh], margin: float | None = None, texels: int | None = None) -> Model:
    """Meshes with their colours as one model, moved and scaled into the ball of radius 1 - margin unless it is None.

    Faces with corners that are not finite are left out.
    """
    sound = [np.isfinite(part.vertices[part.faces]).all((1, 2)) for part in parts]
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([start + part.faces[good] for part, good, start in zip(parts, sound, starts, strict=False)])
    if margin is not None:
        vertices = normalise(trimesh.Trimesh(vertices, faces, process=False), "ball", margin)[0].vertices
    vertices = np.where(np.isfinite(vertices), vertices, 0.0)  # of corners that no face is left of
    looks = [_look(part, good, texels) for part, good in zip(parts, sound, strict=True)]
    textures = [look.texture for look in looks if look.texture is not None]
    wraps = [
        wraps_of(getattr(part.visual, "material", None))
        for part, look in zip(parts, looks, strict=True)
        if look.texture is not None
    ]
    numbers = np.cumsum([look.texture is not None for look in looks]) - 1
    texture = [
        torch.full((len(look.colours),), int(n) if look.texture is not None else -1, device="cpu")
        for look, n in zip(looks, numbers, strict=True)
    ]
    tree = ops.mesh_tree(
        torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(np.ascontiguousarray(faces, np.int32))
    )
    normals, colours, uv = (torch.cat([getattr(look, name) for look in looks]) for name in ("normals", "colours", "uv"))
    return Model(tree, normals, colours, uv, torch.cat(texture), textures, wraps)


@torch.no_grad()
def render_model(
    model: Model,
    axes: Tensor,
    resolution: int,
    *,
    fov: float = DEFAULT_FOV,
    supersample: int = 4,
    light: Lighting | None = None,
) -> Tensor:
    """[B, 4, R, R] float32 premultiplied RGBA of a model from orbit cameras `axes` [B, 3, 3], on the CPU.

    Rays through supersample^2 points of each pixel meet the triangles exactly (`ops.mesh_raycast`), from either side;
    normals are interpolated. Surfaces with an opacity below 1 are blended, nearest first. `light`: a half-Lambert
    headlight for None; it multiplies the colours as they are stored.
    """
    check_axes("render_model", axes)
    check_whole("render_model", 1, resolution=resolution, supersample=supersample)
    check_fov("render_model", fov)
    axes, side = axes.float().cpu(), resolution * supersample
    images = []
    for index, camera in enumerate(axes.split(1)):
        origins, directions = (part.reshape(-1, 3).contiguous() for part in ray_grid(camera, side, fov=fov))
        rgba = trace_model(model, origins, directions, axes, light, index).rgba
        images.append(F.avg_pool2d(rgba.T.view(1, 4, side, side), supersample)[0])
    return torch.stack(images)


def file_colours(path: Path, placement: Placement) -> tuple[Callable[[Tensor, Tensor], Tensor], list[str]]:
    """The colours of a mesh file's surface, and what of the file is not shown.

    They are a function of places [N, 3] where `placement` puts the mesh (of their normals nothing is used) that gives
    RGB [N, 3] at the nearest place of the file's surface. Raises UserError, one line that names the file.
    """
    model, notes = read_model(path)
    own = normalise(read_mesh(path))[1]  # in both, the same ball
    if not model.textures and bool((model.colours[..., :3] == _GREY).all()) and not notes:
        notes = [f"{path}: has no colours: it is grey"]

    def colours(points: Tensor, normals: Tensor) -> Tensor:
        there = own.normalised(placement.original(points.double())).float()
        found = ops.mesh_distance(model.tree, there)
        face = found.face.long()
        weights = _weights(model.tree, face, found.closest[:, None])[:, 0].clamp(0, 1)
        return model.albedo(face, weights)[:, :3]

    return colours, notes


class ModelHits(NamedTuple):
    """What N rays see of a model."""

    rgba: Tensor  # [N, 4] premultiplied; transparent surfaces are blended
    depth: Tensor  # [N] of the first surface, in lengths of the direction; infinite where there is none
    normals: Tensor  # [N, 3] unit normals of it, on the side that is seen; 0 where there is none


@torch.no_grad()
def trace_model(
    model: Model, origins: Tensor, directions: Tensor, axes: Tensor, light: Lighting | None = None, index: int = 0
) -> ModelHits:
    """What rays [N, 3], float32 and contiguous, see from one of the cameras with `axes` [B, 3, 3], as `render_model`
    does; the light may differ between these."""
    light, found = light or Lighting(), None
    canvas = origins.new_zeros(len(origins), 4)
    # Those that go on, and how much is seen of them.
    ray, clear = torch.arange(len(origins), device=origins.device), origins.new_ones(len(origins))
    for _ in range(_MAX_LAYERS):
        hits = ops.mesh_raycast(model.tree, origins, directions)
        met = (hits.face >= 0).nonzero()[:, 0]
        face, weights, onward = hits.face[met].long(), hits.barycentric[met], directions[met]
        ray, clear = ray[met], clear[met]
        colour = model.albedo(face, weights)
        normal = _towards_the_eye(model, face, weights, onward)
        if found is None:
            found = hits.distance, canvas.new_zeros(len(canvas), 3).index_copy(0, ray, normal)
        bright = light.brightness(normal, axes, torch.full_like(face, index))
        seen = (clear * colour[:, 3])[:, None]
        canvas[ray] += torch.cat([colour[:, :3] * bright * seen, seen], 1)
        clear = clear * (1 - colour[:, 3])
        through = (clear > 1 - _OPAQUE).nonzero()[:, 0]
        if len(through) == 0:
            break
        distance = hits.distance[met][through, None] + _BEHIND
        origins = origins[met][through] + distance * onward[through]
        directions, ray, clear = onward[through], ray[through], clear[through]
    assert found is not None
    return ModelHits(canvas, *found)


def render_mesh(
    mesh: trimesh.Trimesh, axes: Tensor, resolution: int, fov: float = DEFAULT_FOV, supersample: int = 4
) -> Tensor:
    """`render_model` of one mesh where it lies, in the dtype of `axes`; a mesh without colours is grey."""
    return render_model(model_of([mesh]), axes, resolution, fov=fov, supersample=supersample).to(axes.dtype)


# ------------------------------------------------------------------------------------------------------- what files say


class _Look(NamedTuple):
    """Of the F faces of a part that are used."""

    normals: Tensor  # [F, 3, 3]
    colours: Tensor  # [F, 3, 4]
    uv: Tensor  # [F, 3, 2]
    texture: Tensor | None  # [H, W, 4]


def _parts(path: Path) -> list[trimesh.Trimesh]:
    """The parts of a file that trimesh reads, with their colours; none where it cannot."""
    try:
        file, kind = with_materials(path)
        scene = trimesh.load_scene(file, file_type=kind, process=False, resolver=FolderResolver(str(path)))
        for mesh in scene.geometry.values():
            if getattr(mesh.visual, "vertex_attributes", None):  # which copies of a look lack
                mesh.vertex_attributes.update(mesh.visual.vertex_attributes)
        found = scene.dump(concatenate=False)
        return [part for part in found if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    except Exception:  # of whatever kind; the mesh itself has been read
        return []


def _lacks_uv(part: trimesh.Trimesh) -> bool:
    """Whether a part has a texture, and not for each vertex a place in it."""
    visual: Any = part.visual
    material = visual.material if getattr(visual, "kind", None) == "texture" else None
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    return image is not None and (visual.uv is None or len(visual.uv) != len(part.vertices))


def _extent(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, ...]:
    """Lowest and highest corner of the box of the faces whose corners are finite."""
    corners = vertices[faces[np.isfinite(vertices[faces]).all((1, 2))]]
    return (*corners.min((0, 1), initial=np.inf), *corners.max((0, 1), initial=-np.inf))


def _area(model: Model) -> float:
    a, b, c = model.tree.vertices.double()[model.tree.faces.long()].unbind(1)
    return float(torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2)


def _repainted(model: Model, source: Model) -> Model:
    """A model with the looks that another one, of polygons cut into other triangles, has at its faces' centres."""
    corners = model.tree.vertices[model.tree.faces.long()]  # [F, 3, 3]
    face = ops.mesh_distance(source.tree, corners.mean(1)).face.long()
    weights = _weights(source.tree, face, corners)  # [F, 3 corners, 3]; may lie outside: uv goes on as a plane
    inside = weights.clamp(min=0) / weights.clamp(min=0).sum(-1, keepdim=True)
    return Model(
        model.tree,
        F.normalize(inside @ source.normals[face], dim=-1),
        inside @ source.colours[face],
        weights @ source.uv[face],
        source.texture[face],
        source.textures,
        source.wraps,
    )


def _weights(tree: ops.MeshTree, face: Tensor, points: Tensor) -> Tensor:
    """Barycentric weights [N, P, 3] of points [N, P, 3], as seen along the normals of faces [N]."""
    a, b, c = (corner[:, None] for corner in tree.vertices[tree.faces[face].long()].unbind(1))
    u, v, p = b - a, c - a, points - a
    uu, uv, vv, pu, pv = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v), (p, u), (p, v)))
    area = uu * vv - uv * uv
    second, third = (vv * pu - uv * pv) / area, (uu * pv - uv * pu) / area
    weights = torch.stack([1 - second - third, second, third], -1)
    return torch.where(weights.isfinite().all(-1, keepdim=True), weights, 1 / 3)


def _look(part: trimesh.Trimesh, good: np.ndarray, texels: int | None) -> _Look:
    faces = part.faces[good]
    with np.errstate(all="ignore"):
        normals = torch.from_numpy(np.nan_to_num(np.asarray(part.vertex_normals))[faces].astype(np.float32))
    colours, uv, texture = normals.new_full((len(faces), 3, 4), _GREY), normals.new_zeros(len(faces), 3, 2), None
    colours[..., 3] = 1.0
    visual: Any = part.visual
    if visual is None or visual.kind is None:
        return _Look(normals, colours, uv, texture)
    if visual.kind != "texture":
        rgba = np.asarray(visual.vertex_colors if visual.kind == "vertex" else visual.face_colors) / 255.0
        rgba = rgba[faces] if visual.kind == "vertex" else np.repeat(rgba[good][:, None], 3, 1)
        return _Look(normals, torch.from_numpy(rgba.astype(np.float32)), uv, texture)
    material, painted = visual.material, _painted(part)
    if isinstance(material, trimesh.visual.material.PBRMaterial):
        image, factor, mode = material.baseColorTexture, material.baseColorFactor, material.alphaMode or "OPAQUE"
        cutoff = _CUTOFF if material.alphaCutoff is None else float(material.alphaCutoff)
    else:
        image, factor, mode, cutoff = material.image, material.diffuse, "BLEND", _CUTOFF
        if image is not None and "kd" not in material.kwargs and factor.tolist() == _DEFAULT_DIFFUSE:
            factor = None  # nothing in the file darkens the texture
    if factor is not None:
        factor = np.asarray(factor, np.float64)
        factor = factor / 255 if factor.max(initial=0) > 1 or factor.dtype.kind == "u" else factor
        factor = np.array([*factor[:3], *(factor[3:4] if len(factor) > 3 else [1.0])])
    elif image is not None or painted is not None or isinstance(material, trimesh.visual.material.PBRMaterial):
        factor = np.ones(4)  # glTF's default, and what a texture is multiplied by
    if factor is not None and isinstance(material, trimesh.visual.material.PBRMaterial):
        factor = factor if painted is None else factor * painted[faces]
        factor = np.concatenate([to_srgb(factor[..., :3]), factor[..., 3:]], -1)  # glTF's are in linear light
    if factor is not None:
        colours[:] = torch.from_numpy(factor.astype(np.float32))
    if image is not None and visual.uv is not None and len(visual.uv) == len(part.vertices):
        uv = torch.from_numpy(np.nan_to_num(np.asarray(visual.uv, np.float32)[:, :2], posinf=0, neginf=0)[faces])
        texture = _texture(image, texels)
    if mode == "OPAQUE":
        colours[..., 3] = 1.0
        if texture is not None:
            texture[..., 3] = 1.0
    elif mode == "MASK" and texture is not None:
        texture[..., 3] = (texture[..., 3] * colours[0, 0, 3] >= cutoff).float()
        colours[..., 3] = 1.0
    return _Look(normals, colours, uv, texture)


def _painted(part: trimesh.Trimesh) -> np.ndarray | None:
    """RGBA [V, 4] in linear light of vertices that have a material besides; None where there is none."""
    colours = np.asarray(part.vertex_attributes.get("color", ()))
    if colours.ndim != 2 or len(colours) != len(part.vertices) or colours.shape[1] not in (3, 4):
        return None
    if colours.dtype.kind == "u":
        colours = colours / np.iinfo(colours.dtype).max
    return np.concatenate([colours, np.ones((len(colours), 1))], 1)[:, :4]


def _texture(image: Image.Image, texels: int | None) -> Tensor | None:
    """None for an image of a kind that is not read."""
    try:
        image = to_rgba(image)
    except UnreadableImage:
        return None
    if texels is not None and max(image.size) > texels:
        image = image.reduce(max(image.size) // texels)
    return torch.from_numpy(np.array(image, np.float32) / 255)


def _lookup(texture: Tensor, uv: Tensor, wraps: tuple[Wrap, Wrap] = ("repeat", "repeat")) -> Tensor:
    """Texture [H, W, 4] at uv [N, 2], bilinear; outside [0, 1] it goes on along u and v as `wraps` says."""
    (x0, x1), u = _texels(uv[:, 0], texture.shape[1], wraps[0])
    (y0, y1), v = _texels(1 - uv[:, 1], texture.shape[0], wraps[1])
    top = (1 - u) * texture[y0, x0] + u * texture[y0, x1]
    return (1 - v) * top + v * ((1 - u) * texture[y1, x0] + u * texture[y1, x1])


def _texels(place: Tensor, size: int, wrap: Wrap) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The two of `size` texels, which [0, 1] holds, beside places [N], and the share [N, 1] of the second."""
    if wrap == "clamp":
        place = place.clamp(0, 1)
    else:  # first into one period: a file may have any number
        period = 2 if wrap == "mirror" else 1
        place = place - period * (place / period).floor()
        place = torch.minimum(place, 2 - place) if wrap == "mirror" else place
    place = place * size - 0.5
    low = place.floor()
    pair = low.long(), low.long() + 1
    first, second = (texel % size if wrap == "repeat" else texel.clamp(0, size - 1) for texel in pair)
    return (first, second), (place - low)[:, None]


def _towards_the_eye(model: Model, face: Tensor, weights: Tensor, directions: Tensor) -> Tensor:
    """Unit normals [N, 3], interpolated, on the side of the faces that is seen; those of faces where there is none."""
    a, b, c = model.tree.vertices[model.tree.faces[face].long()].unbind(1)
    flat = F.normalize(torch.linalg.cross(b - a, c - a), dim=-1, eps=1e-30)
    smooth = (weights[..., None] * model.normals[face]).sum(1)
    smooth = torch.where((smooth * flat).sum(-1, keepdim=True) < 0, -smooth, smooth)
    normal = F.normalize(torch.where(smooth.norm(dim=-1, keepdim=True) > 1e-3, smooth, flat), dim=-1)
    return torch.where((flat * directions).sum(-1, keepdim=True) > 0, -normal, normal)
