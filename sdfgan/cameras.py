"""Cameras, ray grids and pose distributions: the one place where axes, units and pixel centres are defined.

World       right-handed, y up; the object lives in the unit ball around the origin.
Camera      x right, y up, looks along -z (as OpenGL and Blender). `camera_to_world` [..., 3, 4] holds the
            columns x, y, z of the camera in world coordinates, then its position.
Orbit       a camera on a sphere around the origin that looks at the origin. `axes` [..., 3, 3] holds its
            x, y, z as *rows*; z points from the origin to the camera, at z * D with D = 1 / tan(fov / 2).
Pixels      centres at (i + 0.5); row 0 is the top row; images are [B, C, H, W]; the flat id of a pixel is
            (b * H + y) * W + x. Pixels are equally spaced on an image plane at distance D before the camera,
            height [-1, 1], width [-aspect, aspect]. For an orbit camera it passes through the origin.
Units       angles are radians, `fov` is the vertical field of view, depth is measured along the unit ray.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.checks import as_tensor, check_fov, check_whole
from sdfgan.errors import UserError

DEFAULT_FOV = math.radians(25.0)
Range = tuple[float, float]


def camera_distance(fov: float = DEFAULT_FOV) -> float:
    """Distance D of an orbit camera from the origin, so that the plane [-1, 1]^2 there fills the view."""
    check_fov("camera_distance", fov)
    return 1.0 / math.tan(fov / 2)


Angles = float | Sequence[float] | Tensor


def rotate_axes(angles: tuple[Angles, Angles]) -> Tensor:
    """Axes [B, 3, 3] (rows x, y, z) of orbit cameras at (elevation phi [B], azimuth theta [B]) in radians.

    Azimuth 0 is on +z and grows towards +x; elevation grows towards +y. Numbers are the angles of one camera, or of all
    where the other angle is [B]. Differentiable in both angles.
    """
    try:
        phi, theta = angles
    except (TypeError, ValueError):
        raise TypeError("rotate_axes: angles must be a pair: elevation, azimuth") from None
    one_camera = not isinstance(phi, Tensor) and not isinstance(theta, Tensor)
    phi = as_tensor("rotate_axes: elevation", phi, theta if isinstance(theta, Tensor) else None)
    theta = as_tensor("rotate_axes: azimuth", theta, phi)
    if phi.shape != theta.shape:
        try:
            phi, theta = torch.broadcast_tensors(phi, theta)
        except RuntimeError:
            shapes = f"{list(phi.shape)} and {list(theta.shape)}"
            raise ValueError(f"rotate_axes: elevation and azimuth must be equally many, got {shapes}") from None
    if one_camera and phi.dim() == 0:
        phi, theta = phi[None], theta[None]
    cos_phi, sin_phi, cos_theta, sin_theta = phi.cos(), phi.sin(), theta.cos(), theta.sin()
    x = torch.stack((cos_theta, torch.zeros_like(cos_theta), -sin_theta), -1)
    y = torch.stack((-sin_theta * sin_phi, cos_phi, -cos_theta * sin_phi), -1)
    z = torch.stack((cos_phi * sin_theta, sin_phi, cos_phi * cos_theta), -1)
    return torch.stack((x, y, z), -2)


def orbit_camera(axes: Tensor, fov: float = DEFAULT_FOV) -> Tensor:
    """`camera_to_world` [..., 3, 4] of the orbit cameras with `axes` [..., 3, 3]; differentiable."""
    axes = as_tensor("orbit_camera: axes", axes)
    if axes.shape[-2:] != (3, 3):
        raise ValueError(f"orbit_camera: axes must be [..., 3, 3], got {list(axes.shape)}")
    columns = axes.transpose(-1, -2)
    return torch.cat((columns, columns[..., 2:] * camera_distance(fov)), -1)


def look_at(
    position: Sequence[float] | Tensor,
    target: Sequence[float] | Tensor | None = None,
    up: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """`camera_to_world` [..., 3, 4] of cameras at `position` [..., 3] that look at `target`, `up` upwards.

    `target` defaults to the origin, `up` to +y; both broadcast to `position`. Differentiable in all three.
    Raises ValueError where the camera sits on its target or looks along `up`: its roll is undefined.
    """
    given = [as_tensor("look_at: position", position)]
    given.append(as_tensor("look_at: target", (0.0, 0.0, 0.0) if target is None else target, given[0]))
    given.append(as_tensor("look_at: up", (0.0, 1.0, 0.0) if up is None else up, given[0]))
    for name, value in zip(("position", "target", "up"), given, strict=True):
        if value.shape[-1:] != (3,):
            raise ValueError(f"look_at: {name} must be [..., 3], got {list(value.shape)}")
        if not bool(value.isfinite().all()):
            raise ValueError(f"look_at: {name} must be finite, got {value.tolist()}")
    place, aim, upwards = torch.broadcast_tensors(*given)
    z = place - aim
    size = z.detach().abs().amax(-1, keepdim=True)
    if bool((size == 0).any()):
        raise ValueError("look_at: position must differ from target, got the same point")
    z = F.normalize(z / size, dim=-1)  # the square of a length may be no number
    x = torch.linalg.cross(F.normalize(upwards, dim=-1), z)
    if bool((x.norm(dim=-1) < 1e-6).any()):
        raise ValueError("look_at: up must not be parallel to the direction of view")
    x = F.normalize(x, dim=-1)
    return torch.stack((x, torch.linalg.cross(z, x), z, place), -1)


def ray_grid(camera: Tensor, height: int, width: int | None = None, fov: float = DEFAULT_FOV) -> tuple[Tensor, Tensor]:
    """Rays through all pixel centres: origins and unit directions, both [B, height, width, 3].

    Args:
        camera: `camera_to_world` [B, 3, 4], or the `axes` [B, 3, 3] of orbit cameras. Differentiable.
        height, width: pixels; width defaults to height. Pixels are square, the aspect is width / height.
        fov: vertical field of view in radians.
    """
    camera = as_tensor("ray_grid: camera", camera)
    if camera.dim() != 3 or camera.shape[1] != 3 or camera.shape[2] not in (3, 4):
        raise ValueError(f"ray_grid: camera must be [B, 3, 4] or axes [B, 3, 3], got {list(camera.shape)}")
    width = height if width is None else width
    check_whole("ray_grid", 1, height=height, width=width)
    check_fov("ray_grid", fov)
    if camera.shape[2] == 3:
        camera = orbit_camera(camera, fov)
    # (2 i + 1 - n) / height: the centres of n square pixels, symmetric, so that finer grids nest in coarser.
    columns = torch.arange(width, dtype=camera.dtype, device=camera.device)
    rows = torch.arange(height, dtype=camera.dtype, device=camera.device)
    right, up = (2 * columns + 1 - width) / height, (height - 1 - 2 * rows) / height
    x, y, z, position = (column[:, None, None] for column in camera.unbind(-1))  # each [B, 1, 1, 3]
    directions = right[:, None] * x + up[:, None, None] * y - camera_distance(fov) * z
    directions = F.normalize(directions, dim=-1)
    return position.expand_as(directions), directions


def pixel_rays(
    camera: Tensor, pixels: Tensor, height: int, width: int | None = None, fov: float = DEFAULT_FOV
) -> tuple[Tensor, Tensor]:
    """As `ray_grid`, for the pixels [N] int64 with these flat ids alone: origins and unit directions, both [N, 3]."""
    width = height if width is None else width
    if camera.dim() != 3 or camera.shape[1] != 3 or camera.shape[2] not in (3, 4):
        raise ValueError(f"pixel_rays: camera must be [B, 3, 4] or axes [B, 3, 3], got {list(camera.shape)}")
    if camera.shape[2] == 3:
        camera = orbit_camera(camera, fov)
    column, row, image = pixels % width, pixels // width % height, pixels // (width * height)
    right = (2 * column + 1 - width).to(camera.dtype) / height
    up = (height - 1 - 2 * row).to(camera.dtype) / height
    x, y, z, position = camera[image].unbind(-1)
    directions = right[:, None] * x + up[:, None] * y - camera_distance(fov) * z
    return position, F.normalize(directions, dim=-1)


# ----------------------------------------------------------------------------------------- pose distributions


@dataclass(frozen=True)
class PoseDistribution(ABC):
    """A distribution of orbit cameras around ranges of elevation and azimuth, each (low, high) in radians."""

    elevation: Range
    azimuth: Range

    def __post_init__(self) -> None:
        for name in ("elevation", "azimuth"):
            if not _is_range(getattr(self, name)):
                got = getattr(self, name)
                raise ValueError(f"{type(self).__name__}: {name} must be (low, high), low <= high, got {got}")

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Elevations and azimuths, [n] float32 each, on the generator's device; elevations within +-pi/2."""


