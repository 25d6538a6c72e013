"""Differentiable rendering: rays are traced without a graph, then the field is evaluated once at each layer with one.

What moves: the surface under a ray (implicit differentiation), with it colour, normal and depth; and the edges of
layers, hence coverage. See docs/raycasting.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.cameras import DEFAULT_FOV, orbit_camera
from sdfgan.checks import check_axes, check_colour, check_fov, check_whole
from sdfgan.fields.base import Field, FieldSample
from sdfgan.fields.function import as_field
from sdfgan.raycast.coverage import edge_in_pixels, half_plane_area, half_plane_slope
from sdfgan.raycast.creases import blend_creases
from sdfgan.raycast.density import shared_samples
from sdfgan.raycast.dfr import THRESHOLD, dfr_coverage, dfr_levels
from sdfgan.raycast.layers import OPAQUE_DEPTH, LayerSamples, all_layers
from sdfgan.raycast.lighting import Lighting, as_lighting, tensor_like
from sdfgan.raycast.memory import Memory, in_pieces
from sdfgan.raycast.multiscale import MarchOptions, Tracer, make_condition
from sdfgan.raycast.photographs import PhotographRays, PhotographTracer
from sdfgan.raycast.room import Room, first_places
from sdfgan.raycast.sphere_trace import rays_of_pixels
from sdfgan.rendering import Rendering

Edge = Literal["exact", "neighbour", "dfr"]

STEEPEST_GRAZE = -0.1  # largest n.d for which the surface's motion along the ray is followed
_INWARD = (0.1, 0.25)  # pixels inside the edge, at least and at most: where the colour of a near miss is taken
_TOWARDS_CAMERA = (1.0, 8.0)  # pixels before the middle of what a ray there would be in; at least one, and at most


def render(
    *,
    sdf: Field | Callable[..., Tensor],
    axes: Tensor,
    latents: Tensor | None = None,
    resolution: int = 128,
    fov: float = DEFAULT_FOV,
    light: Lighting | Tensor | Sequence[float] | None = None,
    background: Tensor | Sequence[float] = (0.0, 0.0, 0.0),
    edge: Edge = "exact",
    layers: int = 4,
    supersample: int = 1,
    pixels: Tensor | None = None,
    density: int = 1,
    memory: Memory = "auto",
    budget: int | None = None,
    steps: int = 300,
    lipschitz: float | Literal["estimate"] | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    extent: float | None = None,
    condition: Any = None,
    room: Room | None = None,
) -> Rendering:
    """Render square images of a field from orbit cameras.

    Args:
        sdf: a `Field` or a function of points (see `multiscale`).
        axes: [B, 3, 3], one camera per image (`cameras.rotate_axes`).
        latents: [B, L] or None.
        resolution: side of the images in pixels.
        fov: field of view, radians.
        light: `Lighting`; None for a headlight; or a direction towards one light, [3] or [B, 3] (any length).
        background: RGB behind the object, [3] or [B, 3].
        edge: "exact": each edge covers the area that a straight line through the pixel cuts off. "neighbour": the
            pixels beside a miss take their edge from there, without a query inside the surface; one layer. "dfr": the
            rules of dfr, an older project, for comparison: a hit below 0.005 covers its pixel, a miss
            a share that falls linearly over a pixel. Hits do not move. It ignores layers, steps and extent.
            Its former name, "fuzz", works in this version.
        layers: most layers of a ray that are composited; 1 stops behind the first object. A layer that covers its pixel
            in part lets the next one through.
        supersample: rays per pixel along each side, averaged: for parts thinner than a pixel.
        pixels: [B, R, R] bool: render these alone, the others are empty.
        density: 2, 4 ...: blocks of so many pixels along a side share one evaluation where all are opaque: less memory,
            and a grid in the shading (docs/raycasting.md). Must divide the resolution.
        memory: "unbounded": one graph for all samples. "bounded": the same gradient from pieces whose graphs take at
            most about `budget` bytes at a time, for one more evaluation of the samples. "auto": in pieces if it must
            be. A gradient through pieces has itself no gradient.
        budget: bytes; None: half of what is free.
        steps: most evaluations per ray, as in `multiscale`.
        lipschitz: safety factor of the march, as in `multiscale`.
        precision: of the march, as in `multiscale`; the samples are always evaluated in the field's own.
        extent: radius of the ball around the origin that rays are clipped to; None: `Field.extent`.
        condition: what `sdf.condition(latents)` gave, if that has been computed already.
        room: for samples, so that the host waits for nothing after its first image; not for the "dfr" edge, nor a
            density above 1, nor pieces of a graph. None: it waits for the counts of samples, three times.

    Returns:
        `Rendering`. Colour, alpha, depth and normals are differentiable in the field's parameters, latents, cameras,
        light and background, to first order.
    """
    field = as_field(sdf)
    edge = "dfr" if edge == "fuzz" else edge
    check_axes("render", axes)
    check_fov("render", fov)
    check_colour("render: background", background, len(axes))
    _check(axes, resolution, edge, layers, supersample, pixels, density, steps, room)
    if condition is None:
        condition = make_condition("render", field, latents, axes)
    lighting, size = as_lighting(light), resolution * supersample
    tracer = Tracer(
        field,
        condition.detach() if hasattr(condition, "detach") else condition,
        axes,
        fov,
        MarchOptions(steps, lipschitz, precision, extent),
    )
    wanted = None if pixels is None else pixels.repeat_interleave(supersample, 1).repeat_interleave(supersample, 2)
    scene = _Scene(field, condition, axes, orbit_camera(axes, fov), fov, lighting, size, edge)
    if edge == "dfr":
        samples = _dfr_samples(tracer, size, wanted)
    else:
        most, depth = (1, 0.0) if edge == "neighbour" else (layers, OPAQUE_DEPTH)
        found = all_layers(tracer, size, most, depth=depth, pixels=wanted, room=room)
        samples = _visible(scene, *found, wanted, room)
    shared = shared_samples(samples, density) if density > 1 else None
    if shared is not None:
        samples = samples.where(shared.kept)
    weighted, *answer = in_pieces(_contributions, scene, samples, partial(_boundaries, samples), memory, budget, field)
    hit = _pixels_of(samples, samples.hit, len(axes))
    summed = weighted.new_zeros(len(hit), weighted.shape[1]).index_add_(0, samples.pixel, weighted)
    if shared is not None:
        source = torch.arange(len(hit), device=hit.device).index_put((shared.pixels,), shared.source)
        summed, hit = summed[source], hit[source]
    colour, alpha, depth, normal = summed.split([3, 1, 1, 3], dim=1)
    if edge != "dfr" and shared is None:
        solid = _pixels_of(samples, _alone(samples.first) & samples.opaque, len(axes))
        solid &= alpha[:, 0].detach() >= 1
        colour, normal = blend_creases(colour, depth[:, 0], normal, solid, scene.camera, size, fov, room)
    parts = (part.view(len(axes), size, size, part.shape[1]) for part in (colour, alpha, depth, normal))
    fine = [part.permute(0, 3, 1, 2) for part in parts]
    hits = hit.view(len(axes), 1, size, size)
    if supersample > 1:
        fine = [F.avg_pool2d(part, supersample) for part in fine]
        hits = F.max_pool2d(hits.to(axes.dtype), supersample) > 0
    rgb, alpha, depth, normals = fine
    empty = alpha <= 0
    behind = tensor_like(axes, background).expand(len(axes), 3)[:, :, None, None]
    return Rendering(
        rgb=rgb + (1 - alpha) * behind,
        alpha=alpha,
        depth=(depth / alpha.masked_fill(empty, 1.0)).masked_fill(empty, torch.inf),
        normals=normals / normals.norm(dim=1, keepdim=True).clamp_min(1e-9),
        hit=hits,
        field=FieldSample(*answer),
        valid=samples.valid,
        counts=samples.counts,
        image=samples.image,
    )


class RayColors(NamedTuple):
    """What N rays see; the samples M are their layers, front to back."""

    rgb: Tensor  # [N, 3] over the background
    alpha: Tensor  # [N] coverage of their pixels in [0, 1]
    field: FieldSample  # M: the field's values at the samples
    points: Tensor  # [M, 3] where these are, without a graph
    weights: Tensor  # [M] of each hit in its pixel, without a graph; 0 for near misses, which are evaluated elsewhere
    counts: Tensor  # [2] int64: points evaluated for rays while tracing


def render_rays(
    field: Field,
    rays: PhotographRays,
    background: Tensor,
    condition: Any = None,
    layers: int = 4,
    steps: int = 300,
) -> RayColors:
    """What pixels of photographs see of one field, without light: `render` with exact edges, for rays of any lens.

    Edges are those that pass near a pixel's own ray: none is taken from its neighbours, nor are creases blended. On a
    GPU the host waits a few times. Differentiable in the field as images are.

    Args:
        background: [N, 3].
        condition: of the field, for as many images as there are rays.
        layers: most layers of a ray.
        steps: most evaluations of a ray.
    """
    tracer = PhotographTracer(field, condition, rays, steps)
    light = Lighting(ambient=1.0, headlight=0.0)
    scene = _Scene(field, condition, rays.axes, tracer.camera, math.nan, light, 1, "exact", rays)
    samples = _visible(scene, *all_layers(tracer, 1, layers), None, None)
    weighted, *answer = _contributions(scene, samples)
    seen = weighted.new_zeros(len(background), weighted.shape[1]).index_add(0, samples.pixel, weighted)
    rgb, alpha = seen[:, :3], seen[:, 3]
    points = tracer.rays(samples.pixel, 1, tracer.extent).at(samples.t)
    field_there = FieldSample(*answer)
    weights = weighted[:, 3].detach() * samples.hit
    return RayColors(rgb + (1 - alpha[:, None]) * background, alpha, field_there, points, weights, samples.counts)


class _Scene(NamedTuple):
    """What an image depends on beside its samples."""

    field: Field
    condition: Any
    axes: Tensor
    camera: Tensor  # [B, 3, 4] of these
    fov: float
    lighting: Lighting
    resolution: int
    edge: Edge
    given: PhotographRays | None = None  # of images of one pixel

    def precision(self) -> AbstractContextManager:
        """Autocast is for fields that know what it may shorten."""
        return nullcontext() if self.field.mixed_precision else torch.autocast(self.axes.device.type, enabled=False)

    def rays(self, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and directions [N, 3] of pixels [N], differentiable in the cameras."""
        if self.given is not None:
            return self.given.origins[pixel], self.given.directions[pixel]
        return rays_of_pixels(self.camera, pixel, self.resolution, self.fov)

    def edges(self, samples: LayerSamples, nearest: Tensor) -> tuple[Tensor, ...]:
        """See `edge_in_pixels`; nearest [N] is the sdf at the layers' minima."""
        axes = self.axes.detach()[samples.image]
        return edge_in_pixels(nearest, samples.normal, axes[:, 0], axes[:, 1], samples.size)

    @torch.no_grad()
    def beside_near_misses(self, samples: LayerSamples, points: Tensor, directions: Tensor, covered: Tensor) -> Tensor:
        """Points [N, 3] a little inside the edge and before it: the face that is seen there, not the edge's back.

        A ray that is so far inside the edge meets the surface sqrt(2 R inside) before its middle if the surface bends
        with a radius of R, which one more value tells: the sdf rises from -inside as the square of the way.
        """
        length = samples.normal.norm(dim=-1).clamp_min(1e-6)
        inside = covered.clamp(*_INWARD) * samples.size  # it is covered to that depth, if straight across
        inward = samples.nearest / length + inside
        middle = points - (inward / length)[:, None] * samples.normal
        before = samples.size  # where the surface does not bend
        assert samples.sizes is not None
        miss = first_places(samples.miss, samples.sizes.misses)
        with self.precision():
            nearer = (middle - before[:, None] * directions)[miss]
            value = self.field.sdf(nearer, self.condition, samples.image[miss]).to(points.dtype)
        inside = inside[miss]
        ways = (inside / (value / length[miss] + inside).clamp_min(1e-3 * inside)).sqrt().clamp(*_TOWARDS_CAMERA)
        before = before.index_put((miss,), before[miss] * ways)
        return middle - before[:, None] * directions


