"""Pictures of triangle meshes: what the pictures of a field are to be like in inverse rendering. Not differentiable."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from sdfgan.cameras import DEFAULT_FOV, camera_distance


def render_mesh(
    mesh: trimesh.Trimesh, axes: Tensor, resolution: int, fov: float = DEFAULT_FOV, supersample: int = 4
) -> Tensor:
    """[B, 4, R, R] premultiplied RGBA of a mesh from orbit cameras `axes` [B, 3, 3], lit by half-Lambert headlights.

    A depth buffer per picture, with supersample^2 samples per pixel and smooth vertex normals. Vertex colours are
    taken as linear albedo; a texture's are looked up at its vertices, and a mesh without colours is grey.
    """
    colours = _vertex_colours(mesh)
    normals = np.asarray(mesh.vertex_normals, dtype=np.float64)
    fine = resolution * supersample
    pictures = []
    for camera in axes.double().cpu().numpy():
        values = np.concatenate([colours, normals @ camera[2:].T], 1)  # albedo, n.l
        picture = _rasterise(np.asarray(mesh.vertices) @ camera.T, np.asarray(mesh.faces), values, fine, fov)
        shaded = picture[..., :3] * (0.5 + 0.5 * picture[..., 3:4]) * picture[..., 4:]
        rgba = torch.from_numpy(np.concatenate([shaded, picture[..., 4:]], -1)).permute(2, 0, 1)
        pictures.append(torch.nn.functional.avg_pool2d(rgba[None], supersample)[0])
    return torch.stack(pictures).to(axes.dtype)


def _rasterise(vertices: np.ndarray, faces: np.ndarray, values: np.ndarray, side: int, fov: float) -> np.ndarray:
    """[side, side, C + 1]: values [V, C] of vertices [V, 3] in camera axes, nearest first, and 1 where there is any."""
    distance = camera_distance(fov)
    depth = distance - vertices[:, 2]
    scale = side / 2 * distance / depth
    x, y = side / 2 + scale * vertices[:, 0], side / 2 - scale * vertices[:, 1]
    picture = np.zeros((side, side, values.shape[1] + 1))
    nearest = np.zeros((side, side))  # 1 / depth, which is linear in the picture
    over = values / depth[:, None]
    for a, b, c in faces:
        area = (x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a])
        left, right = int(max(min(x[a], x[b], x[c]), 0)), int(min(max(x[a], x[b], x[c]) + 1, side))
        top, bottom = int(max(min(y[a], y[b], y[c]), 0)), int(min(max(y[a], y[b], y[c]) + 1, side))
        if area == 0 or left >= right or top >= bottom:
            continue
        u, v = np.arange(left, right) + 0.5, (np.arange(top, bottom) + 0.5)[:, None]
        wb = ((u - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (v - y[a])) / area
        wc = ((x[b] - x[a]) * (v - y[a]) - (u - x[a]) * (y[b] - y[a])) / area
        wa = 1 - wb - wc
        inverse = wa / depth[a] + wb / depth[b] + wc / depth[c]
        part = nearest[top:bottom, left:right]
        seen = (wa >= 0) & (wb >= 0) & (wc >= 0) & (inverse > part)
        if not seen.any():
            continue
        part[seen] = inverse[seen]
        mixed = wa[seen, None] * over[a] + wb[seen, None] * over[b] + wc[seen, None] * over[c]
        picture[top:bottom, left:right][seen] = np.concatenate(
            [mixed / inverse[seen, None], np.ones((len(mixed), 1))], 1
        )
    return picture


def _vertex_colours(mesh: trimesh.Trimesh) -> np.ndarray:
    """[V, 3] in [0, 1]."""
    visual: Any = mesh.visual
    if visual is not None and visual.kind == "texture":
        visual = visual.to_color()
    if visual is None or visual.kind is None:
        return np.full((len(mesh.vertices), 3), 0.7)
    return np.asarray(visual.vertex_colors)[:, :3] / 255.0
