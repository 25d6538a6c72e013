"""Marching rays in plain torch: what `sdfgan.ops.trace` means."""

from __future__ import annotations

import torch
from torch import Tensor

from ..trace import LayerState, LevelRays, MarchRules, RayStatus, TraceLevel
from .rays import generate_rays


def start_level(
    cameras: Tensor,
    level: TraceLevel,
    fov: float,
    parent: tuple[TraceLevel, Tensor, Tensor] | None = None,
    jitter: Tensor | None = None,
) -> LevelRays:
    """The rays of all pixels; then which of them are within a split pixel of the level before."""
    images, size = len(cameras), level.size
    pixels = torch.arange(images * size**2, device=cameras.device)
    origins, directions, near, far = generate_rays(cameras, pixels, size, size, fov, level.radius)
    split = torch.ones_like(near, dtype=torch.bool)
    earliest, slope = torch.zeros_like(near), torch.ones_like(near)
    if parent is not None:
        coarse, state, status = parent
        t, nearest, nearest_t, last_value, last_step = state
        if coarse.reach > 0:
            bound = ((coarse.reach * nearest_t).square() / 2 + 1 / 1024).sqrt()
            which = (nearest <= bound) & (status != RayStatus.UNTRACED)
        else:
            which = (status == RayStatus.HIT) | (status == RayStatus.MARCHING)
            earliest = _finer(t - last_step, coarse.size, size)
            slope = _finer(torch.where(last_step == 0, last_value, 1.0), coarse.size, size)
        split = _finer(which, coarse.size, size)
    start = near.maximum(earliest) + level.start
    if jitter is not None:
        start = start + jitter.flatten()
    marches = split & (far > start)
    state = torch.stack([start, torch.full_like(start, 1e10), start, slope, torch.zeros_like(start)])
    status = torch.where(marches, int(RayStatus.MARCHING), int(RayStatus.UNTRACED)).to(torch.uint8)
    chosen = marches.nonzero()[:, 0]
    points, alive = torch.zeros_like(origins), torch.zeros_like(pixels, dtype=torch.int32)
    points[: len(chosen)] = (origins + start[:, None] * directions)[chosen]
    alive[: len(chosen)] = chosen.int()
    if len(chosen):
        alive[len(chosen) :] = chosen[-1].int()
    count = torch.full((1,), len(chosen), dtype=torch.int32, device=cameras.device)
    return LevelRays(origins, directions, start, far, state, status, points, alive, count)


def _finer(values: Tensor, coarse: int, fine: int) -> Tensor:
    """[B coarse^2] as [B fine^2]."""
    images, scale = values.view(-1, coarse, coarse), fine // coarse
    return images.repeat_interleave(scale, 1).repeat_interleave(scale, 2).flatten()