def _uniform(n: int, span: Range, generator: torch.Generator | None) -> Tensor:
    check_whole("sample", 0, n=n)
    device = None if generator is None else generator.device
    return span[0] + (span[1] - span[0]) * torch.rand(n, generator=generator, device=device)


def _gaussian(n: int, span: Range, generator: torch.Generator | None) -> Tensor:
    """Normal around the middle of the range; its half-width is one standard deviation."""
    check_whole("sample", 0, n=n)
    device = None if generator is None else generator.device
    noise = torch.randn(n, generator=generator, device=device)
    return (span[0] + span[1]) / 2 + (span[1] - span[0]) / 2 * noise


def _truncated_gaussian(n: int, span: Range, generator: torch.Generator | None) -> Tensor:
    """As `_gaussian`, cut at two standard deviations, by inversion of the cumulative distribution."""
    cut = math.erf(math.sqrt(2.0))
    noise = math.sqrt(2.0) * torch.erfinv(_uniform(n, (-cut, cut), generator))
    return (span[0] + span[1]) / 2 + (span[1] - span[0]) / 2 * noise.clamp(-2.0, 2.0)


def _doubled(span: Range) -> Range:
    middle, half = (span[0] + span[1]) / 2, span[1] - span[0]
    return middle - half, middle + half