def _contributions(scene: _Scene, samples: LayerSamples) -> tuple[Tensor, ...]:
    """What each sample adds to its pixel, [N, 8] (premultiplied colour, alpha, depth, normal), and the field's values
    there."""
    as_dfr = scene.edge == "dfr"
    samples = samples if as_dfr else samples.counted()
    origins, directions = scene.rays(samples.pixel)
    t, along, motion, nearest = samples.t, samples.t, None, samples.nearest
    if not as_dfr and torch.is_grad_enabled():
        motion, nearest = _motion(scene, samples)
    if motion is not None:
        # t' = t - (f - f0) / (gradient . direction): the surface moves along the ray. Its value is t; the slope is
        # known only once the field has been evaluated there, and a hook puts it into the gradient.
        along = t + motion
    points = origins + along[:, None] * directions
    if not as_dfr:
        # Of a near miss, only the edge moves.
        edges = scene.edges(samples, nearest)
        covered = half_plane_area(*edges)
        beside = scene.beside_near_misses(samples, points, directions, covered)
        points = torch.where(samples.hit[:, None], points, beside)
    with scene.precision():
        answer = scene.field.evaluate(points, scene.condition, samples.image)
    answer = FieldSample(*(values.to(points.dtype) for values in answer))
    gradient = answer.gradient
    if not as_dfr:  # a Newton step from where the march was content
        slope = (gradient * directions).sum(-1).detach()
        seen = samples.hit & (slope <= 0)
        # Nobody sees the back of a surface: there, a network's gradient is noise.
        with torch.no_grad():
            turned = torch.addcmul(gradient, (slope * (samples.hit ^ seen))[:, None], directions, value=-1)
        gradient = torch.where(seen[:, None], gradient, turned)  # of a near miss, too, only the edge moves
        slope = slope.clamp(max=STEEPEST_GRAZE)
        t = t - (answer.sdf.detach() / slope).masked_fill(~seen, 0.0)
        if motion is not None:
            speed = -_share_of_motion(samples, covered, *edges) / slope
            t = t + motion * speed
            along.register_hook(partial(torch.mul, speed))
    normals = gradient / gradient.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    brightness = scene.lighting.brightness(normals, scene.axes, samples.image)
    if as_dfr:
        alpha, brightness = dfr_coverage(answer.sdf, scene.resolution, brightness)
    else:
        alpha = covered.masked_fill(samples.opaque, 1.0)
    if samples.valid is not None:
        alpha = alpha.masked_fill(~samples.valid, 0.0)
    shaded = torch.cat([answer.rgb * brightness, torch.ones_like(t)[:, None], t[:, None], normals], dim=-1)
    return _weights(alpha, samples.first)[:, None] * shaded, *answer


