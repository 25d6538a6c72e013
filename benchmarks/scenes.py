"""Scenes with parameters to differentiate by, and the truth about their pictures: many hard rays per pixel."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdfgan import cameras, fields, raycast
from sdfgan.fields.base import Field

_WAVES = ((4.0, 1.0, 0.0), (0.0, 5.0, 2.0), (1.0, 0.0, 4.0))
_SURFACE = 1e-6
_SAFETY = 1.2
# An eighth of a pixel: over longer steps the differences of rims bend.
LENGTH_STEP, ANGLE_STEP = 0.0025, 0.005

Parameters = dict[str, Tensor]


class Painted(Field):
    """A field whose albedo varies with position, so that sideways motion shows: colour + 0.25 sin(W x)."""

    def __init__(self, field: Field, colour: Tensor) -> None:
        super().__init__()
        self.field, self.colour = field, colour

    @property
    def extent(self) -> float:
        return self.field.extent

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.field.sdf(points, condition, image)

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        waves = torch.sin(points @ points.new_tensor(_WAVES).T)
        return self.colour.to(points.dtype) + 0.25 * waves


@dataclass(frozen=True)
class Scene:
    """Parameters by name, float64, and what they make."""

    name: str
    sharp: bool
    parameters: Parameters
    shape: Callable[[Parameters], Field]

    def field(self, p: Parameters) -> Field:
        """The painted field of parameters."""
        return Painted(self.shape(p), p["colour"])

    def axes(self, p: Parameters) -> Tensor:
        """The camera [1, 3, 3]."""
        return cameras.rotate_axes((p["camera"][:1], p["camera"][1:]))

    def light(self, p: Parameters) -> raycast.Lighting:
        """Some of each kind of light, all reaching round."""
        return raycast.Lighting(0.2, 0.4, 0.4, p["light"])


def _turned(field: fields.AnalyticField, angles: Tensor) -> fields.AnalyticField:
    for axis, angle in zip(torch.eye(3, dtype=angles.dtype), angles, strict=True):
        field = field.rotated(axis=axis, angle=angle)
    return field


def _two(p: Parameters) -> tuple[fields.AnalyticField, fields.AnalyticField]:
    sizes = p["size"]
    return fields.Sphere(sizes[0]).translated(p["translation"]), fields.Sphere(sizes[1]).translated(p["second"])


def _smooth_union(p: Parameters) -> Field:
    return fields.SmoothUnion(*_two(p), p["blend"])


def _union(p: Parameters) -> Field:
    return fields.Union(*_two(p))


def _box(p: Parameters) -> Field:
    return _turned(fields.Box(p["size"]), p["rotation"]).translated(p["translation"])


def _rounded_box(p: Parameters) -> Field:
    return _turned(fields.RoundedBox(p["size"], 0.08), p["rotation"]).translated(p["translation"])


def _torus(p: Parameters) -> Field:
    return _turned(fields.Torus(p["size"][0], p["size"][1]), p["rotation"]).translated(p["translation"])


def _sphere(p: Parameters) -> Field:
    return fields.Sphere(p["size"]).translated(p["translation"])


def scenes(view: int = 0) -> list[Scene]:
    """The scenes, seen from one of three sides."""
    camera = ((0.3, 0.4), (-0.5, 2.2), (0.8, 4.1))[view % 3]

    def scene(name: str, sharp: bool, shape: Callable[[Parameters], Field], **values: Any) -> Scene:
        values |= {"colour": (0.55, 0.45, 0.5), "camera": camera, "light": (0.6, 0.8, -0.3)}
        return Scene(name, sharp, {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}, shape)

    turned = (0.3, 0.5, 0.2)
    return [
        scene("sphere", False, _sphere, size=0.5, translation=(0.07, -0.04, 0.05)),
        scene("torus", False, _torus, size=(0.5, 0.18), translation=(0.02, 0.03, 0.0), rotation=(0.35, 0.2, 0.3)),
        scene("smooth union", False, _smooth_union, size=(0.32, 0.27), translation=(-0.2, 0.05, 0.1),
              second=(0.25, 0.1, -0.1), blend=0.2),
        scene("two spheres", False, _union, size=(0.33, 0.42), translation=(-0.12, -0.05, 0.4),
              second=(0.15, 0.1, -0.35)),
        scene("rounded box", False, _rounded_box, size=(0.35, 0.25, 0.42), translation=(0.03, 0.02, 0.0),
              rotation=turned),
        scene("box", True, _box, size=(0.35, 0.25, 0.42), translation=(0.03, 0.02, 0.0), rotation=turned),
    ]  # fmt: skip


@torch.no_grad()
def truth(field: Field, condition: Any, axes: Tensor, light: raycast.Lighting, resolution: int, rays: int) -> Tensor:
    """[5, R, R]: premultiplied colour, alpha, alpha times height, from a grid of rays^2 hard rays per pixel.

    The field is marched in float64 with a safety factor; a ray hits or it does not, and each has one colour.
    """
    fine = resolution * rays
    samples = raycast.multiscale(
        axes, (fine,), None, _Conditioned(field, condition), _SURFACE, margin=0.0, lipschitz=_SAFETY * field.lipschitz
    )
    pixel = samples.mask.flatten().nonzero()[samples.hit, 0]
    t, rays_hit = samples.distances[samples.hit], samples.rays[samples.hit]
    answer = field.evaluate(rays_hit.at(t), condition, rays_hit.image)
    normals = torch.nn.functional.normalize(answer.gradient, dim=-1)
    shaded = answer.rgb * light.brightness(normals, axes, rays_hit.image)
    picture = torch.zeros(fine * fine, 5, dtype=torch.float64)
    picture[pixel] = torch.cat([shaded, torch.ones_like(t)[:, None], cameras.camera_distance() + 1 - t[:, None]], -1)
    return torch.nn.functional.avg_pool2d(picture.T.reshape(1, 5, fine, fine), rays)[0]


class _Conditioned(Field):
    """A field whose condition is given already."""

    def __init__(self, field: Field, condition: Any) -> None:
        super().__init__()
        self.field, self.condition_of_field, self.lipschitz = field, condition, field.lipschitz

    @property
    def extent(self) -> float:
        return self.field.extent

    def condition(self, latents: Tensor | None) -> Any:
        return self.condition_of_field

    def network(self, condition: Any, precision: str = "fp32") -> Any:
        return self.field.network(condition, precision)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.field.sdf(points, condition, image)


def differences(picture: Callable[[Parameters], Tensor], parameters: Parameters) -> Tensor:
    """Central differences [P, ...] of a picture by all parameters, flat and in their order."""
    rows = []
    for name, value in parameters.items():
        step = ANGLE_STEP if name in ("rotation", "camera", "light") else LENGTH_STEP
        for i in range(value.numel()):
            moved = []
            for sign in (1, -1):
                other = value.clone()
                other.view(-1)[i] += sign * step
                moved.append(picture(parameters | {name: other}))
            rows.append((moved[0] - moved[1]) / (2 * step))
    return torch.stack(rows)


def filtered(fine: Tensor, factor: int, tent: bool = False) -> Tensor:
    """Pictures [..., R, R] of those [..., factor R, factor R]: means over pixels, or by a tent two pixels wide."""
    flat = fine.flatten(0, -3)[:, None]
    if tent:
        row = (1 - ((torch.arange(2 * factor, dtype=fine.dtype) + 0.5) / factor - 1).abs()) / factor
        kernel = (row[:, None] * row)[None, None]
        flat = torch.nn.functional.conv2d(flat, kernel, stride=factor, padding=factor // 2)
    else:
        flat = torch.nn.functional.avg_pool2d(flat, factor)
    return flat.view(*fine.shape[:-2], *flat.shape[-2:])


def blurred_noise(count: int, channels: int, resolution: int) -> Tensor:
    """Smooth random pictures [count, channels, R, R] around 1/2."""
    random = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, channels, 8, 8, generator=random, dtype=torch.float64)
    return 0.5 + 0.3 * torch.nn.functional.interpolate(coarse, (resolution, resolution), mode="bicubic")


def sphere_area(radius: float, centre: Tensor, axes: Tensor, resolution: int) -> float:
    """Pixels that a ball covers, exactly: its silhouette is an ellipse.

    A cone about the direction c to the centre, of half angle a, meets the picture plane, at the angle b between c and
    the camera's axis, in an ellipse with half axes sin(a) cos(a) / (cos(a)^2 - sin(b)^2) and
    sin(a) / sqrt(cos(a)^2 - sin(b)^2), in units of the plane's distance.
    """
    distance = cameras.camera_distance()
    towards = centre - distance * axes[2]
    far = towards.norm().item()
    sine = radius / far
    cosine2 = 1 - sine**2
    tilt2 = 1 - (towards @ axes[2]).item() ** 2 / far**2
    d = cosine2 - tilt2
    area = math.pi * (sine * math.sqrt(cosine2) / d) * (sine / math.sqrt(d))
    return area * distance**2 * (resolution / 2) ** 2


def box_area(corners: Tensor, axes: Tensor, resolution: int) -> float:
    """Pixels that a box covers, exactly: the projections of the faces that are seen, each of which is a quadrilateral.

    corners [2, 2, 2, 3]: world, by the sides of x, y and z.
    """
    distance = cameras.camera_distance()
    own = corners @ axes.T
    flat = own[..., :2] * (distance / (distance - own[..., 2:]))  # on the plane through the origin, where D / z is 1
    total = 0.0
    for dimension in range(3):
        for side in range(2):
            face = flat.select(dimension, side)
            loop = torch.stack([face[0, 0], face[0, 1], face[1, 1], face[1, 0]])
            following = loop.roll(-1, 0)
            signed = (loop[:, 0] * following[:, 1] - loop[:, 1] * following[:, 0]).sum().item() / 2
            total += max(signed * (1 if side else -1) * (-1 if dimension == 1 else 1), 0.0)
    return total * (resolution / 2) ** 2
