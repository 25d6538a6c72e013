"""Differentiable pictures: rays are traced without a graph, then the field is evaluated once at each sample with one.

Coverage: a ray that gets half a pixel footprint deep is opaque; one that does not covers alpha = 1/2 - sdf / footprint
at its nearest miss. Measured from the surface symmetrically, this neither grows nor shrinks a silhouette.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan.cameras import DEFAULT_FOV, camera_distance
from sdfgan.fields.base import Field, FieldSample
from sdfgan.fields.function import as_field
from sdfgan.raycast.multiscale import multiscale

_OPAQUE_INSET = 0.5  # pixel footprints inside the surface at which a pixel is fully covered
_HIT_TOLERANCE = 0.05  # pixel footprints
_STEEPEST_GRAZE = -0.1  # largest n.d for which the surface's motion along the ray is followed


@dataclass(frozen=True)
class Rendering:
    """Pictures [B, C, H, W] of resolution H = W, and the field's answers they were made from."""

    rgb: Tensor  # [B, 3, H, W] shaded colour over the background (premultiplied by alpha if that is black)
    alpha: Tensor  # [B, 1, H, W] coverage in [0, 1]
    depth: Tensor  # [B, 1, H, W] distance along the unit ray; infinite where alpha is 0
    normals: Tensor  # [B, 3, H, W] unit world normals; 0 where alpha is 0
    hit: Tensor  # [B, 1, H, W] bool: the ray through the pixel's centre meets the surface
    field: FieldSample  # at the samples, flat
    counts: Tensor  # `SurfaceSamples.counts`

    @property
    def queries(self) -> int:
        """Points evaluated while tracing. Waits for the device."""
        return int(self.counts[0])

    @property
    def rgba(self) -> Tensor:
        """[B, 4, H, W]."""
        return torch.cat([self.rgb, self.alpha], dim=1)


def render(
    *,
    sdf: Field | Callable[..., Tensor],
    axes: Tensor,
    latents: Tensor | None = None,
    resolution: int = 128,
    fov: float = DEFAULT_FOV,
    light: Tensor | Sequence[float] | None = None,
    background: Sequence[float] = (0.0, 0.0, 0.0),
    steps: int = 300,
    lipschitz: float | Literal["estimate"] | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    condition: Any = None,
) -> Rendering:
    """Render square pictures of a field from orbit cameras.

    Args:
        sdf: a `Field` or a function of points (see `multiscale`).
        axes: [B, 3, 3], one camera per picture (`cameras.rotate_axes`).
        latents: [B, L] or None.
        resolution: side of the pictures in pixels.
        fov: field of view, radians.
        light: None for a headlight, or a direction towards the light, [3] or [B, 3] (any length). Brightness is
            (n.l + 1) / 2 (half Lambert).
        background: RGB behind the object.
        steps: most evaluations per ray.
        lipschitz: safety factor of the march, as in `multiscale`.
        precision: of the march, as in `multiscale`; the samples are always evaluated in the field's own.
        condition: what `sdf.condition(latents)` gave, if that has been computed already.

    Returns:
        `Rendering`. Colour, alpha, depth and normals are differentiable in the field's parameters and in the latents,
        to first order; hits are not moved under colour and normals, which are taken where they are.
    """
    field = as_field(sdf)
    if condition is None:
        condition = field.condition(latents)
    samples = multiscale(
        axes,
        (resolution,),
        latents,
        field,
        threshold=_HIT_TOLERANCE * 2 / resolution,
        fov=fov,
        steps=steps,
        margin=_OPAQUE_INSET,
        inset=_OPAQUE_INSET,
        lipschitz=lipschitz,
        precision=precision,
        condition=condition.detach() if hasattr(condition, "detach") else condition,
    )
    resolution = samples.mask.shape[-1]
    footprint = 2 / (resolution * camera_distance(fov)) * samples.distances  # [N] world size of a pixel
    covers = samples.hit | (samples.nearest < _OPAQUE_INSET * footprint)
    pixels = samples.mask.flatten().nonzero()[covers, 0]
    rays, distances, footprint, opaque = (
        samples.rays[covers],
        samples.distances[covers],
        footprint[covers],
        samples.hit[covers],
    )
    answer = field.evaluate(rays.at(distances), condition, rays.image)

    alpha = torch.where(opaque, torch.ones_like(footprint), (0.5 - answer.sdf / footprint).clamp(0, 1))
    normals = answer.gradient / (answer.gradient.norm(dim=-1, keepdim=True) + 1e-5)
    towards_light = _light(light, axes)[rays.image]
    colour = answer.rgb * (0.5 + 0.5 * (normals * towards_light).sum(-1, keepdim=True))
    slope = (answer.gradient * rays.directions).sum(-1).detach().clamp(max=_STEEPEST_GRAZE)
    # Implicit differentiation: the surface moves along the ray by -d(sdf) / (gradient . direction).
    depth = distances - torch.where(opaque, answer.sdf / slope, 0.0)

    def picture(values: Tensor, empty: float = 0.0) -> Tensor:
        flat = values.new_full((samples.mask.numel(), values.shape[1]), empty)
        flat = flat.index_put((pixels,), values)
        return flat.view(*samples.mask.shape, -1).permute(0, 3, 1, 2)

    behind = torch.tensor(background, dtype=axes.dtype, device=axes.device).view(1, 3, 1, 1)
    coverage = picture(alpha[:, None])
    return Rendering(
        rgb=picture(colour * alpha[:, None]) + (1 - coverage) * behind,
        alpha=coverage,
        depth=picture(depth[:, None], empty=float("inf")),
        normals=picture(normals),
        hit=picture((answer.sdf.detach() <= 0.5 * _HIT_TOLERANCE * footprint)[:, None] | opaque[:, None], empty=False),
        field=answer,
        counts=samples.counts,
    )


def _light(light: Tensor | Sequence[float] | None, axes: Tensor) -> Tensor:
    """Unit directions [B, 3] towards the light."""
    if light is None:
        return axes[:, 2]
    direction = torch.as_tensor(light, dtype=axes.dtype, device=axes.device)
    if direction.shape not in ((3,), (len(axes), 3)):
        raise ValueError(f"render: light must be [3] or [{len(axes)}, 3], got {list(direction.shape)}")
    return F.normalize(direction, dim=-1).expand(len(axes), 3)