def trace_step(
    values: Tensor,
    alive: Tensor,
    count: Tensor,
    origins: Tensor,
    directions: Tensor,
    far: Tensor,
    state: Tensor,
    status: Tensor,
    rules: MarchRules,
    layers: LayerState | None = None,
    last: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """One ray at a time."""
    survivors = []
    for k in range(int(count)):
        ray = int(alive[k])
        if not 0 <= ray < len(far):
            continue
        own = None if layers is None else _RayLayers(layers, ray, rules)
        goes_on = _advance(state[:, ray], status[ray], values[k], far[ray], rules, own)
        if goes_on and last and own is not None and status[ray] == RayStatus.MARCHING:
            own.finish(state[:, ray])
        if goes_on and not last:
            survivors.append(ray)
    points = values.new_zeros((len(values), 3))
    alive_out = torch.full_like(alive, survivors[-1] if survivors else 0)
    for k, ray in enumerate(survivors):
        points[k] = origins[ray] + state[0, ray] * directions[ray]
        alive_out[k] = ray
    return points, alive_out, torch.full_like(count, len(survivors))


class _RayLayers:
    """What `trace_step` collects of one ray; see `LayerState`."""

    def __init__(self, layers: LayerState, ray: int, rules: MarchRules) -> None:
        self.layers, self.complete = layers.layers[:, :, ray], layers.complete[ray]
        self.open = layers.open[:, ray]  # value and place of the sample before the nearest, after it; entry
        self.rules = rules

    def take(self, state: Tensor, sdf: Tensor) -> bool:
        """A sample; whether the ray may have more layers."""
        t, nearest, _, last_value, last_step = state.clone()
        before = last_value + self.rules.cone_slope * (t - last_step)  # the sdf there
        first, within = not last_step > 0, bool(nearest < 1e10)
        if sdf < nearest and (within or first or sdf < before):
            self.open[0], self.open[1] = (sdf, t) if first else (before, t - last_step)
            self.open[3] = t
            state[1], state[2] = sdf, t
        elif within and self.open[3] == state[2]:
            self.open[2], self.open[3] = sdf, t
        if sdf <= 0 and self.open[4].isnan():
            crossed = not first and before > 0
            self.open[4] = t - last_step + last_step * before / (before - sdf) if crossed else t
        if sdf > 0 and within and sdf > state[1] + 0.25 * self.rules.footprint * t:
            self.finish(state)
        return bool(self.complete < len(self.layers))

    def enter(self, state: Tensor, status: Tensor, sdf: Tensor) -> bool:
        """Back to where the ray entered the surface; whether that is to be refined."""
        t, *_, last_value, last_step = state.clone()
        back, before = t - self.open[4], last_value + self.rules.cone_slope * (t - last_step)
        way, fall = back - last_step, before - sdf  # to the sample before, if that was inside as well
        doubt = (way * fall + before * last_step).abs() if way > 0 else torch.minimum(back, -way) * fall
        done = bool(doubt <= last_step * self.rules.threshold) or not last_step > 0 or self.rules.refine <= 0
        state[0], state[3], state[4] = self.open[4], sdf, -back
        status.fill_(RayStatus.HIT if done else RayStatus.REFINING + self.rules.refine)
        return not done

    def finish(self, state: Tensor) -> None:
        """End the layer: the vertex of the parabola through the nearest sample and those beside it."""
        nearest, t = state[1].clone(), state[2].clone()
        before, before_t, after, after_t, enter = self.open.clone()
        if nearest < 1e10 and self.complete < len(self.layers):
            left, right = t - before_t, after_t - t
            reach = torch.maximum(left, right)
            if left > 0 and right > 0:
                fall, rise = (before - nearest) / left, (after - nearest) / right
                bend = (fall + rise) / (left + right)
                moved = (fall * right - rise * left) / (2 * bend * (left + right)) if bend > 0 else 0 * t
                t, nearest = t + moved, nearest - bend * moved * moved
                reach = torch.maximum(left + moved, right - moved)
            if nearest < 1.1 * self.rules.footprint * t * self.rules.lipschitz:
                self.layers[int(self.complete)] = torch.stack([t, nearest, reach, enter])
                self.complete += 1
        state[1] = 1e10
        self.open.zero_()
        self.open[4] = torch.nan


def _advance(
    state: Tensor, status: Tensor, sdf: Tensor, far: Tensor, rules: MarchRules, layers: _RayLayers | None
) -> bool:
    """Writes to state [5] and status []; whether the ray goes on."""
    t, nearest, _, last_value, last_step = state.clone()
    inverse = 1 / sdf.new_tensor(rules.lipschitz)
    if sdf.isnan():
        status.fill_(RayStatus.INVALID)
        return False
    if status >= RayStatus.REFINING:
        slope = torch.zeros_like(sdf) if last_step == 0 else (last_value - sdf) / last_step
        return _correct_hit(state, status, sdf, slope, int(status) - RayStatus.REFINING - 1, rules)
    value = sdf - rules.cone_slope * t
    safe, last_safe = value * inverse, last_value * inverse
    seen = safe.clamp(min=0) if rules.cone_slope > 0 else safe.abs()
    thin = (-2 * rules.cone_slope * t * inverse).clamp(min=0)  # what does not hold a level set inside the surface
    overlap = thin if torch.minimum(last_safe, seen) > 1.25 * thin else 0.0
    unseen = last_step - last_safe - seen + overlap
    if last_step > last_safe.clamp(min=0) and unseen > rules.slack:
        state[0] -= last_step - last_safe
        state[4] = last_safe
        return True
    if layers is not None:
        if not layers.take(state, sdf):
            status.fill_(RayStatus.LEFT)
            return False
    elif (size := sdf if rules.cone_slope < 0 else value) < nearest:
        state[1], state[2] = size, t
    slope = (last_value - value) / last_step if last_step > 0 else last_value + rules.cone_slope
    if value <= rules.threshold:
        if layers is not None and not layers.open[4].isnan():
            return layers.enter(state, status, sdf)
        if rules.refine >= 0:
            return _correct_hit(state, status, sdf, slope - rules.cone_slope, rules.refine, rules)
        status.fill_(RayStatus.HIT)
        state[3], state[4] = slope - rules.cone_slope, 0
        if rules.cone_slope > 0:
            state[0] += safe.clamp(min=0)
        return False
    m = (slope * inverse).clamp(-0.8, 1)
    predicted = rules.relaxation * safe * (1 - m) / (1 + m)
    step = safe + predicted.clamp(max=0.5)
    if predicted > 1.25 * thin:
        step = torch.maximum(safe, step - thin)
    if slope > 0.05 and value / slope - safe <= rules.slack:
        step = torch.maximum(step, value / slope)
    else:
        step = step.clamp(min=rules.slack)
    if t + step >= far:
        step = safe
    if not t + step < far:
        if layers is not None:
            layers.finish(state)
        state[0] = far
        status.fill_(RayStatus.LEFT)
        return False
    state[0], state[3], state[4] = t + step, value, step
    return True


def _correct_hit(state: Tensor, status: Tensor, sdf: Tensor, slope: Tensor, left: int, rules: MarchRules) -> bool:
    steepest = 1 / (1 / sdf.new_tensor(rules.lipschitz))
    slope = slope.clamp(0.01 * steepest, steepest)
    correction = (sdf / slope).clamp(-0.05, 0.05)
    size = correction.abs()
    exact = size * (state[4].abs() + size) <= 0.1 * slope * rules.threshold
    done = bool(exact) or left <= 0
    state[0] += correction
    state[3], state[4] = sdf, correction
    status.fill_(RayStatus.HIT if done else RayStatus.REFINING + left)
    return not done
