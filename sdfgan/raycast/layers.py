"""What the rays of an image meet, front to back: edges that cover a pixel in part, then a surface that covers it.

A layer is a local minimum of the sdf along a ray. Its value F at the minimum t* decides how much of the pixel the layer
covers (`raycast.coverage`); by the envelope theorem F moves with the field as the field does at t*. The march brackets
minima (csrc/core/march.h); here they are found to a fiftieth of a pixel from values and gradients. Where the sdf has
a kink, at sharp edges, tangents from both sides meet in the minimum and both sides move it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from sdfgan import ops
from sdfgan.cameras import camera_distance
from sdfgan.raycast.multiscale import Tracer

OPAQUE_DEPTH = 0.75  # pixels inside: an edge so far from a pixel's centre is outside the pixel, whatever its direction
_HIT_TOLERANCE = 0.05  # pixels
_TOLERANCE = 0.02  # pixels, of F
_ASIDE = 0.001  # pixels
_ROUNDS = 5
_ENTRY_ROUNDS = 3
_COMMON = ("counts", "resolution", "slots")  # of all samples
_MIN_SLOPE = 0.1  # of the sdf along a ray that enters a surface, in a Newton step


@dataclass(frozen=True)
class LayerSamples:
    """Layers of some pixels of B images of side R: sorted by pixel, then front to back. None carries a gradient."""

    pixel: Tensor  # [N] int64, (b R + row) R + column
    order: Tensor  # [N] int64, 0 for the first layer of a pixel
    hit: Tensor  # [N] bool: the ray through the pixel's centre meets the surface
    opaque: Tensor  # [N] bool: the layer covers its pixel whole, and its ray ends there
    t: Tensor  # [N] where the ray enters the surface, or passes nearest to it
    edge_pixel: Tensor  # [N] int64, on whose ray the minimum is: the pixel's own, or a neighbour's
    edge: Tensor  # [N, 2] just before and after the minimum, where the sdf's derivatives are taken
    share: Tensor  # [N] in [0, 1], of the first of these
    nearest: Tensor  # [N] sdf at the minimum
    normal: Tensor  # [N, 3] gradient of the sdf at the minimum
    counts: Tensor  # [2] int64: points evaluated for rays, and in all
    resolution: int
    slots: int  # orders are below

    def __len__(self) -> int:
        return len(self.pixel)

    def __getitem__(self, chosen: Tensor | slice) -> LayerSamples:
        if isinstance(chosen, Tensor) and chosen.dtype == torch.bool:
            chosen = chosen.nonzero()[:, 0]  # here, once: each tensor that a mask indexes waits for the device
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return LayerSamples(**{k: v if k in _COMMON else v[chosen] for k, v in values.items()})

    @property
    def image(self) -> Tensor:
        """[N] int64: which image each layer belongs to."""
        return self.pixel // self.resolution**2


@torch.no_grad()
def trace_layers(
    tracer: Tracer, resolution: int, most: int, *, depth: float = OPAQUE_DEPTH, pixels: Tensor | None = None
) -> LayerSamples:
    """Trace images and find the layers of their pixels.

    Args:
        most: layers of a ray; it ends after so many.
        depth: pixels inside a surface at which a ray ends.
        pixels: [B, R, R] bool: the pixels that are wanted, whose neighbours are traced as well; None: all.
    """
    levels = tracer.levels(resolution, _HIT_TOLERANCE * 2 / resolution, margin=OPAQUE_DEPTH, inset=depth)
    traced = tracer.trace(levels, max_layers=most)
    assert traced.layers is not None
    wanted = torch.ones_like(traced.status, dtype=torch.bool)
    if pixels is not None:
        wanted = max_pool2d(pixels[:, None].float(), 3, stride=1, padding=1).flatten() > 0
    count, opaque = traced.layers.complete * wanted, (traced.status == int(ops.RayStatus.HIT)) & wanted
    slots = torch.arange(most, device=count.device)
    pixel, order = (slots < count[:, None]).nonzero().unbind(-1)
    guess, _, reach, enter = traced.layers.layers[order, :, pixel].unbind(-1)
    minima = _Minima(tracer, pixel, resolution, guess, reach)
    minima.refine()
    partial = minima.samples(order, enter, traced.counts, most + 1)
    return _merge(partial, _opaque_layers(traced.distance, opaque, count, partial))


class _End:
    """One end of the bracket of each minimum: where, the sdf and its slope along the ray there."""

    def __init__(self, rows: Tensor) -> None:
        """rows: [N, 6], the sdf's gradient last."""
        self.t, self.value, self.slope, *_ = rows.unbind(-1)  # [N]
        self.known = self.value.abs() < torch.inf  # infinite where nothing was evaluated yet