@torch.no_grad()
def _share_of_motion(samples: LayerSamples, covered: Tensor, distance: Tensor, across: Tensor, up: Tensor) -> Tensor:
    """[N] how much of a hit's motion along its ray counts: 1 where it covers its pixel, less beside a contour.

    There the surface bends away as a root of the distance x from the contour, in pixels, and so do colour and depth:
    c(x) = c0 + k sqrt(x). As the contour moves, a pixel of coverage a changes by
    g c0 + k (sqrt(x + 1/2) - sqrt(x - 1/2)), where g = da/dx and the second root is 0 for x < 1/2. Its ray sees c(x),
    so that the edge adds g c(x); what is missing is this share of a c'(x), which is what following the surface along
    the ray would add. A hit that has its edge from a neighbour is on a face that bends away in less than a pixel.
    """
    x = (-distance).clamp(min=0)
    root = x.sqrt()
    roots = (x + 0.5).sqrt() - (x - 0.5).clamp(min=0).sqrt() - half_plane_slope(distance, across, up) * root
    share = 2 * root * roots / covered.clamp_min(0.5)
    whole = ~samples.hit | samples.opaque | (samples.edge_pixel != samples.pixel)
    return share.masked_fill(whole, 1.0)


def _motion(scene: _Scene, samples: LayerSamples) -> tuple[Tensor | None, Tensor]:
    """What carries the gradient of the sdf: [N] zeros at the hits (None if there is no gradient), and the values [N] at
    the minima of layers that have an edge (else constants)."""
    assert samples.sizes is not None
    # Of each sample, where its ray hits, and the two sides of its minimum.
    moves = torch.cat([samples.hit[:, None], samples.moving], 1)
    at = torch.cat([samples.t[:, None], samples.edge], 1).flatten()
    which = first_places(moves.flatten(), samples.sizes.hits + samples.sizes.edges)
    sample = which // 3
    pixel = torch.where(which % 3 == 0, samples.pixel[sample], samples.edge_pixel[sample])
    origins, directions = scene.rays(pixel)
    points = origins + at[which, None] * directions
    with scene.precision():
        change = scene.field.sdf_variation(points, scene.condition, samples.image[sample]).to(points.dtype)
    if samples.valid is not None:  # there is room behind them, which repeats the last
        change = change * (torch.arange(len(which), device=which.device) < moves.sum())
    motion = torch.zeros_like(at).index_put((which,), change).view(-1, 3)
    nearest = samples.nearest + (motion[:, 1:] * samples.shares).sum(1)
    return (motion[:, 0] if motion.requires_grad else None), nearest


