"""What each operator of `sdfgan.ops` means, in plain torch, for reading, tests and benchmarks only.

The signatures are those of the operators; see there for shapes and dtypes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .film_siren import FilmSirenNetwork
from .hash import hash_table_begins
from .mesh import MeshDistance, MeshTree
from .reference_volume import (
    composite,
    distortion_loss,
    frustum_gaussians,
    grid_march,
    integrated_directional_encoding,
    integrated_positional_encoding,
    interlevel_loss,
    sample_pixels,
)
from .trace import LayerState, LevelRays, MarchRules, RayStatus, TraceLevel

__all__ = [
    "composite",
    "distortion_loss",
    "film_siren",
    "film_siren_sample",
    "frustum_gaussians",
    "generate_rays",
    "grid_march",
    "hash_encoding",
    "integrated_directional_encoding",
    "integrated_positional_encoding",
    "interlevel_loss",
    "positional_encoding",
    "sample_pdf",
    "sample_pixels",
    "start_level",
    "trace_step",
]


def positional_encoding(x: Tensor, octaves: int, *, include_input: bool = False, times_pi: bool = False) -> Tensor:
    """Computed in float64, where pi * 2^octave * x keeps its digits, and rounded once."""
    blocks = [x.double()] if include_input else []
    for octave in range(octaves):
        angle = x.double() * 2.0**octave * (math.pi if times_pi else 1.0)
        blocks += [angle.sin(), angle.cos()]
    empty = x.new_empty((*x.shape[:-1], 0), dtype=torch.float64)
    return torch.cat([empty, *blocks], dim=-1).to(x.dtype)


def sample_pdf(
    edges: Tensor,
    weights: Tensor,
    num_samples: int,
    *,
    u: Tensor | None = None,
    stratified: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Linear interpolation of the edges at u of the cumulative distribution."""
    rays, bins = weights.shape
    if u is None:
        jitter: Tensor | float = 0.5
        if stratified:
            jitter = torch.rand((rays, num_samples), dtype=edges.dtype, device=edges.device, generator=generator)
        u = (torch.arange(num_samples, dtype=edges.dtype, device=edges.device) + jitter) / num_samples
    u = u.sort(dim=-1).values.double().clamp(0, 1).expand(rays, num_samples).contiguous()

    mass = torch.where(weights.isfinite() & (weights > 0), weights, 0).double()
    mass = mass / mass.amax(dim=-1, keepdim=True).clamp_min(5e-324)  # no sum overflows
    total = mass.sum(dim=-1, keepdim=True)
    widths = edges.double().diff(dim=-1)
    empty = total == 0
    span = widths.sum(dim=-1, keepdim=True)
    mass = torch.where(empty, torch.where(span > 0, widths, 1.0), mass)  # uniform over the ray
    cdf = mass.cumsum(dim=-1)
    cdf = torch.cat([torch.zeros_like(total), cdf], dim=-1) / cdf[:, -1:]

    # The first bin whose end reaches u. At u = 0 that is the first bin with any mass.
    first = (mass > 0).to(torch.uint8).argmax(dim=-1, keepdim=True)
    bin_ = torch.searchsorted(cdf[:, 1:].contiguous(), u).clamp(max=bins - 1).maximum(first)
    left, right = edges.double().gather(1, bin_), edges.double().gather(1, bin_ + 1)
    below, above = cdf.gather(1, bin_), cdf.gather(1, bin_ + 1)
    return torch.lerp(left, right, ((u - below) / (above - below)).clamp(0, 1)).to(edges.dtype)


def hash_encoding(
    points: Tensor, table: Tensor, cells: Sequence[int], table_size: int, *, smooth: bool = False
) -> Tensor:
    """Each level in turn: the corners of the cells, their entries, and the sum of weights times features."""
    dims = points.shape[1]
    primes = (1, 2654435761, 805459861)
    begins = hash_table_begins(dims, cells, table_size)
    levels = []
    for level, n in enumerate(cells):
        scaled = points.clamp(0, 1) * n + 0.5
        first = scaled.detach().floor()
        t = scaled - first
        weight = t * t * (3 - 2 * t) if smooth else t
        features = table.new_zeros(len(points), table.shape[1])
        for corner in itertools.product((0, 1), repeat=dims):
            at = [first[:, axis].nan_to_num().long() + end for axis, end in enumerate(corner)]
            if (n + 2) ** dims <= table_size:
                entry = sum(at[axis] * (n + 2) ** axis for axis in range(dims))
            else:
                hashed = at[0]
                for axis in range(1, dims):
                    hashed = hashed ^ (at[axis] * primes[axis])
                entry = hashed % table_size
            ends = [weight[:, axis] if end else 1 - weight[:, axis] for axis, end in enumerate(corner)]
            features = features + torch.stack(ends, 1).prod(1, keepdim=True) * table[begins[level] + entry]
        levels.append(features)
    return torch.cat(levels, dim=1)


def perceptron(
    x: Tensor, parameters: Tensor, sizes: Sequence[int], *, sine: bool = False, constant: float = 0.0
) -> Tensor:
    """Layer after layer, from the packed panels of 8 outputs."""
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        padded = outputs + -outputs % 8
        weight, bias, parameters = parameters.split([padded * inputs, padded, len(parameters) - padded * (inputs + 1)])
        x = x @ weight.view(-1, inputs, 8).transpose(1, 2).reshape(padded, inputs)[:outputs].T + bias[:outputs]
        if layer < len(sizes) - 2:
            x = torch.sin(constant * x) if sine else x.clamp(min=0) + constant * x.clamp(max=0)
    return x[:, 0]


