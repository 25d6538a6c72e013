"""Colours of a surface's places from the photographs that show them.

The colour of a place p with normal n is a mean over the cameras j at o_j that see it,
    c = (sum_j w_j r_j c_j + e c_field) / (sum_j w_j r_j + e),    w_j = cos_j (cos_j (f_j / |p - o_j|)^2) / W
where cos_j is between n and the way to the camera, cos_j (f_j / d)^2 how many of its pixels a unit of the surface
covers (f_j in pixels; W is its largest value among all cameras), and c_j the photograph there, divided by the factors
of its exposure if these were learnt. Outliers, such as a highlight or what stands in front, count less:
r_j = 1 / (1 + |c_j - m|^2 / s^2), with m the weighted median. Where no camera looks at it, the colour is the field's.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import trimesh
from torch import Tensor

from sdfgan import ops
from sdfgan.data.scenes import Views
from sdfgan.fields.base import Field
from sdfgan.meshes.isosurface import colours_at

_LEAST_COSINE = 0.1  # pixels at a silhouette show what is behind it too
_HIDDEN = 0.01  # scene units: what is so far before a place hides it
_OPAQUE = 0.95  # a pixel with less alpha is partly of the background
_CLIPPED = 0.995  # of a photograph that is brighter than the mean: what was there may have been brighter still
_SPREAD = 0.1  # s: differences of colour that are common
_TRUST = 0.02  # e: the field's weight
_PAIRS = 2**21  # places times cameras at a time
_ASIDE = 3.0  # pixels between a ray and its pixel's: more, and the lens has folded there


class Photographs:
    """Posed images of a surface, and that surface: a mesh in their coordinates, and the field that it is of."""

    def __init__(self, views: Views, mesh: trimesh.Trimesh, field: Field, gains: Tensor | None = None) -> None:
        """`views` are on the CPU; `gains` [views, 3] are factors that their colours are divided by."""
        self.views, self.field, self.gains = views, field, gains
        vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
        self.tree = ops.mesh_tree(vertices, torch.tensor(mesh.faces, dtype=torch.int32))
        cameras = views.cameras
        squares = cameras.camera_to_world[:, :, 3].square().sum(1).clamp(min=1e-6)
        self.most = (cameras.intrinsics[:, :2].prod(1) / squares).max()  # W, with the distance from the origin

    @torch.no_grad()
    def colours(self, points: Tensor, normals: Tensor) -> Tensor:
        """RGB [N, 3] of places [N, 3] of the surface with unit normals [N, 3]."""
        at_once = max(1, _PAIRS // len(self.views))
        parts = zip(points.split(at_once), normals.split(at_once), strict=True)
        return torch.cat([self._colours(*part) for part in parts])

    def _colours(self, points: Tensor, normals: Tensor) -> Tensor:
        count = len(self.views)
        weights, seen = points.new_zeros(count, len(points)), points.new_zeros(count, len(points), 3)
        for index in range(count):
            self._look(index, points, normals, weights[index], seen[index])
        weights /= self.most
        weights /= 1 + (seen - _weighted_median(seen, weights)).square_().sum(-1) / _SPREAD**2
        mean = (weights[..., None] * seen).sum(0)
        return (mean + _TRUST * colours_at(self.field, None, points)) / (weights.sum(0)[:, None] + _TRUST)

    def _look(self, index: int, points: Tensor, normals: Tensor, weights: Tensor, seen: Tensor) -> None:
        """Set the weights [N] and colours [N, 3] of the places that one camera sees."""
        cameras = self.views.cameras
        eye = cameras.camera_to_world[index, :, 3]
        ways = points - eye
        distance = ways.norm(dim=1)
        cosine = -(ways * normals).sum(1) / distance
        facing = (cosine > _LEAST_COSINE).nonzero()[:, 0]
        pixel = self._pixels(index, ways[facing])
        height, width = self.views.sizes[index].tolist()
        inside = ((pixel >= 0.5) & (pixel <= pixel.new_tensor([width, height]) - 0.5)).all(1)
        facing, pixel = facing[inside], pixel[inside]
        hit = ops.mesh_raycast(self.tree, eye.expand(len(facing), 3).contiguous(), ways[facing])
        clear = (hit.distance - 1) * distance[facing] > -_HIDDEN
        if cameras.mask is not None or cameras.distortion is not None:
            clear &= self._is_shown(index, pixel, ways[facing], distance[facing])
        rgba = self._bilinear(index, pixel)
        clear &= rgba[:, 3] >= _OPAQUE
        rgb = rgba[:, :3] / rgba[:, 3:]
        if self.gains is not None:
            clear &= ~((rgb >= _CLIPPED) & (self.gains[index] > 1)).any(1)
            rgb = rgb / self.gains[index]
        facing = facing[clear]
        seen[facing] = rgb[clear]
        weights[facing] = (cosine[facing] / distance[facing]).square() * cameras.intrinsics[index, :2].prod()

    def _pixels(self, index: int, ways: Tensor) -> Tensor:
        """Where rays [N, 3] from a camera meet its image [N, 2], in pixels; NaN behind it. See `ops.sample_pixels`."""
        cameras = self.views.cameras
        fx, fy, cx, cy = cameras.intrinsics[index].unbind()
        right, up, back = (ways @ cameras.camera_to_world[index, :, :3]).unbind(1)
        fisheye = cameras.fisheye is not None and bool(cameras.fisheye[index])
        if fisheye:
            aside = torch.hypot(right, up)
            along = aside / torch.atan2(aside, -back)  # 0 / 0 on the axis
            along = torch.where(aside > 0, along, 1.0)
        else:
            along = torch.where(back < 0, -back, torch.nan)
        x, y = right / along, -up / along
        if cameras.distortion is not None:
            lens = cameras.distortion[index]
            k1, k2, p1, p2, k3, k4, k5, k6, a = F.pad(lens, (0, 9 - len(lens)))
            u = x * x + y * y
            radial = (1 + u * (k1 + u * (k2 + u * (k3 + u * a)))) / (1 + u * (k4 + u * (k5 + u * k6)))
            x, y = (
                x * radial + 2 * p1 * x * y + p2 * (u + 2 * x * x),
                y * radial + p1 * (u + 2 * y * y) + 2 * p2 * x * y,
            )
        return torch.stack([fx * x + cx, fy * y + cy], 1)

    def _is_shown(self, index: int, pixel: Tensor, ways: Tensor, distance: Tensor) -> Tensor:
        """[N] whether the pixels there have rays (no mask hides them), and these are the ones that were meant."""
        cameras = self.views.cameras
        column, row = pixel.long().unbind(1)
        rays = ops.sample_pixels(cameras, cameras.starts[index] + row * cameras.widths[index] + column)
        aside = (ways / distance[:, None] - rays.directions).norm(dim=1)
        return aside <= _ASIDE * rays.radii  # false for NaN

    def _bilinear(self, index: int, pixel: Tensor) -> Tensor:
        """Premultiplied RGBA [N, 4] of an image between its pixels' centres."""
        low = (pixel - 0.5).floor()
        share = pixel - 0.5 - low
        start, (height, width) = self.views.cameras.starts[index], self.views.sizes[index].tolist()
        x, y = low.long().unbind(1)
        total = pixel.new_zeros(len(pixel), 4)
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            part = (share[:, 0] if dx else 1 - share[:, 0]) * (share[:, 1] if dy else 1 - share[:, 1])
            at = start + (y + dy).clamp(max=height - 1) * width + (x + dx).clamp(max=width - 1)
            total += part[:, None] * (self.views.pixels[at].float() / 255)
        return total


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """[N, C] of values [V, N, C] with weights [V, N]: of each channel by itself."""
    ordered, order = values.sort(dim=0)
    reached = weights[..., None].expand_as(values).gather(0, order).cumsum(0)
    first = (reached >= reached[-1:] / 2).int().argmax(0, keepdim=True)
    return ordered.gather(0, first)[0]