def _clip(elevation: Tensor) -> Tensor:
    return elevation.clamp(-math.pi / 2, math.pi / 2)


class Uniform(PoseDistribution):
    """Each angle uniform in its range."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _clip(_uniform(n, self.elevation, generator)), _uniform(n, self.azimuth, generator)


class Gaussian(PoseDistribution):
    """Each angle normal; the middle of its range is the mean, its half-width one standard deviation."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        return _clip(_gaussian(n, self.elevation, generator)), _gaussian(n, self.azimuth, generator)


class TruncatedGaussian(PoseDistribution):
    """As `Gaussian`, cut at two standard deviations."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        elevation = _truncated_gaussian(n, self.elevation, generator)
        return _clip(elevation), _truncated_gaussian(n, self.azimuth, generator)


class SphericalUniform(PoseDistribution):
    """Uniform by area on the part of the sphere in the ranges: the sine of the elevation is uniform."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        low, high = (math.sin(min(max(e, -math.pi / 2), math.pi / 2)) for e in self.elevation)
        return _uniform(n, (low, high), generator).clamp(-1, 1).asin(), _uniform(n, self.azimuth, generator)


class Hybrid(PoseDistribution):
    """Half of the poses `Gaussian`, half `Uniform` over ranges twice as wide (pi-GAN, Chan et al. 2021)."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        wide = _uniform(n, (0.0, 1.0), generator) < 0.5
        elevation, azimuth = (
            torch.where(wide, _uniform(n, _doubled(span), generator), _gaussian(n, span, generator))
            for span in (self.elevation, self.azimuth)
        )
        return _clip(elevation), azimuth


class Fixed(PoseDistribution):
    """One pose: the middle of each range, of which nothing else is left."""

    def __init__(self, elevation: Range, azimuth: Range) -> None:
        middles = [sum(span) / 2 for span in (elevation, azimuth)]
        super().__init__(*((middle, middle) for middle in middles))

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        device = None if generator is None else generator.device
        elevation, azimuth = (torch.full((n,), span[0], device=device) for span in (self.elevation, self.azimuth))
        return _clip(elevation), azimuth


@dataclass(frozen=True)
class Empirical(PoseDistribution):
    """The poses of a data set, `angles` [N, 2] (elevation and azimuth), drawn with replacement."""

    angles: Tensor

    @classmethod
    def of(cls, angles: Tensor) -> Empirical:
        """The distribution of `angles`. Elevations are a range, azimuths all but the widest gap."""
        turn = 2 * math.pi
        azimuths = angles[:, 1].remainder(turn).sort().values
        gaps = torch.diff(azimuths, append=azimuths[:1] + turn)
        low = math.remainder(azimuths.roll(-1)[gaps.argmax()].item(), turn)
        span = (angles[:, 0].min().item(), angles[:, 0].max().item())
        return cls(span, (low, low + max(turn - gaps.max().item(), 0.0)), angles)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        device = None if generator is None else generator.device
        chosen = torch.randint(len(self.angles), (n,), generator=generator, device=device)
        elevation, azimuth = self.angles.to(chosen.device)[chosen].unbind(1)
        return _clip(elevation), azimuth


POSE_DISTRIBUTIONS: dict[str, type[PoseDistribution]] = {
    "uniform": Uniform,
    "gaussian": Gaussian,
    "truncated_gaussian": TruncatedGaussian,
    "spherical_uniform": SphericalUniform,
    "hybrid": Hybrid,
    "fixed": Fixed,
}


def pose_distribution(name: str, elevation_range: Range, azimuth_range: Range) -> PoseDistribution:
    """The distribution called `name` in a configuration, over ranges in radians.

    Raises UserError for an unknown name or a range that is not (low, high).
    """
    if name not in POSE_DISTRIBUTIONS:
        raise UserError(f"pose distribution: must be one of {', '.join(POSE_DISTRIBUTIONS)}, got {name!r}")
    for what, span in (("elevation", elevation_range), ("azimuth", azimuth_range)):
        if not _is_range(span):
            raise UserError(f"pose distribution: {what} range must be (low, high), low <= high, got {span}")
    return POSE_DISTRIBUTIONS[name](elevation_range, azimuth_range)


def _is_range(span: Any) -> bool:
    try:
        low, high = map(float, span)
    except (TypeError, ValueError):
        return False
    return -math.inf < low <= high < math.inf


def orbit_path(
    frames: int, elevation: float = math.radians(20.0), *, start: float = 0.0, turns: float = 1.0, swing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Elevations and azimuths, [frames] float32 each, of a turntable that loops without a repeated frame.

    Args:
        elevation: mean elevation in radians; `swing` is added as one sine over the path.
        start: first azimuth; turns: how often the camera goes round (negative: the other way).
    """
    check_whole("orbit_path", 0, frames=frames)
    phase = 2 * math.pi * torch.arange(frames) / max(frames, 1)
    return _clip(elevation + swing * phase.sin()), start + turns * phase


