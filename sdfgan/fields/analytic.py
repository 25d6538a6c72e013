"""Analytic fields: their base class, constructive solid geometry, rigid motion, scale and colour.

The solids are in `primitives`. The sharp operations are exact on the side where one part decides, and a lower
bound of the distance elsewhere. The smooth ones blend with a quadratic polynomial over a width of `k`
(I. Quilez, https://iquilezles.org/articles/smin). None has a larger gradient than its parts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdfgan.checks import as_tensor, check_direction, described
from sdfgan.fields.base import Bound, Field, bound_of

Scalar = float | Tensor  # a number, or a tensor [] or [B]
Vector = tuple[float, ...] | list[float] | Tensor  # three numbers, or a tensor [3] or [B, 3]

# Under a root: small enough to be lost in any length (in float64, beside what rounding leaves of coordinates as well,
# or there would be a layer without a gradient around each face), large enough for second derivatives.
_SMALLEST = {torch.float64: 1e-200}
_SMALLEST_OF_OTHERS = 1e-24


def as_bound(value: Tensor) -> Bound:
    """Numbers [] or [B] of a field's parameters."""
    return value.item() if value.numel() == 1 else value.double().cpu().numpy()


def length(*components: Tensor) -> Tensor:
    """Euclidean length of vectors given by components, with derivatives of zero at the zero vector."""
    total = components[0].square()
    for component in components[1:]:
        total = total + component.square()
    return total.clamp_min(_SMALLEST.get(total.dtype, _SMALLEST_OF_OTHERS)).sqrt()


def vector_length(vectors: Tensor) -> Tensor:
    """`length` of the rows of [..., 3]."""
    return length(*vectors.unbind(-1))


def _numbers(name: str, value: Any) -> Tensor:
    """Numbers in double precision. Raises TypeError, naming the argument, for anything else."""
    return as_tensor(name, value, torch.empty((), dtype=torch.float64))


def _check_field(name: str, value: Any) -> None:
    if not isinstance(value, Field):
        raise TypeError(f"{name} must be a Field, got {type(value).__name__}")


