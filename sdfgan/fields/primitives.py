"""Analytic solids around the origin, with y as the axis of those that have one.

Distances are exact, inside and outside, except for those of an `Ellipsoid` that is not flat. Formulas after I. Quilez,
https://iquilezles.org/articles/distfunctions, and elementary geometry; gradients are finite everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sdfgan.fields.analytic import AnalyticField, Scalar, Vector, as_bound, length, vector_length
from sdfgan.fields.base import Bound, bound_of

_FLAT = 4.0  # ratio of the half axes of an ellipsoid
_STEPS = 7


class Sphere(AnalyticField):
    """A sphere; exact."""

    def __init__(self, radius: Scalar) -> None:
        super().__init__()
        self._add("radius", radius, 0, least=0.0)

    @property
    def extent(self) -> Bound:
        return self._size("radius")

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return vector_length(points) - self._get("radius", points, image)


class RoundedBox(AnalyticField):
    """A box of outer `half_size`, its edges rounded with `radius`, at most the least half size; exact."""

    def __init__(self, half_size: Vector, radius: Scalar) -> None:
        super().__init__()
        self._add("half_size", half_size, 1, least=0.0)
        self._add("radius", radius, 0, least=0.0)

    @property
    def extent(self) -> Bound:
        return self._size("half_size")

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        radius = self._get("radius", points, image)
        beyond = points.abs() - (self._get("half_size", points, image) - radius[..., None])
        return vector_length(beyond.clamp(min=0)) + beyond.amax(-1).clamp(max=0) - radius


class Box(RoundedBox):
    """A box [-half_size, half_size]; exact."""

    def __init__(self, half_size: Vector) -> None:
        super().__init__(half_size, 0.0)


class Torus(AnalyticField):
    """A ring of radius `major` in the xz plane, of a tube of radius `minor`; exact for minor <= major."""

    def __init__(self, major: Scalar, minor: Scalar) -> None:
        super().__init__()
        self._add("major", major, 0, least=0.0)
        self._add("minor", minor, 0, least=0.0)

    @property
    def extent(self) -> Bound:
        return self._size("major") + self._size("minor")

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        x, y, z = points.unbind(-1)
        around = length(x, z) - self._get("major", points, image)
        return length(around, y) - self._get("minor", points, image)


class Capsule(AnalyticField):
    """All points within `radius` of the segment from (0, -half_height, 0) to (0, half_height, 0); exact."""

    def __init__(self, radius: Scalar, half_height: Scalar) -> None:
        super().__init__()
        self._add("radius", radius, 0, least=0.0)
        self._add("half_height", half_height, 0, least=0.0)

    @property
    def extent(self) -> Bound:
        return self._size("radius") + self._size("half_height")

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        x, y, z = points.unbind(-1)
        above = (y.abs() - self._get("half_height", points, image)).clamp(min=0)
        return length(x, above, z) - self._get("radius", points, image)


class Cylinder(AnalyticField):
    """A cylinder of `radius` from y = -half_height to half_height; exact."""

    def __init__(self, radius: Scalar, half_height: Scalar) -> None:
        super().__init__()
        self._add("radius", radius, 0, least=0.0)
        self._add("half_height", half_height, 0, least=0.0)

    @property
    def extent(self) -> Bound:
        return bound_of(math.hypot, self._size("radius"), self._size("half_height"))

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        x, y, z = points.unbind(-1)
        side = length(x, z) - self._get("radius", points, image)
        cap = y.abs() - self._get("half_height", points, image)
        return torch.maximum(side, cap).clamp(max=0) + length(side.clamp(min=0), cap.clamp(min=0))


class Cone(AnalyticField):
    """A capped cone: radius `r1` at y = -half_height, `r2` at y = half_height; exact."""

    def __init__(self, r1: Scalar, r2: Scalar, half_height: Scalar) -> None:
        super().__init__()
        self._add("r1", r1, 0, least=0.0)
        self._add("r2", r2, 0, least=0.0)
        self._add("half_height", half_height, 0, least=0.0)

    @property
    def extent(self) -> Bound:
        radius = bound_of(max, self._size("r1"), self._size("r2"))
        return bound_of(math.hypot, radius, self._size("half_height"))

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        x, y, z = points.unbind(-1)
        r1, r2, h = (self._get(name, points, image) for name in ("r1", "r2", "half_height"))
        around = length(x, z)
        slope = r2 - r1
        edge_squared = slope.square() + 4 * h.square()
        # The slanted side goes from (r1, -h) to (r2, h) in (around, y); its closest point is at t.
        # Over its inside and over the caps distances are those to planes: near the surface, a root of squares
        # has a gradient of mere rounding errors.
        t = (slope * (around - r1) + 2 * h * (y + h)) / edge_squared
        side = (2 * h * (around - r1) - slope * (y + h)) / edge_squared.sqrt()
        end = t.clamp(0, 1)
        to_rim = length(around - (r1 + slope * end), y - h * (2 * end - 1))
        to_side = torch.where(t == end, side.abs(), to_rim)
        cap = y.abs() - h
        to_cap = length((around - torch.where(y < 0, r1, r2)).clamp(min=0), cap)
        inside = torch.maximum(side, cap)
        return torch.where(inside <= 0, inside, torch.minimum(to_side, to_cap))


class Ellipsoid(AnalyticField):
    """An ellipsoid with half axes `radii`.

    One whose longest half axis is given as more than 4 times the shortest has its exact distance, which images need
    where its rim is thinner than a pixel. Any other has a cheaper function that is a distance to first order at the
    surface: with q = |p / radii| and r = q / |p / radii^2| it is (q - 1) r outside (Quilez). Inside, r fades to the
    least half axis m, (q - 1) (m + q (r - m)), which is continuous at the centre and -m there. Exact where all radii
    agree; outside, sampling found it nowhere above the distance, so that a ray may step by it. `lipschitz` is then
    max(1, k^2 / 2) for the ratio k of the longest to the shortest half axis given here, above the maximum of the
    gradient over all directions, found numerically.
    """

    radii: Tensor
    _flat: Tensor

    def __init__(self, radii: Vector) -> None:
        super().__init__()
        self._add("radii", radii, 1, least=1e-6)
        ratio = self.radii.detach().amax(-1) / self.radii.detach().amin(-1)
        self.register_buffer("_flat", ratio > _FLAT, persistent=False)  # as it was given: a fit may not cross over
        self.lipschitz = bound_of(lambda k: 1.0 if k > _FLAT else max(1.0, k**2 / 2), as_bound(ratio))
        self._kinds = set(self._flat.flatten().tolist())

    @property
    def extent(self) -> Bound:
        return as_bound(self.radii.detach().amax(-1))

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        radii = self._get("radii", points, image)
        if self._kinds == {True}:
            return self._distance(points, radii)
        unit = points / radii
        q = vector_length(unit)
        r = q / vector_length(unit / radii)
        least = radii.amin(-1)
        bound = (q - 1) * (least + q.clamp(max=1) * (r - least))
        if self._kinds == {False}:
            return bound
        return torch.where(self._flat[image], self._distance(points, radii), bound)

    @staticmethod
    def _distance(points: Tensor, radii: Tensor) -> Tensor:
        """The nearest point c has p = c + t c / radii^2, so that n(t) = |radii p / (t + radii^2)| is 1.

        1 / n rises and is concave (Conn, Gould, Toint, Trust-Region Methods, 7.3.3): from any t, a Newton step leads to
        a smaller one than the root; from there the next ones rise to it. The variable is u = t + m^2, which is above 0.
        The last two steps are differentiated, and give the first and the second derivative.
        """
        squares = radii.square()
        least = squares.amin(-1, keepdim=True)
        gap = squares - least
        # Of the first octant, and never in the plane of the longer axes, where u is 0.
        aside = torch.finfo(points.dtype).eps ** (2 / 3) * least.sqrt()
        first = torch.where(points < 0, -points, points)
        scaled = radii * (first + aside * (gap <= 0))

        def newton(u: Tensor) -> Tensor:
            weight = 1 / (u + gap)
            part = (scaled * weight).square()
            n = _sum(part)
            return u + n * (n.sqrt() - 1) / _sum(part * weight)

        with torch.no_grad():
            u = torch.maximum(newton(_sum(scaled.square()).sqrt()), (scaled - gap).amax(-1, keepdim=True))
            pole = _sum(scaled.square().masked_fill(gap > 0, 0.0)).sqrt()
            for _ in range(_STEPS):
                # Near the plane of the longer half axes n is pole / u beside what hardly changes.
                others = 1 - _sum((scaled / (u + gap)).square().masked_fill(gap <= 0, 0.0))
                u = torch.maximum(u, newton(torch.where(others > 0, pole * others.clamp_min(1e-12).rsqrt(), u)))
                u = newton(u)
        u = newton(newton(u))
        distance = (u - least)[..., 0] * vector_length(scaled / (radii * (u + gap)))
        return distance - 1.5 * aside[..., 0]  # no more than it is, also if two axes are the shortest


def _sum(vectors: Tensor) -> Tensor:
    """[N, 1], in the same order for any strides."""
    return vectors[..., :1] + vectors[..., 1:2] + vectors[..., 2:]


class Plane(AnalyticField):
    """The half space below a plane: normal . p <= offset, with `normal` normalised; exact."""

    normal: Tensor

    def __init__(self, normal: Vector, offset: Scalar = 0.0) -> None:
        super().__init__()
        self._add("normal", normal, 1)
        self._add("offset", offset, 0)
        if bool((self.normal.detach().norm(dim=-1) == 0).any()):
            raise ValueError("Plane: normal must not be zero")

    @property
    def extent(self) -> Bound:
        return math.inf

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        normal = self._get("normal", points, image)
        return (points * normal).sum(-1) / vector_length(normal) - self._get("offset", points, image)