# ------------------------------------------------------------------------------------------ other conventions


def from_blender(transform_matrix: Tensor) -> Tensor:
    """`camera_to_world` [..., 3, 4] from Blender's and NeRF's `transform_matrix` [..., 4, 4] or [..., 3, 4].

    The camera axes agree; Blender's world is z-up: its (x, y, z) is (x, z, -y) here. Exact.
    """
    transform_matrix = as_tensor("from_blender: transform_matrix", transform_matrix)
    if transform_matrix.shape[-2:] not in ((4, 4), (3, 4)):
        shape = list(transform_matrix.shape)
        raise ValueError(f"from_blender: transform_matrix must be [..., 4, 4] or [..., 3, 4], got {shape}")
    x, y, z = transform_matrix[..., :3, :].unbind(-2)
    return torch.stack((x, z, -y), -2)


def to_blender(camera_to_world: Tensor) -> Tensor:
    """Blender's `transform_matrix` [..., 4, 4] of `camera_to_world` [..., 3, 4]: inverts `from_blender`."""
    camera_to_world = as_tensor("to_blender: camera_to_world", camera_to_world)
    if camera_to_world.shape[-2:] != (3, 4):
        shape = list(camera_to_world.shape)
        raise ValueError(f"to_blender: camera_to_world must be [..., 3, 4], got {shape}")
    x, y, z = camera_to_world.unbind(-2)
    last = camera_to_world.new_tensor((0.0, 0.0, 0.0, 1.0)).expand_as(x)
    return torch.stack((x, -z, y, last), -2)


def vertical_fov(horizontal: float, aspect: float) -> float:
    """Vertical field of view for a horizontal one (Blender's `camera_angle_x`); aspect is width / height."""
    _check_view("vertical_fov", horizontal, aspect)
    return 2 * math.atan(math.tan(horizontal / 2) / aspect)


def horizontal_fov(vertical: float, aspect: float) -> float:
    """Horizontal field of view (Blender's `camera_angle_x`) for a vertical one; inverse of `vertical_fov`."""
    _check_view("horizontal_fov", vertical, aspect)
    return 2 * math.atan(math.tan(vertical / 2) * aspect)


def _check_view(function: str, fov: float, aspect: float) -> None:
    check_fov(function, fov)
    if not 0 < aspect < math.inf:
        raise ValueError(f"{function}: aspect must be positive, got {aspect}")