class AnalyticField(Field):
    """A signed-distance field in closed form; the base class of the solids and of what is built from them.

    Parameters are numbers, tuples, or tensors with a row per image; `image` then says which row a point uses.
    They follow `.to()`, are cast to the points' dtype, and a tensor that requires a gradient keeps it. Fields
    combine by `a | b` (union), `a & b` (intersection) and `a - b` (subtraction), and move by `.translated()`,
    `.rotated()` and `.scaled()`. Conditions are ignored: an analytic field has no latents.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ranks: dict[str, int] = {}

    def _add(self, name: str, value: Any, rank: int, *, least: float | None = None, most: float | None = None) -> None:
        """Keeps a scalar (rank 0), 3-vector (1) or 3x3 matrix (2), optionally within `least` and `most`.

        Numbers are kept in double precision, so that a field is as exact as its points.
        """
        function = type(self).__name__
        tensor = value if isinstance(value, Tensor) else _numbers(f"{function}: {name}", value)
        shape = tensor.shape[max(tensor.dim() - rank, 0) :]  # without the rows of images
        if tensor.dim() not in (rank, rank + 1) or any(size != 3 for size in shape):
            one = ", ".join("3" * rank)
            rows = f"B, {one}" if one else "B"
            raise ValueError(f"{function}: {name} must be [{one}] or [{rows}], got {list(tensor.shape)}")
        if not tensor.is_floating_point():
            raise TypeError(f"{function}: {name} must be floating point, got {tensor.dtype}")
        if tensor is not value and not bool(tensor.isfinite().all()):
            raise ValueError(f"{function}: {name} must be finite, got {value}")
        if least is not None and not bool((tensor.detach() >= least).all()):
            raise ValueError(f"{function}: {name} must be at least {least}, got {tensor.min().item()}")
        if most is not None and tensor is not value and bool((tensor > most).any()):  # what is learned may go beyond
            raise ValueError(f"{function}: {name} must be at most {most}, got {tensor.max().item()}")
        if isinstance(tensor, torch.nn.Parameter):
            self.register_parameter(name, tensor)
        else:
            self.register_buffer(name, tensor)
        self._ranks[name] = rank

    def _get(self, name: str, points: Tensor, image: Tensor | None) -> Tensor:
        """A parameter for `points`: one for all ([], [3], [3, 3]) or one for each ([N], [N, 3], ...)."""
        value: Tensor = getattr(self, name).to(points.dtype)
        if value.dim() == self._ranks[name]:
            return value
        if len(value) == 1:
            return value[0]
        if image is None:
            function = type(self).__name__
            raise ValueError(f"{function}: image must be given, as {name} has rows for {len(value)} images")
        if value.dim() == 2:  # gathered by component, as fields compute by component: three times as fast
            return value.T.contiguous().index_select(1, image).T
        return value.index_select(0, image)

    def extra_repr(self) -> str:
        """The parameters, for the repr."""
        return ", ".join(f"{name}={described(getattr(self, name))}" for name in self._ranks)

    @property
    def images(self) -> int | None:
        """How many images this field and its parts have parameters for; None if one for all."""
        counts = {
            len(getattr(part, name))
            for part in self.modules()
            if isinstance(part, AnalyticField)
            for name, rank in part._ranks.items()
            if getattr(part, name).dim() > rank
        } - {1}
        if len(counts) > 1:
            raise ValueError(
                f"{type(self).__name__}: parts have parameters for {' and '.join(map(str, sorted(counts)))} images"
            )
        return next(iter(counts), None)

    def _size(self, name: str) -> Bound:
        """A scalar, or the length of a vector."""
        value: Tensor = getattr(self, name).detach()
        return as_bound(value if self._ranks[name] == 0 else value.norm(dim=-1))

    def __or__(self, other: AnalyticField) -> AnalyticField:
        return Union(self, other)

    def __and__(self, other: AnalyticField) -> AnalyticField:
        return Intersection(self, other)

    def __sub__(self, other: AnalyticField) -> AnalyticField:
        return Subtraction(self, other)

    def translated(self, offset: Vector) -> AnalyticField:
        """The field moved by `offset`, [3] or [B, 3]."""
        return Transformed(self, translation=offset)

    def rotated(
        self, matrix: Tensor | None = None, *, axis: Vector | None = None, angle: Scalar | None = None
    ) -> AnalyticField:
        """The field turned about the origin by a matrix [3, 3] or [B, 3, 3], or by `angle` about `axis`."""
        if (matrix is None) == (axis is None or angle is None):
            raise ValueError("rotated: must be given either matrix, or axis and angle")
        if matrix is None:
            assert axis is not None and angle is not None
            matrix = rotation_matrix(axis, angle)
        return Transformed(self, rotation=matrix)

    def scaled(self, scale: Scalar) -> AnalyticField:
        """The field scaled about the origin by `scale`, [] or [B], uniformly: distances stay distances."""
        return Transformed(self, scale=scale)

    def coloured(self, rgb: Vector) -> AnalyticField:
        """The field with one linear albedo in [0, 1], [3] or [B, 3]."""
        return Coloured(self, rgb)


class _Pair(AnalyticField):
    """Two fields a and b, combined; colours are those of the part that gives the surface."""

    def __init__(self, a: Field, b: Field) -> None:
        super().__init__()
        for name, part in (("a", a), ("b", b)):
            _check_field(f"{type(self).__name__}: {name}", part)
        self.a, self.b = a, b
        self.lipschitz = bound_of(max, a.lipschitz, b.lipschitz)

    def _parts(self, points: Tensor, condition: Any, image: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.a.sdf(points, condition, image), self.b.sdf(points, condition, image)

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        """Share [N] of part a in the colour, given the distances to both parts."""
        raise NotImplementedError

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        share = self._share(*self._parts(points, condition, image), image).to(points.dtype)
        return torch.lerp(
            self.b.rgb(points, condition, image), self.a.rgb(points, condition, image), share.unsqueeze(-1)
        )


class Union(_Pair):
    """What is in a or b: min(a, b). Exact outside where both parts are."""

    @property
    def extent(self) -> Bound:
        return bound_of(max, self.a.extent, self.b.extent)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return torch.minimum(*self._parts(points, condition, image))

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return a <= b


class Intersection(_Pair):
    """What is in both a and b: max(a, b). A lower bound outside, exact inside where both parts are."""

    @property
    def extent(self) -> Bound:
        return bound_of(min, self.a.extent, self.b.extent)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return torch.maximum(*self._parts(points, condition, image))

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return a >= b


class Subtraction(_Pair):
    """What is in a and not in b: max(a, -b). A lower bound outside; the cut has the colour of b."""

    @property
    def extent(self) -> Bound:
        return self.a.extent

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        a, b = self._parts(points, condition, image)
        return torch.maximum(a, -b)

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return a >= -b


class _SmoothPair(_Pair):
    """A pair that blends, in distance and in colour, where the parts differ by less than `k`."""

    k: Tensor

    def __init__(self, a: Field, b: Field, k: Scalar) -> None:
        super().__init__(a, b)
        self._add("k", k, 0)
        if bool((self.k.detach() <= 0).any()):
            raise ValueError(f"{type(self).__name__}: k must be positive, got {self.k.min().item():g}")

    def _share_of_smaller(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return (0.5 + 0.5 * (b - a) / self._get("k", a, image)).clamp(0, 1)

    def _smooth_minimum(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        share = self._share_of_smaller(a, b, image)
        return b + (a - b) * share - self._get("k", a, image) * share * (1 - share)


class SmoothUnion(_SmoothPair):
    """`Union` with a fillet, up to k / 4 fatter than the union; not an exact distance."""

    @property
    def extent(self) -> Bound:
        return bound_of(max, self.a.extent, self.b.extent) + self._size("k")

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self._smooth_minimum(*self._parts(points, condition, image), image)

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return self._share_of_smaller(a, b, image)


class SmoothIntersection(_SmoothPair):
    """`Intersection` with rounded edges: up to k / 4 thinner."""

    @property
    def extent(self) -> Bound:
        return bound_of(min, self.a.extent, self.b.extent)

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        a, b = self._parts(points, condition, image)
        return -self._smooth_minimum(-a, -b, image)

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return self._share_of_smaller(-a, -b, image)


class SmoothSubtraction(_SmoothPair):
    """`Subtraction` with rounded edges: up to k / 4 thinner."""

    @property
    def extent(self) -> Bound:
        return self.a.extent

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        a, b = self._parts(points, condition, image)
        return -self._smooth_minimum(-a, b, image)

    def _share(self, a: Tensor, b: Tensor, image: Tensor | None) -> Tensor:
        return self._share_of_smaller(-a, b, image)


class Transformed(AnalyticField):
    """A field scaled, then rotated, then translated: p -> rotation (scale p) + translation.

    Args:
        rotation: a rotation matrix [3, 3] or [B, 3, 3].
        translation: [3] or [B, 3].
        scale: one factor for all axes, [] or [B], positive.
    """

    rotation: Tensor

    def __init__(
        self,
        field: Field,
        rotation: Tensor | None = None,
        translation: Vector | None = None,
        scale: Scalar | None = None,
    ) -> None:
        super().__init__()
        _check_field(f"{type(self).__name__}: field", field)
        self.field, self.lipschitz = field, field.lipschitz
        if rotation is not None:
            self._add("rotation", rotation, 2)
            product = self.rotation.detach() @ self.rotation.detach().mT
            if not torch.allclose(product, torch.eye(3).to(product).expand_as(product), atol=1e-4):
                raise ValueError("Transformed: rotation must be orthonormal")
        if translation is not None:
            self._add("translation", translation, 1)
        if scale is not None:
            self._add("scale", scale, 0, least=1e-6)

    @property
    def extent(self) -> Bound:
        extent = self.field.extent
        if "scale" in self._ranks:
            extent = extent * self._size("scale")
        return extent + (self._size("translation") if "translation" in self._ranks else 0.0)

    def _to_field(self, points: Tensor, image: Tensor | None) -> Tensor:
        if "translation" in self._ranks:
            points = points - self._get("translation", points, image)
        if "rotation" in self._ranks:
            # summed here rather than by matmul, which some devices round to ten bits
            points = (points.unsqueeze(-1) * self._get("rotation", points, image)).sum(-2)
        if "scale" in self._ranks:
            points = points / self._get("scale", points, image)[..., None]
        return points

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        value = self.field.sdf(self._to_field(points, image), condition, image)
        return value * self._get("scale", points, image) if "scale" in self._ranks else value

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.field.rgb(self._to_field(points, image), condition, image)


class Coloured(AnalyticField):
    """A field with one linear albedo `colour` in [0, 1], [3] or [B, 3]."""

    def __init__(self, field: Field, colour: Vector) -> None:
        super().__init__()
        _check_field(f"{type(self).__name__}: field", field)
        self.field, self.lipschitz = field, field.lipschitz
        self._add("colour", colour, 1, least=0.0, most=1.0)

    @property
    def extent(self) -> Bound:
        return self.field.extent

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.field.sdf(points, condition, image)

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self._get("colour", points, image).expand_as(points)


def rotation_matrix(axis: Vector, angle: Scalar) -> Tensor:
    """Rotation by `angle` radians, [] or [B], about `axis`, [3] or [B, 3] (Rodrigues): [3, 3] or [B, 3, 3].

    Right-handed; the axis need not have unit length. Differentiable.
    """
    check_direction("rotation_matrix: axis", axis)
    given = angle if isinstance(angle, Tensor) else axis
    dtype = given.dtype if isinstance(given, Tensor) else torch.float64
    device = given.device if isinstance(given, Tensor) else None
    axis = torch.as_tensor(axis, dtype=dtype, device=device)
    angle = angle if isinstance(angle, Tensor) else _numbers("rotation_matrix: angle", angle).to(dtype)
    x, y, z = (axis / vector_length(axis)[..., None]).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    angle = angle[..., None, None]
    identity = torch.eye(3, dtype=dtype, device=device)
    return identity + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