def _weights(alpha: Tensor, first: Tensor) -> Tensor:
    """The share [N] of each layer in its pixel, which begins with a `first` one: it covers `alpha` [N] of what those in
    front let through."""
    row = first.cumsum(0)
    offsets = torch.searchsorted(row, torch.arange(1, len(row) + 2, device=row.device))
    return ops.composite(alpha, offsets=offsets).weights


@torch.no_grad()
def _dfr_samples(tracer: Tracer, resolution: int, pixels: Tensor | None) -> LayerSamples:
    """One sample for each pixel whose ray comes within a pixel of the surface, by the rules of dfr."""
    scales = (resolution // 4, 4) if resolution % 4 == 0 else (resolution,)
    traced = tracer.trace(partial(dfr_levels, scales, tracer.fov))
    near = (traced.status != int(ops.RayStatus.UNTRACED)) & (traced.nearest < THRESHOLD + 2 / resolution)
    pixel = (near if pixels is None else near & pixels.flatten()).nonzero()[:, 0]
    hit, t, nothing = traced.status[pixel] == int(ops.RayStatus.HIT), traced.distance[pixel], torch.zeros_like(pixel)
    normal = torch.zeros(len(t), 3, dtype=t.dtype, device=t.device)
    return LayerSamples(
        pixel, nothing, hit, hit, t, pixel, torch.stack([t, t], -1), torch.zeros_like(t), traced.nearest[pixel], normal,
        torch.zeros_like(t), traced.counts, resolution, 1,
    )  # fmt: skip


@torch.no_grad()
def _visible(
    scene: _Scene, samples: LayerSamples, near: Tensor, pixels: Tensor | None, room: Room | None
) -> LayerSamples:
    """Those of the wanted `pixels` [B, R, R] that are `near` [N], without layers that cover nothing or are behind one
    that covers all; which then is opaque."""
    side, normal = samples.edge[:, 0].contiguous(), samples.normal.contiguous()
    pixel = samples.pixel
    if samples.valid is not None:  # in a corner: a kernel's thread looks through all layers of the pixels around it
        pixel = pixel.masked_fill(~samples.valid, len(scene.axes) * samples.resolution**2 - 1)
    source, nearest, area = ops.layer_edges(
        pixel, samples.hit, samples.opaque, near, side, samples.nearest.contiguous(), normal, samples.size,
        scene.camera.detach(), samples.resolution, all_hits=scene.edge == "neighbour",
    )  # fmt: skip
    if pixels is not None:
        near = near & pixels.flatten()[samples.pixel]
    opaque = near & (area >= 1)
    covered = torch.cat([samples.pixel.new_zeros(1), opaque.cumsum(0)])  # in front of each, in all pixels
    seen = covered[:-1] == (covered[:-1] * samples.first).cummax(0).values
    taken = {name: getattr(samples, name)[source] for name in ("edge_pixel", "edge", "share", "normal", "size")}
    return replace(samples, opaque=opaque, nearest=nearest, **taken).where(near & seen & (area > 0), room)


def _boundaries(samples: LayerSamples) -> Tensor:
    """Where samples may be cut: between pixels."""
    cuts = samples.first.nonzero()[:, 0]
    return torch.cat([cuts.new_zeros(1), cuts[1:], cuts.new_full((1,), len(samples))])


def _pixels_of(samples: LayerSamples, chosen: Tensor, images: int) -> Tensor:
    """[B R^2] bool: the pixels of the chosen [N] samples."""
    count = images * samples.resolution**2
    marked = torch.zeros(count + 1, dtype=torch.bool, device=chosen.device)
    return marked.index_fill_(0, torch.where(chosen, samples.pixel, count), True)[:-1]  # all others share the last


def _alone(first: Tensor) -> Tensor:
    """[N] bool: layers beside which their pixel has no other."""
    return first & torch.cat([first[1:], first.new_ones(1)])[: len(first)]


def _check(
    axes: Tensor,
    resolution: int,
    edge: str,
    layers: int,
    supersample: int,
    pixels: Tensor | None,
    density: int,
    steps: int,
    room: Room | None,
) -> None:
    if edge not in ("exact", "neighbour", "dfr"):
        raise ValueError(f"render: edge must be 'exact', 'neighbour' or 'dfr', got {edge!r}")
    sizes = {"resolution": resolution, "layers": layers, "supersample": supersample}
    check_whole("render", 1, **sizes, density=density, steps=steps)
    shape = (len(axes), resolution, resolution)
    if pixels is not None and not isinstance(pixels, Tensor):
        raise TypeError(f"render: pixels must be a Tensor {list(shape)} bool, got {type(pixels).__name__}")
    if pixels is not None and (pixels.shape != shape or pixels.dtype != torch.bool):
        raise ValueError(f"render: pixels must be {list(shape)} bool, got {list(pixels.shape)} {pixels.dtype}")
    if (resolution * supersample) % density:
        raise ValueError(f"render: density must be at least 1 and divide the resolution, got {density}")
    if room is not None and (edge == "dfr" or density > 1):
        raise ValueError(f"render: room is for exact edges of density 1, got {edge!r} and {density}")