_FALLING, _RISING, _NEITHER = 0, 1, 2  # the ends by their slope; the last is where NaN goes


class _Minima:
    """Local minima along rays, each bracketed by a falling and a rising end."""

    def __init__(self, tracer: Tracer, pixel: Tensor, resolution: int, guess: Tensor, reach: Tensor) -> None:
        self._tracer, self.resolution, self.pixel = tracer, resolution, pixel
        self.rays = tracer.rays(pixel, resolution, tracer.extent)
        self.pixel_size = 2 / (resolution * camera_distance(tracer.fov)) * guess  # [N] world
        self._ends = guess.new_zeros(3, len(guess), 6)
        self._ends[_FALLING, :, 0], self._ends[_RISING, :, 0] = guess - reach, guess + reach
        self._ends[:, :, 1] = torch.inf
        self._guess, self.queries = guess, 0

    def refine(self) -> None:
        """Narrow the brackets until the tangents at their ends leave little doubt."""
        active = torch.arange(len(self._guess), device=self._guess.device)
        t = self._guess
        for round_ in range(_ROUNDS):
            value, slope, gradient = self.evaluate(active, t)
            end = torch.where(slope < 0, _FALLING, torch.where(slope >= 0, _RISING, _NEITHER))
            self._ends[end, active] = torch.cat([torch.stack([t, value, slope], -1), gradient], -1)
            if round_ == _ROUNDS - 1:
                break
            ends, pixel_size = self._ends[:2, active], self.pixel_size[active]
            low, tangents, doubt = _bounds(*map(_End, ends))
            unclear = ((doubt > _TOLERANCE * pixel_size) & (low < pixel_size)).nonzero()[:, 0]
            if len(unclear) == 0:
                break
            active = active[unclear]
            t = _next(tangents[unclear], 0.5 if round_ == 0 else 1.0, *map(_End, ends[:, unclear]))

    def evaluate(self, which: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [K], slopes [K] and gradients [K, 3] of the sdf at the distances t [K] of the rays `which` [K]."""
        rays, tracer = self.rays, self._tracer
        directions = rays.directions[which]
        points = rays.origins[which] + t[:, None] * directions
        self.queries += len(which)
        with tracer.full_precision():
            value, gradient = tracer.field.sdf_and_gradient(points, tracer.condition, rays.image[which])
        return value, (gradient * directions).sum(-1), gradient

    def samples(self, order: Tensor, enter: Tensor, counts: Tensor, slots: int) -> LayerSamples:
        """The minima as layers, those of them that are near enough to matter."""
        a, b = map(_End, self._ends[:2])
        both = a.known & b.known
        share = torch.where(both, b.slope / (b.slope - a.slope).clamp(min=1e-12), a.known.to(a.t.dtype))
        aside = _ASIDE * self.pixel_size  # an end may be at the kink itself, where rounding decides on the side
        first, second = torch.where(a.known, a.t, b.t) - aside, torch.where(b.known, b.t, a.t) + aside
        _, middle, doubt = _bounds(a, b)
        lower = (doubt / 2).masked_fill(~both, 0.0)  # the middle of what is possible
        nearest = torch.minimum(a.value, b.value) - lower
        at = torch.where(a.value < b.value, a.t, b.t)
        normal = share[:, None] * self._ends[_FALLING, :, 3:] + (1 - share[:, None]) * self._ends[_RISING, :, 3:]
        hit = nearest < 0
        t = torch.where(hit, self._entry(hit, enter, middle, a, b), at)
        counts = counts + self.queries
        return LayerSamples(
            self.pixel, order, hit, torch.zeros_like(hit), t, self.pixel,
            torch.stack([first, second], -1), share, nearest, normal,
            counts, self.resolution, slots,
        )[nearest < self.pixel_size * self._tracer.lipschitz_of(self.rays.image)]  # fmt: skip

    def _entry(self, hit: Tensor, enter: Tensor, middle: Tensor, falling: _End, rising: _End) -> Tensor:
        """Where rays enter the surface, before the minimum: [N], of those that `hit`.

        By Newton steps from where the march saw that, or from the falling end; those that leave the bracket halve it.
        What is behind the middle of a thin solid is as near to its surface, but to the far one: rising points only
        narrow the bracket.
        """
        behind = torch.where(falling.known, middle, rising.t)
        outside = falling.known & (falling.value > 0)  # and on the near side
        before = torch.where(outside, falling.t, -torch.inf)
        t = torch.where(enter < behind, enter, falling.t)  # enter is NaN if no sample was inside
        state = torch.stack([t, before, behind, _HIT_TOLERANCE * self.pixel_size])
        which = hit.nonzero()[:, 0]
        for _ in range(_ENTRY_ROUNDS):
            if len(which) == 0:
                break
            here, low, high, tolerance = state[:, which].unbind()
            value, slope, _ = self.evaluate(which, here)
            falls, size = slope < 0, value.abs()
            outside = falls & (value > 0)
            low, high = torch.where(outside, here, low), torch.where(outside, high, torch.minimum(high, here))
            newton = here - value / slope.clamp(max=-_MIN_SLOPE)
            inside = falls & (newton >= low) & (newton <= high)
            halved = torch.where(low > -torch.inf, (low + high) / 2, here - 2 * size - tolerance)
            state[:, which] = torch.stack([torch.where(inside, newton, halved), low, high, tolerance])
            which = which[(~inside | (size > tolerance)).nonzero()[:, 0]]
        return state[0]


def _bounds(a: _End, b: _End) -> tuple[Tensor, Tensor, Tensor]:
    """The least that minima can be if the sdf is convex between the ends; where; how much they may be more."""
    width = b.t - a.t
    both = a.known & b.known
    crossing = (b.value - a.value - width * b.slope) / (a.slope - b.slope).clamp(max=-1e-12)
    step = torch.where(both, crossing, width.masked_fill(~a.known, 0.0)).clamp(min=0).minimum(width)
    low = torch.where(a.known, a.value + step * a.slope, b.value - (width - step) * b.slope)
    return low, a.t + step, torch.minimum(a.value, b.value) - low


def _next(tangents: Tensor, reach: float, a: _End, b: _End) -> Tensor:
    """Where to evaluate: at the other side; or where the tangents meet or the slope vanishes, if both are known."""
    width = b.t - a.t
    both = a.known & b.known
    other_side = torch.where(a.known, a.t + reach * width, b.t - reach * width)
    flat = a.t + width * a.slope / (a.slope - b.slope).clamp(max=-1e-12)
    # The slope of a parabola is linear, so the trapezoid rule gives what the values say; not at a kink.
    smooth = (b.value - a.value - width * (a.slope + b.slope) / 2).abs() < 0.05 * width * (b.slope - a.slope)
    inner = torch.where(smooth, flat, tangents)
    inner = torch.minimum(torch.maximum(inner, a.t + 0.02 * width), b.t - 0.02 * width)
    return torch.where(both, inner, other_side)


def _opaque_layers(distance: Tensor, opaque: Tensor, count: Tensor, like: LayerSamples) -> LayerSamples:
    pixel = opaque.nonzero()[:, 0]
    yes, t = torch.ones_like(pixel, dtype=torch.bool), distance[pixel]
    nothing = torch.zeros_like(t)
    return LayerSamples(
        pixel, count[pixel].long(), yes, yes, t, pixel, torch.stack([t, t], -1), nothing, -torch.ones_like(t),
        torch.zeros(len(t), 3, dtype=t.dtype, device=t.device), like.counts, like.resolution, like.slots,
    )  # fmt: skip


def _merge(a: LayerSamples, b: LayerSamples) -> LayerSamples:
    both: dict[str, Any] = {
        f.name: torch.cat([getattr(a, f.name), getattr(b, f.name)])
        for f in fields(LayerSamples)
        if f.name not in _COMMON
    }
    merged = replace(a, **both)
    return merged[(merged.pixel * merged.slots + merged.order).argsort()]
