"""The search for layers in plain torch: what `sdfgan.ops.layers` means."""

from __future__ import annotations

import torch
from torch import Tensor

from ..layers import LayerSearch

_HIT_TOLERANCE = 0.05  # pixels
_TOLERANCE = 0.02  # pixels, of the sdf at the minimum
_ASIDE = 0.001  # pixels
_ROUNDS = 5
_ENTRY_ROUNDS = 3
_MIN_SLOPE = 0.1  # of the sdf along a ray that enters a surface, in a Newton step
_ENTRY, _FOUND = 16, 255  # stages


class _End:
    """One end of some brackets: where, the sdf and its slope along the ray there, and its gradient."""

    def __init__(self, rows: Tensor) -> None:
        """rows: [K, 6], which follow."""
        self.rows = rows
        self.t, self.value, self.slope = rows[:, 0], rows[:, 1], rows[:, 2]  # [K]
        self.gradient = rows[:, 3:]  # [K, 3]

    @property
    def known(self) -> Tensor:
        return self.value.isfinite()  # infinite where nothing was evaluated yet


def layer_step(
    values: Tensor,
    gradients: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    search: LayerSearch,
) -> tuple[Tensor, Tensor, Tensor]:
    """All minima that are sought, then all entries."""
    state, stage = search
    entries = torch.arange(min(max(int(count), 0), len(alive)), device=alive.device)
    layers = alive[entries].long()
    inside = (layers >= 0) & (layers < len(stage))
    entries, layers = entries[inside], layers[inside]
    goes_on = torch.zeros_like(layers, dtype=torch.bool)
    slopes = (gradients[entries] * directions[layers]).sum(-1)
    stages = stage[layers]
    minima, entering = stages < _ENTRY, (stages >= _ENTRY) & (stages < _FOUND)
    for chosen, function in ((minima, _narrow), (entering, _step_to_entry)):
        rows, which = state[layers[chosen]], entries[chosen]
        after = function(rows, stages[chosen], values[which], slopes[chosen], gradients[which])
        state[layers[chosen]], stage[layers[chosen]] = rows, after
        goes_on[chosen] = after != _FOUND
    survivors = layers[goes_on]
    points, alive_out = torch.zeros_like(gradients), torch.zeros_like(alive)
    points[: len(survivors)] = origins[survivors] + state[survivors, :1] * directions[survivors]
    alive_out[: len(survivors)] = survivors.int()
    if len(survivors):
        alive_out[len(survivors) :] = survivors[-1].int()
    return points, alive_out, torch.full_like(count, len(survivors))


def _narrow(state: Tensor, stage: Tensor, value: Tensor, slope: Tensor, gradient: Tensor) -> Tensor:
    """Takes values at [K] points into the brackets [K, 24]; returns the next stages [K]."""
    falling, rising, pixel_size = _End(state[:, 12:18]), _End(state[:, 18:24]), state[:, 8]
    end = torch.cat([torch.stack([state[:, 0], value, slope], -1), gradient], -1)
    for side, chosen in ((falling, slope < 0), (rising, slope >= 0)):
        chosen = chosen & ~value.isnan()
        side.rows[chosen] = end[chosen]
    low, tangents, doubt = _bounds(falling, rising)
    unclear = (doubt > _TOLERANCE * pixel_size) & (low < pixel_size) & (stage + 1 < _ROUNDS)
    following = _next(tangents, torch.where(stage == 0, 0.5, 1.0).to(value.dtype), falling, rising)
    state[unclear, 0] = following[unclear]
    closed = state[~unclear]
    _close(closed)
    state[~unclear] = closed
    return torch.where(unclear, stage + 1, torch.where(state[:, 4] < 0, _ENTRY, _FOUND)).to(stage.dtype)


def _close(state: Tensor) -> None:
    """Takes the minima from their brackets [K, 24], and begins with the entries of those that are inside.

    What is behind the middle of a thin solid is as near to its surface, but to the far one: rising points only narrow
    the bracket.
    """
    a, b, pixel_size, enter = _End(state[:, 12:18]), _End(state[:, 18:24]), state[:, 8], state[:, 9]
    both = a.known & b.known
    share = torch.where(both, b.slope / (b.slope - a.slope).clamp(min=1e-12), a.known.to(a.t.dtype))
    aside = _ASIDE * pixel_size  # an end may be at the kink itself, where rounding decides on the side
    first, second = torch.where(a.known, a.t, b.t) - aside, torch.where(b.known, b.t, a.t) + aside
    _, middle, doubt = _bounds(a, b)
    lower = (doubt / 2).masked_fill(~both, 0.0)  # the middle of what is possible
    nearest = torch.minimum(a.value, b.value) - lower
    normal = share[:, None] * a.gradient + (1 - share[:, None]) * b.gradient
    hit = nearest < 0
    behind = torch.where(a.known, middle, b.t)
    outside = a.known & (a.value > 0)  # and on the near side
    before = torch.where(outside, a.t, -torch.inf)
    entry = torch.where(enter < behind, enter, a.t)  # enter is NaN if no sample was inside
    t = torch.where(hit, entry, torch.where(a.value < b.value, a.t, b.t))
    state[:, :8] = torch.cat([torch.stack([t, first, second, share, nearest], -1), normal], -1)
    state[hit, 10], state[hit, 11] = before[hit], behind[hit]


def _step_to_entry(state: Tensor, stage: Tensor, value: Tensor, slope: Tensor, _: Tensor) -> Tensor:
    """A Newton step from where the values [K] are; one that leaves its bracket halves it."""
    here, low, high, tolerance = state[:, 0], state[:, 10], state[:, 11], _HIT_TOLERANCE * state[:, 8]
    falls, size = slope < 0, value.abs()
    outside = falls & (value > 0)
    low, high = torch.where(outside, here, low), torch.where(outside, high, torch.minimum(high, here))
    newton = here - value / slope.clamp(max=-_MIN_SLOPE)
    inside = falls & (newton >= low) & (newton <= high)
    halved = torch.where(low.isfinite(), (low + high) / 2, here - 2 * size - tolerance)
    state[:, 0], state[:, 10], state[:, 11] = torch.where(inside, newton, halved), low, high
    goes_on = (~inside | (size > tolerance)) & (stage + 1 < _ENTRY + _ENTRY_ROUNDS)
    return torch.where(goes_on, stage + 1, _FOUND).to(stage.dtype)


def _bounds(a: _End, b: _End) -> tuple[Tensor, Tensor, Tensor]:
    """The least that minima can be if the sdf is convex between the ends; where; how much they may be more."""
    width = b.t - a.t
    both = a.known & b.known
    crossing = (b.value - a.value - width * b.slope) / (a.slope - b.slope).clamp(max=-1e-12)
    step = torch.where(both, crossing, width.masked_fill(~a.known, 0.0)).clamp(min=0).minimum(width)
    low = torch.where(a.known, a.value + step * a.slope, b.value - (width - step) * b.slope)
    return low, a.t + step, torch.minimum(a.value, b.value) - low


def _next(tangents: Tensor, reach: Tensor, a: _End, b: _End) -> Tensor:
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