def generate_rays(
    camera_to_world: Tensor, pixels: Tensor, height: int, width: int, fov: float, radius: float | Tensor = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unprojects pixel centres and intersects with the ball."""
    inside = (pixels >= 0) & (pixels < len(camera_to_world) * height * width)
    if not len(camera_to_world):
        camera_to_world = camera_to_world.new_full((1, 3, 4), math.nan)
    camera = camera_to_world[torch.where(inside, pixels // (height * width), 0)]  # [N, 3, 4]
    camera = torch.where(inside[:, None, None], camera, math.nan)
    x_axis, y_axis, z_axis, origins = camera.unbind(-1)
    aspect = width / height
    column, row = (pixels % width).to(camera.dtype), (pixels // width % height).to(camera.dtype)
    x = ((column + 0.5) * 2 / width - 1) * aspect
    y = 1 - (row + 0.5) * 2 / height
    along = x[:, None] * x_axis + y[:, None] * y_axis - z_axis / math.tan(fov / 2)
    directions = along / along.norm(dim=-1, keepdim=True)

    closest = -(origins * directions).sum(-1)
    miss2 = (origins + closest[:, None] * directions).square().sum(-1)
    if isinstance(radius, Tensor):
        radius = radius[torch.where(inside, pixels // (height * width), 0)] if len(radius) else radius.new_ones(())
    half_chord = (radius**2 - miss2).clamp(min=0).sqrt()
    return origins, directions, (closest - half_chord).clamp(min=0), (closest + half_chord).clamp(min=0)


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
    pictures, scale = values.view(-1, coarse, coarse), fine // coarse
    return pictures.repeat_interleave(scale, 1).repeat_interleave(scale, 2).flatten()


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


def film_siren(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> Tensor:
    """See `film_siren_sample`."""
    return film_siren_sample(points, image, network)[0]


def film_siren_sample(points: Tensor, image: Tensor, network: FilmSirenNetwork) -> tuple[Tensor, Tensor, Tensor]:
    """One layer at a time; the gradient by autograd."""
    hidden = network.hidden.to(points.dtype)
    if hidden.dim() == 5:  # pairs of bfloat16
        hidden = hidden.transpose(2, 3).flatten(3).transpose(2, 3)
    matrices = hidden.transpose(2, 3).flatten(1, 2)  # [layers - 1, W, W]
    trunk_layers, sdf_layers, _ = network.layers

    def layer(index: int, x: Tensor) -> Tensor:
        product = x @ (network.first if index == 0 else matrices[index - 1]).T
        return torch.sin(network.scale[image, index] * product + network.shift[image, index])

    with torch.enable_grad():
        x = points.detach().requires_grad_()
        trunk = x
        for index in range(trunk_layers):
            trunk = layer(index, trunk)
        features = trunk
        for index in range(trunk_layers, trunk_layers + sdf_layers):
            features = layer(index, features)
        prior = (x.square().sum(-1) + network.constants[0]).sqrt() + network.constants[1]
        sdf = features @ network.sdf_head + prior
        (gradient,) = torch.autograd.grad(sdf.sum(), x, retain_graph=True)
        features = trunk
        for index in range(trunk_layers + sdf_layers, sum(network.layers)):
            features = layer(index, features)
    texture = features @ network.texture_head.T
    return sdf.detach(), gradient, texture.detach()


_PAIRS_AT_ONCE = 2**21


def mesh_distance(tree: MeshTree, points: Tensor) -> MeshDistance:
    """Every point against every face, in float64.

    The winding number is the sum of the faces' solid angles over 4 pi (van Oosterom and Strackee, "The Solid Angle of a
    Plane Triangle", 1983).
    """
    corners = tree.vertices.double()[tree.faces.long()]  # [F, 3, 3]
    parts = [_mesh_distance(corners, some) for some in points.double().split(max(1, _PAIRS_AT_ONCE // len(corners)))]
    distance, face, closest, winding = (torch.cat(columns) for columns in zip(*parts, strict=True))
    signed = torch.where(winding > 0.5, -distance, distance)
    dtype = points.dtype
    return MeshDistance(signed.to(dtype), face.to(torch.int32), closest.to(dtype), winding.to(dtype))


def _mesh_distance(corners: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c = corners.unbind(1)  # [F, 3]
    normal = torch.linalg.cross(b - a, c - a)
    at = points[:, None]  # [N, 1, 3]
    foot = at - ((at - a) * normal).sum(-1, keepdim=True) * normal / normal.square().sum(-1, keepdim=True)
    inside = torch.ones_like(foot[..., 0], dtype=torch.bool)
    candidates = []
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        inside &= (torch.linalg.cross(edge.expand_as(foot), foot - start) * normal).sum(-1) >= 0
        along = ((at - start) * edge).sum(-1, keepdim=True) / edge.square().sum(-1, keepdim=True)
        candidates.append(start + along.nan_to_num().clamp(0, 1) * edge)
    candidates.append(torch.where(inside[..., None], foot, candidates[0]))
    closest = torch.stack(candidates, 2)  # [N, F, 4, 3]
    squares = (closest - at[:, :, None]).square().sum(-1)
    best = squares.flatten(1).argmin(1)  # [N]
    rows = torch.arange(len(points), device=points.device)

    x, y, z = (corner - at for corner in (a, b, c))  # [N, F, 3]
    lx, ly, lz = (v.norm(dim=-1) for v in (x, y, z))
    volume = (x * torch.linalg.cross(y, z)).sum(-1)
    scale = lx * ly * lz + (x * y).sum(-1) * lz + (y * z).sum(-1) * lx + (z * x).sum(-1) * ly
    angle = torch.where(volume == 0, 0.0, 2 * torch.atan2(volume, scale))
    winding = angle.sum(1) / (4 * math.pi)
    return squares.flatten(1)[rows, best].sqrt(), best // 4, closest.flatten(1, 2)[rows, best], winding
