"""Finding the surfaces in a batch of images: at increasing resolution, and only where coarser levels came near them.

A `FilmSirenSDF` is traced by one native call, any other field level by level; the march is the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV, camera_distance, orbit_camera
from sdfgan.checks import check_axes, check_fov, check_number, refuse_vmap
from sdfgan.fields.base import Bound, Field, bound_of
from sdfgan.fields.function import as_field
from sdfgan.raycast.dfr import dfr_levels
from sdfgan.raycast.levels import MakeLevels, march_levels
from sdfgan.raycast.sphere_trace import Rays, march

_LIPSCHITZ_POINTS = 4096
_FARTHEST = 3.0  # camera distances: what is unbounded ends there


@dataclass(frozen=True)
class SurfaceSamples:
    """One sample for each pixel that may see the surface, in the order of `mask.nonzero()`: by image, row, column."""

    rays: Rays
    mask: Tensor  # [B, R, R] bool: pixels that have a sample
    distances: Tensor  # [N] along the ray: of the surface if hit, else of the nearest miss
    hit: Tensor  # [N] bool
    nearest: Tensor  # [N] sdf at `distances`; for a hit, the value that made it one
    counts: Tensor  # [2] int64: points at which the field was evaluated for the rays; with idle lanes
    batch_latents: Tensor | None  # [B, L], as given

    @property
    def queries(self) -> int:
        """Points at which the field was evaluated for the rays. Waits for the device."""
        return int(self.counts[0])

    @property
    def lanes(self) -> int:
        """The same with the idle lanes of the native tracer."""
        return int(self.counts[1])

    @property
    def points(self) -> Tensor:
        """[N, 3] world: surface points and nearest misses."""
        return self.rays.at(self.distances)

    @property
    def image(self) -> Tensor:
        """[N] int64: which image each sample belongs to."""
        return self.rays.image

    @property
    def latents(self) -> Tensor | None:
        """[N, L]: the latent of each sample."""
        return None if self.batch_latents is None else self.batch_latents[self.image]


@torch.no_grad()
def multiscale(
    axes: Tensor,
    scales: Sequence[int],
    latents: Tensor | None,
    sdf: Field | Callable[..., Tensor],
    threshold: float = 1e-4,
    fov: float = DEFAULT_FOV,
    *,
    steps: int = 300,
    margin: float = 0.5,
    inset: float = 0.0,
    start_jitter: float = 0.0,
    refine: int = 8,
    lipschitz: float | Literal["estimate"] | None = None,
    algorithm: Literal["march", "dfr"] = "march",
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    extent: float | None = None,
    generator: torch.Generator | None = None,
    condition: Any = None,
) -> SurfaceSamples:
    """Trace B square images of fields from orbit cameras, at increasing resolution.

    Args:
        axes: [B, 3, 3] float32 or float64, rows x, y, z of each camera (`cameras.rotate_axes`).
        scales: their product is the resolution; the march chooses its own levels ("dfr": takes these).
        latents: [B, L], one per image, or None for a field that takes none.
        sdf: a `Field`, or a function or module `sdf(points [N, 3], latents [N, L]) -> [N] or [N, 1]` (or of points
            alone, which is one shape for all latents; or with dfr's `mask` and `geomOnly`). Its
            values must not exceed the distance to the surface (times `lipschitz`).
        threshold: a ray hits where the sdf falls to this (world units), and `distances` is refined to about this.
        fov: field of view, radians. The camera is at 1 / tan(fov / 2) from the origin; the object is in the unit ball.
        steps: most evaluations per ray of the last level, times `lipschitz` if that is above 1. One that has spent them
            counts as a miss.
        margin: pixels; misses within this distance of the surface are sampled too.
        inset: pixels; trace the level set that many pixel footprints inside the surface. A ray that reaches it is a
            hit (and `refine` brings it back to the surface); one that only enters the surface is a miss with a
            negative `nearest`.
        start_jitter: rays of the last level start up to so much farther, at random (world units). Surfaces nearer
            than that may be skipped.
        refine: most evaluations that move a hit onto the surface.
        lipschitz: the largest |gradient| of the sdf, by which steps are divided (too large costs evaluations alone);
            "estimate": for each shape, the largest found at 4096 random points; None: `Field.lipschitz`.
        algorithm: "march" (see docs/raycasting.md), or "dfr": plain sphere tracing of exactly the levels given by
            `scales`, by the rules of dfr, an older project, for comparison. It ignores threshold,
            steps, margin, inset and refine. Its former name, "seed", works in this version.
        precision: of the network's matrix products when tracing a `FilmSirenSDF` (ValueError for another field, or
            another device than the one it is for); sums and sines are float32. "bf16" is for a CPU with AVX512_BF16
            (else RuntimeError), "fp16" for CUDA from sm_80 and widths up to 256. None: "fp16" there, else "fp32".
        extent: radius of the ball around the origin that rays are clipped to ("dfr": 1); None: `Field.extent`.
        generator: for `start_jitter` and the points of "estimate".
        condition: what `sdf.condition(latents)` gave, if that has been computed already.

    Returns:
        `SurfaceSamples`. A pixel outside its mask sees nothing nearer than `margin`. Not differentiable: evaluate
        the field at the samples for that, as `render` does.
    """
    field = as_field(sdf)
    check_axes("multiscale", axes)
    check_fov("multiscale", fov)
    _check(scales, threshold, steps)
    for name, value in (("margin", margin), ("inset", inset), ("start_jitter", start_jitter), ("refine", refine)):
        check_number(f"multiscale: {name}", value)
        if not value >= 0:
            raise ValueError(f"multiscale: {name} must not be negative, got {value}")
    if algorithm not in ("march", "dfr", "seed"):
        raise ValueError(f"multiscale: algorithm must be 'march' or 'dfr', got {algorithm!r}")
    if condition is None:
        condition = make_condition("multiscale", field, latents, axes)
    options = MarchOptions(steps, lipschitz, precision, extent)
    resolution = math.prod(scales)
    jitter = None
    if start_jitter > 0:
        shape = (len(axes), resolution, resolution)
        jitter = start_jitter * torch.rand(shape, generator=generator, dtype=axes.dtype, device=axes.device)
    tracer = Tracer(field, condition, axes, fov, options, generator)
    make_levels = tracer.levels(resolution, threshold, margin=margin, inset=inset, refine=refine)
    if algorithm != "march":
        make_levels = partial(dfr_levels, scales, fov)
    traced = tracer.trace(make_levels, jitter=jitter)
    pixels = (traced.status != int(ops.RayStatus.UNTRACED)).nonzero()[:, 0]
    level = make_levels(lipschitz=1.0, radius=tracer.extent)[-1]
    rays = tracer.rays(pixels, resolution, level.radius, level.start, None if jitter is None else jitter.flatten())
    distances = traced.distance[pixels]
    return SurfaceSamples(
        rays=rays,
        mask=(traced.status != int(ops.RayStatus.UNTRACED)).view(-1, resolution, resolution),
        distances=distances,
        hit=traced.status[pixels] == int(ops.RayStatus.HIT),
        nearest=traced.nearest[pixels],
        counts=traced.counts,
        batch_latents=latents,
    )


class MarchOptions(NamedTuple):
    """What a user may say about a march; see `multiscale`."""

    steps: int = 300
    lipschitz: float | Literal["estimate"] | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    extent: float | None = None


class PixelTrace(NamedTuple):
    """What became of the rays of all pixels, N = B R^2."""

    status: Tensor  # [N] uint8 RayStatus
    distance: Tensor  # [N] of the hit or of the nearest miss; after a march that collects layers, of the hit alone
    nearest: Tensor  # [N] smallest value of the sdf; undefined after a march that collects layers
    counts: Tensor  # [2] int64: points evaluated for rays, and in all (with idle lanes)
    layers: ops.LayerState | None


class Tracer:
    """One field, seen from some orbit cameras: traces images of any levels, natively where it can."""

    def __init__(
        self,
        field: Field,
        condition: Any,
        axes: Tensor,
        fov: float,
        options: MarchOptions,
        generator: torch.Generator | None = None,
    ) -> None:
        if field.unsigned:
            raise ValueError("an unsigned field has no inside to be hit: render its shell(), see docs/meshes.md")
        _check_images(field, condition, len(axes))
        self.field, self.condition, self.fov, self._options = field, condition, fov, options
        self.camera = orbit_camera(axes.detach(), fov).contiguous()
        self._images: Tensor | None = None  # of the condition, where these are not all of them
        lipschitz = options.lipschitz
        for name, value in (("lipschitz", lipschitz), ("extent", options.extent)):
            if value is not None and value != "estimate":
                check_number(name, value)
        if lipschitz is None or lipschitz == "estimate":
            steepest = _largest_gradients(field, condition, axes, generator) if lipschitz else field.lipschitz
            self.lipschitz: float | Tensor = _alike(bound_of(lambda bound: max(bound, 1.0), steepest))
        elif not lipschitz > 0:
            raise ValueError(f"multiscale: lipschitz must be positive, got {lipschitz}")
        else:
            self.lipschitz = lipschitz
        radius = field.extent if options.extent is None else options.extent
        if not np.all(np.asarray(radius) > 0):
            raise ValueError(f"multiscale: extent must be positive, got {radius}")
        farthest = _FARTHEST * camera_distance(fov)
        self.extent = _alike(bound_of(lambda bound: min(bound, farthest), radius))
        if options.precision not in (None, "fp32", "bf16", "fp16"):
            raise ValueError(f"precision must be 'fp32', 'bf16', 'fp16' or None, got {options.precision!r}")
        self._network = field.network(condition, options.precision)
        if self._network is not None and self._network.first.dtype != axes.dtype:
            types = [str(tensor.dtype).removeprefix("torch.") for tensor in (self._network.first, axes)]
            raise ValueError(f"axes must be {types[0]}, as the field's weights are, got {types[1]}")
        if self._network is None and options.precision in ("bf16", "fp16"):
            device = "on CUDA, of width 256 at most" if options.precision == "fp16" else "on a CPU"
            raise ValueError(f"multiscale: precision {options.precision!r} is for a FilmSirenSDF {device}")

    def full_precision(self) -> torch.autocast:
        """A rounded distance is a moved surface: rays are traced as without autocast."""
        return torch.autocast(self.camera.device.type, enabled=False)

    def levels(self, resolution: int, threshold: float, *, margin: float, inset: float, refine: int = 8) -> MakeLevels:
        """See `march_levels`."""
        native: Literal["cpu", "cuda"] | None = None
        if self._network is not None:
            native = "cuda" if self.camera.is_cuda else "cpu"
        return partial(
            march_levels,
            resolution,
            self.fov,
            threshold=threshold,
            steps=self._options.steps,
            margin=margin,
            inset=inset,
            refine=refine,
            native=native,
        )

    def trace(self, make_levels: MakeLevels, *, jitter: Tensor | None = None, max_layers: int = 0) -> PixelTrace:
        """March the rays of all levels; those of the last one collect layers, if any are wanted.

        Images with other bounds are marched by themselves, as they would be alone: in a common march, the image of
        one would depend on what is beside it.
        """
        groups = self._groups()
        if len(groups) <= 1:
            return self._march(make_levels, jitter, max_layers)
        parts = [
            self._of(images)._march(make_levels, None if jitter is None else jitter[images], max_layers)
            for images in groups
        ]
        order = torch.cat(groups).argsort()

        def together(name: str, of: Sequence[Any] = parts) -> Tensor:
            """[..., N] of all pixels."""
            each = [getattr(part, name).unflatten(-1, (len(own), -1)) for part, own in zip(of, groups, strict=True)]
            return torch.cat(each, -2).index_select(-2, order).flatten(-2)

        layers = None
        if max_layers:
            of = [part.layers for part in parts]
            layers = ops.LayerState(together("layers", of), together("complete", of), self.camera.new_empty(5, 0))
        counts = torch.stack([part.counts for part in parts]).sum(0)
        return PixelTrace(together("status"), together("distance"), together("nearest"), counts, layers)

    def _groups(self) -> list[Tensor]:
        """Images [b] with the same bounds. Rays that are marched level by level have the ball of their own image."""
        shared = (self.lipschitz,) if self._network is None else (self.lipschitz, self.extent)
        rows = list(zip(*(bound.tolist() for bound in shared if isinstance(bound, Tensor)), strict=True))
        alike = ([image for image, row in enumerate(rows) if row == own] for own in dict.fromkeys(rows))
        return [torch.tensor(images, device=self.camera.device) for images in alike]

    def _of(self, images: Tensor) -> Tracer:
        """Of some images, which have the same bounds."""
        part = copy.copy(self)
        part.camera, part._images = self.camera[images], images
        part.lipschitz, part.extent = _rows(self.lipschitz, images), _rows(self.extent, images)
        if self._network is not None:
            scale, shift = self._network.scale[images], self._network.shift[images]
            part._network = self._network._replace(scale=scale, shift=shift)
        return part

    def _march(self, make_levels: MakeLevels, jitter: Tensor | None, max_layers: int) -> PixelTrace:
        """All images in one march."""
        lipschitz, radius = _first(self.lipschitz), self.extent if self._network is None else _first(self.extent)
        levels = make_levels(lipschitz=lipschitz, radius=radius)
        if self._network is not None:
            status, distance, nearest, counts, layers = ops.film_siren_trace(
                self.camera, levels, self._network, self.fov, jitter, max_layers
            )
            return PixelTrace(status.flatten(), distance.flatten(), nearest.flatten(), counts, layers)
        counts = torch.zeros(1, dtype=torch.int64, device=self.camera.device)
        parent: tuple[ops.TraceLevel, Tensor, Tensor] | None = None
        own: ops.LayerState | None = None
        for level in levels:
            last = level is levels[-1]
            own_balls = level._replace(radius=self._on_device(level.radius))
            rays = ops.start_level(self.camera, own_balls, self.fov, parent, jitter if last else None)
            if last and max_layers:
                own = ops.LayerState.none(max_layers, rays.start)
            which = partial(self._image_of, level.size**2)
            with self.full_precision():
                counts += march(self.field, self.condition, rays, level, which, own)
            parent = level, rays.state, rays.status
        t, nearest, nearest_t, *_ = rays.state
        distance = torch.where(rays.status == int(ops.RayStatus.HIT), t, nearest_t)
        return PixelTrace(rays.status, distance, nearest, counts.expand(2), own)

    def _image_of(self, pixels: int, ray: Tensor) -> Tensor:
        """The row of the condition of rays, if each image has that many pixels."""
        image = image_of(pixels, ray)
        return image if self._images is None else self._images[image]

    def _on_device(self, radius: float | Tensor) -> float | Tensor:
        return radius.to(self.camera) if isinstance(radius, Tensor) else radius

    def lipschitz_of(self, image: Tensor) -> float | Tensor:
        """[N] of images [N], or one for all."""
        return self.lipschitz.to(self.camera)[image] if isinstance(self.lipschitz, Tensor) else self.lipschitz

    def footprint(self, pixels: Tensor, resolution: int) -> float | Tensor:
        """The side of a pixel, per unit of distance: of all, or [N] of the pixels [N]."""
        return 2 / (resolution * camera_distance(self.fov))

    def rays(
        self, pixels: Tensor, resolution: int, radius: float | Tensor, offset: float = 0.0, jitter: Tensor | None = None
    ) -> Rays:
        """The rays [N] of pixels, given by their numbers [N] (ascending); not differentiable."""
        made = ops.generate_rays(self.camera, pixels, resolution, resolution, self.fov, self._on_device(radius))
        origins, directions, start, far = made
        start = start + offset
        if jitter is not None:
            start = start + jitter[pixels]
        return Rays(pixels // resolution**2, origins, directions, start, far)


def image_of(pixels: int, ray: Tensor) -> Tensor:
    """Which image rays belong to, if each has that many pixels."""
    return (ray // pixels).long()


def _alike(bound: Bound) -> float | Tensor:
    """A number if it is the same for all images, else [B]."""
    if not isinstance(bound, np.ndarray):
        return bound
    return torch.from_numpy(bound) if (bound != bound[:1]).any() else float(bound[0]) if len(bound) else 1.0


def _rows(bound: float | Tensor, images: Tensor) -> float | Tensor:
    return bound[images.cpu()] if isinstance(bound, Tensor) else bound


def _first(bound: float | Tensor) -> float:
    """Of images that have the same."""
    return bound[0].item() if isinstance(bound, Tensor) else bound


def _largest_gradients(field: Field, condition: Any, axes: Tensor, generator: torch.Generator | None) -> np.ndarray:
    """[B] at random points, which are the same ones for all images, so that each has what it would have alone."""
    points = torch.randn(_LIPSCHITZ_POINTS, 3, dtype=axes.dtype, device=axes.device, generator=generator)
    radius = torch.rand(len(points), dtype=axes.dtype, device=axes.device, generator=generator) ** (1 / 3)
    points = points / points.norm(dim=-1, keepdim=True) * radius[:, None]
    image = torch.arange(len(axes), device=axes.device).repeat_interleave(len(points))
    with torch.autocast(axes.device.type, enabled=False):
        _, gradient = field.sdf_and_gradient(points.repeat(len(axes), 1), condition, image)
    return gradient.detach().norm(dim=-1).view(len(axes), len(points)).amax(-1).double().cpu().numpy()


def make_condition(function: str, field: Field, latents: Tensor | None, axes: Tensor) -> Any:
    """`field.condition` of the latents of some cameras, in full precision."""
    refuse_vmap(function, latents)
    if latents is not None and not isinstance(latents, Tensor):
        raise TypeError(f"{function}: latents must be a Tensor [{len(axes)}, L], got {type(latents).__name__}")
    if latents is not None and (latents.ndim != 2 or len(latents) != len(axes)):
        raise ValueError(f"{function}: latents must be [{len(axes)}, L], got {list(latents.shape)}")
    with torch.autocast(axes.device.type, enabled=False):
        return field.condition(latents)


def _check_images(field: Field, condition: Any, cameras: int) -> None:
    """One shape for each camera, where there are several."""
    if field.images not in (None, cameras):
        raise ValueError(
            f"{type(field).__name__}: has parameters for {field.images} images, but there are {cameras} cameras"
        )
    shapes = len(condition) if hasattr(condition, "__len__") else cameras
    if shapes != cameras:
        raise ValueError(f"the condition is of {shapes} latents, but there are {cameras} cameras")


def _check(scales: Sequence[int], threshold: float, steps: int) -> None:
    if not isinstance(scales, Sequence):
        raise TypeError(f"multiscale: scales must be a sequence, such as (8, 4), got {scales!r}")
    if not scales or any(int(scale) != scale or scale < 1 for scale in scales):
        raise ValueError(f"multiscale: scales must be positive whole numbers, got {tuple(scales)}")
    if not threshold > 0:
        raise ValueError(f"multiscale: threshold must be positive, got {threshold}")
    if steps < 1:
        raise ValueError(f"multiscale: steps must be at least 1, got {steps}")
