"""Square images of volumes from orbit cameras, as `raycast.render` makes them of surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV, camera_distance, orbit_camera
from sdfgan.checks import check_axes, check_colour, check_fov, check_whole
from sdfgan.fields.base import Field, FieldSample
from sdfgan.fields.volume import VolumeField
from sdfgan.rendering import Rendering
from sdfgan.volume.field import Rays
from sdfgan.volume.render import render
from sdfgan.volume.sampling import Sampling

_PLACES_AT_ONCE = 2**18  # without a graph


def render_images(
    field: Field,
    axes: Tensor,
    condition: Any = None,
    *,
    resolution: int = 128,
    fov: float = DEFAULT_FOV,
    near_far: tuple[float, float] | None = None,
    background: Tensor | Sequence[float] = (0.0, 0.0, 0.0),
    sampling: Sampling | None = None,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Images of a volume that is also a `Field`.

    Args:
        field: rendered within the ball of its extent; normals are those of its `sdf`.
        axes: [B, 3, 3], one camera per row of the condition.
        near_far: the part of each ray that is rendered, in distances of the camera from the origin; None: all of it
            within the ball.
        background: RGB, [3] or [B, 3].
        sampling: 48 samples, then 48, by default.
        generator: of the random numbers of stratified sampling.

    Returns:
        `Rendering`; its field's values are those at the expected depths of seen pixels, without a graph. Colour, alpha
        and depth are differentiable in what the field and its condition depend on, not in cameras.
    """
    check_axes("render_images", axes)
    check_fov("render_images", fov)
    check_whole("render_images", 1, resolution=resolution)
    check_colour("render_images: background", background, len(axes))
    sampling = sampling or Sampling((48, 48), merge=True)
    cameras = orbit_camera(axes.detach(), fov)
    images, pixels = len(axes), resolution**2
    every = torch.arange(images * pixels, device=axes.device)
    origins, directions, near, far = ops.generate_rays(cameras, every, resolution, resolution, fov, field.extent)
    if near_far is not None:
        nearest, farthest = (share * camera_distance(fov) for share in near_far)
        near, far = near.clamp(min=nearest), far.clamp(max=farthest)
    # Orbit cameras see the ball alike: which pixels see it is found for the first.
    seen = (far > near)[:pixels].nonzero()[:, 0]
    volume = cast(VolumeField, field)
    per_pixel = images * sum(sampling.counts)
    graph = torch.is_grad_enabled()
    parts = []
    for some in seen.split(len(seen) + 1 if graph else max(1, _PLACES_AT_ONCE // max(per_pixel, 1))):
        chosen = (some + pixels * torch.arange(images, device=axes.device)[:, None]).flatten()
        rays = Rays(origins[chosen], directions[chosen], near[chosen], far[chosen])
        made = render(volume, rays, condition=condition, sampling=sampling, generator=generator)
        parts.append(torch.cat([made.rgb, made.opacity[:, None], made.depth[:, None]], 1).view(images, len(some), 5))
    values = torch.cat(parts, 1) if parts else origins.new_zeros(images, 0, 5)

    empty = values.new_tensor([0.0, 0, 0, 0, torch.inf])
    flat = empty.expand(images, pixels, 5).index_copy(1, seen, values)
    image = flat.view(images, resolution, resolution, 5).permute(0, 3, 1, 2)
    rgb, alpha, depth = image[:, :3], image[:, 3:4], image[:, 4:]
    behind = torch.as_tensor(background, dtype=rgb.dtype, device=rgb.device).expand(images, 3)
    sample, normals, hit = _surface(field, condition, origins, directions, alpha.detach(), depth.detach())
    counts = torch.full((2,), images * len(seen) * sum(sampling.counts), device=axes.device)
    return Rendering(rgb + (1 - alpha) * behind[:, :, None, None], alpha, depth, normals, hit, sample, counts)


def _surface(
    field: Field, condition: Any, origins: Tensor, directions: Tensor, alpha: Tensor, depth: Tensor
) -> tuple[FieldSample, Tensor, Tensor]:
    """The field at the expected depths of half-opaque pixels, and images of normals and of these pixels."""
    hit = (alpha > 0.5) & depth.isfinite()
    index = hit.flatten().nonzero()[:, 0]
    points = origins[index] + depth.flatten()[index, None] * directions[index]
    image = index // (alpha.shape[2] * alpha.shape[3])
    with torch.no_grad():
        sample = FieldSample(*(part.detach() for part in field.evaluate(points, condition, image)))
    normals = torch.zeros_like(origins).index_copy(0, index, F.normalize(sample.gradient, dim=1))
    return sample, normals.view(len(alpha), *alpha.shape[2:], 3).permute(0, 3, 1, 2), hit
