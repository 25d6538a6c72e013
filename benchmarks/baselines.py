"""The same work in plain torch: what one would write without this package, from the naive to the best.

Ways to evaluate a FiLM-SIREN at points of several images, all for the parameters of a `FilmSirenSDF`:
- "faithful": FiLM is computed from the latent at every point, as the renderer this project started from does;
- "gather": FiLM is computed once per image, and its rows are gathered at every point;
- "seg": FiLM is folded into a copy of the weights per image, and each image's points are one chain of products;
- "compile": "seg" by `torch.compile`;
- "bf16": "seg" with products in bfloat16.

And the algorithm of that renderer (sidmani/dfr), with boolean masks; and as one CUDA graph, in which nothing depends on
what was found, so that every ray of a level is evaluated at every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from measure import recorded
from sdfgan import cameras
from sdfgan.fields import FilmSirenSDF

Evaluate = Callable[[Tensor, Tensor], Tensor]  # points [N, 3], image [N] (sorted) -> [N]
EAGER = ("faithful", "gather", "seg")


def _prior(field: FilmSirenSDF, points: Tensor) -> Tensor:
    return torch.sqrt(points.square().sum(-1) + 0.01) - field.prior_radius + field.sdf_bias


def _layers(field: FilmSirenSDF) -> range:
    return range(field.trunk_layers + field.sdf_layers)


def faithful(field: FilmSirenSDF, latents: Tensor, chunk: int = 2**14) -> Evaluate:
    """FiLM per point. In chunks, because a point's FiLM takes more memory than its features."""

    def evaluate(points: Tensor, image: Tensor) -> Tensor:
        parts = []
        for some, rows in zip(points.split(chunk), latents[image].split(chunk), strict=True):
            condition, x = field.condition(rows), some
            for i in _layers(field):
                x = torch.sin(condition.scales[:, i] * (x @ field.weights[i].T) + condition.shifts[:, i])
            parts.append(x @ field.sdf_head + _prior(field, some))
        return torch.cat(parts) if parts else points[:, 0]

    return evaluate


def gather(field: FilmSirenSDF, latents: Tensor) -> Evaluate:
    """FiLM per image."""
    condition = field.condition(latents)

    def evaluate(points: Tensor, image: Tensor) -> Tensor:
        x = points
        for i in _layers(field):
            x = torch.sin(condition.scales[image, i] * (x @ field.weights[i].T) + condition.shifts[image, i])
        return x @ field.sdf_head + _prior(field, points)

    return evaluate


def seg(field: FilmSirenSDF, latents: Tensor, compiled: bool = False, bf16: bool = False) -> Evaluate:
    """FiLM folded into the weights of each image; what little each image's points then need."""
    condition = field.condition(latents)
    layers = _layers(field)
    dtype = torch.bfloat16 if bf16 else torch.float32
    folded = [(condition.scales[:, i, :, None] * field.weights[i]).transpose(1, 2) for i in layers]
    weights = [folded[0].contiguous(), *(w.to(dtype).contiguous() for w in folded[1:])]
    shifts = [condition.shifts[:, i] for i in layers]

    def chain(points: Tensor, weights: list[Tensor], shifts: list[Tensor]) -> Tensor:
        x = torch.addmm(shifts[0], points, weights[0]).sin_()
        for weight, shift in zip(weights[1:], shifts[1:], strict=True):
            if bf16:
                x = (torch.mm(x.bfloat16(), weight).float() + shift).sin_()
            else:
                x = torch.addmm(shift, x, weight).sin_()
        return x @ field.sdf_head + _prior(field, points)

    if compiled:
        chain = torch.compile(chain, dynamic=True)

    def evaluate(points: Tensor, image: Tensor) -> Tensor:
        counts = torch.bincount(image, minlength=len(latents)).tolist()
        parts = [
            chain(some, [w[b] for w in weights], [s[b] for s in shifts])
            for b, some in enumerate(points.split(counts))
            if len(some)
        ]
        return torch.cat(parts) if parts else points[:, 0]

    return evaluate


def batched(field: FilmSirenSDF, latents: Tensor) -> Callable[[Tensor], Tensor]:
    """Values [B, P] at points [B, P, 3]: as many of each image, all in one product; operands in float16."""
    condition = field.condition(latents)
    folded = [(condition.scales[:, i, :, None] * field.weights[i]).transpose(1, 2) for i in _layers(field)]
    weights = [folded[0].contiguous(), *(weight.half().contiguous() for weight in folded[1:])]
    shifts = [condition.shifts[:, i, None] for i in _layers(field)]

    def evaluate(points: Tensor) -> Tensor:
        x = torch.baddbmm(shifts[0], points, weights[0]).sin_()
        for weight, shift in zip(weights[1:], shifts[1:], strict=True):
            x = (torch.bmm(x.half(), weight).float() + shift).sin_()
        return x @ field.sdf_head + _prior(field, points)

    return evaluate


def evaluators(field: FilmSirenSDF, latents: Tensor, names: tuple[str, ...]) -> dict[str, Callable[[], Evaluate]]:
    """Makers of evaluators: hoisting FiLM is part of what is timed."""
    makers: dict[str, Callable[[], Evaluate]] = {
        "faithful": lambda: faithful(field, latents),
        "gather": lambda: gather(field, latents),
        "seg": lambda: seg(field, latents),
        "compile": lambda: seg(field, latents, compiled=True),
        "bf16": lambda: seg(field, latents, bf16=True),
    }
    return {name: makers[name] for name in names}


@dataclass
class DfrTrace:
    """What dfr's raycaster finds at the last level."""

    hit: Tensor  # [B, R, R] bool
    distance: Tensor  # [B, R, R]; 0 where no ray was traced
    queries: int
    shaded: Tensor  # [B, R, R] bool: pixels of the coarsest rays that meet the unit ball, all of which dfr shades
    start: Tensor  # [B, R, R] where the ray of each of these ended, or that of the coarser pixel it is in


def trace_dfr(evaluate: Evaluate, axes: Tensor, scales: tuple[int, ...], fov: float = cameras.DEFAULT_FOV) -> DfrTrace:
    """Plain sphere tracing at each of the cumulated scales; see `sdfgan.raycast.multiscale(algorithm="dfr")`."""
    distance = cameras.camera_distance(fov)
    batch, size, queries = len(axes), 1, 0
    camera = cameras.orbit_camera(axes, fov)
    mask = axes.new_ones(batch, 1, 1, dtype=torch.bool)
    start = axes.new_zeros(batch, 1, 1)
    shaded = mask
    for level, scale in enumerate(scales):
        size *= scale
        mask, start, shaded = (x.repeat_interleave(scale, 1).repeat_interleave(scale, 2) for x in (mask, start, shaded))
        directions = cameras.ray_grid(camera, size, size, fov)[1].reshape(batch, size, size, 3)
        origins = camera[:, None, None, :, 3].expand_as(directions)
        c = -(origins * directions).sum(-1)
        delta = (c.square() - distance**2 + 1).clamp(min=0).sqrt()
        mask = mask & (delta > 0)
        shaded = shaded if level else mask
        image = mask.nonzero()[:, 0]
        o, d = origins[mask], directions[mask]
        t, far = (c - delta)[mask] + 0.125, (c + delta)[mask]
        best, best_t = torch.full_like(t, 5.0), t.clone()
        alive = t < far
        for _ in range(15):
            if not alive.any():
                break
            value = evaluate(o[alive] + t[alive, None] * d[alive], image[alive])
            queries += len(value)
            better = value < best[alive]
            best[alive] = torch.where(better, value, best[alive])
            best_t[alive] = torch.where(better, t[alive], best_t[alive])
            goes_on = value > 5e-3
            t[alive] = torch.where(goes_on, t[alive] + value, t[alive])
            alive[alive.clone()] = goes_on
            alive &= t < far
        start = start.masked_scatter(mask, best_t)
        if level + 1 < len(scales):
            k = 2 * best_t * math.tan(fov / (2 * size))
            mask = mask.masked_scatter(mask, best <= 0.5 * (2 * k.square() + 1 / 256).sqrt())
    hit = torch.zeros_like(mask).masked_scatter(mask, best <= 5e-3)
    return DfrTrace(hit, axes.new_zeros(mask.shape).masked_scatter(mask, best_t), queries, shaded, start)


def dfr_losses(
    field: FilmSirenSDF, latents: Tensor, axes: Tensor, scales: tuple[int, ...], per_point: bool
) -> tuple[Tensor, Tensor]:
    """What dfr trains a generator with: a loss of its RGBA pictures (mean square), and the eikonal term at points.

    Every pixel of the coarsest rays that meet the unit ball is shaded, with the gradient of the sdf by autograd; FiLM
    is computed per point, as it does, or else gathered.
    """
    with torch.no_grad():
        found = trace_dfr((faithful if per_point else gather)(field, latents), axes, scales)
    batch, size = len(axes), found.hit.shape[1]
    directions = cameras.ray_grid(cameras.orbit_camera(axes), size, size)[1].reshape(batch, size, size, 3)
    image = found.shaded.nonzero()[:, 0]
    camera = cameras.orbit_camera(axes)[image, :, 3]
    points = (camera + found.start[found.shaded, None] * directions[found.shaded]).requires_grad_()
    condition, row = (field.condition(latents[image]), slice(None)) if per_point else (field.condition(latents), image)

    def layer(x: Tensor, i: int) -> Tensor:
        return torch.sin(condition.scales[row, i] * (x @ field.weights[i].T) + condition.shifts[row, i])

    trunk = points
    for i in range(field.trunk_layers):
        trunk = layer(trunk, i)
    shape, texture = trunk, trunk
    for i in range(field.trunk_layers, field.trunk_layers + field.sdf_layers):
        shape = layer(shape, i)
    for i in range(field.trunk_layers + field.sdf_layers, len(field.omegas)):
        texture = layer(texture, i)
    value = shape @ field.sdf_head + _prior(field, points)
    (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=True)
    length = gradient.norm(dim=-1)
    normal = gradient / (length[:, None] + 1e-5)
    outside = value - 5e-3
    light = torch.where(outside > 0, 0.7, ((normal * axes[image, 2]).sum(-1) + 1) / 2)
    alpha = torch.where(outside < 0, 1.0, (1 - outside * size / 2).clamp(0, 1))
    rgb = torch.sigmoid(2 * (texture @ field.texture_head.T) + field.texture_bias + condition.base_color[row, 0])
    rgba = torch.cat([rgb * (light * alpha)[:, None], alpha[:, None]], -1)
    picture = rgba.new_zeros(batch, size, size, 4).masked_scatter(found.shaded[..., None], rgba)
    return picture.square().mean(), (length - 1).square().mean()


class CapturedDfr:
    """`trace_dfr` of a field, with products in float16, recorded once and replayed when called."""

    def __init__(self, field: FilmSirenSDF, latents: Tensor, axes: Tensor, scales: tuple[int, ...]) -> None:
        self.evaluate, self.scales, self.camera = batched(field, latents), scales, cameras.orbit_camera(axes)
        self.replay = recorded(self.run, axes.device)
        self.queries = len(axes) * sum(15 * math.prod(scales[: i + 1]) ** 2 for i in range(len(scales)))

    def __call__(self) -> CapturedDfr:
        self.hit, self.distance = self.replay()
        return self

    def run(self, fov: float = cameras.DEFAULT_FOV) -> tuple[Tensor, Tensor]:
        """Hits and distances [B, R, R]; see `trace_dfr`."""
        distance, size = cameras.camera_distance(fov), 1
        batch = len(self.camera)
        mask = self.camera.new_ones(batch, 1, 1, dtype=torch.bool)
        for level, scale in enumerate(self.scales):
            size *= scale
            mask = mask.repeat_interleave(scale, 1).repeat_interleave(scale, 2).view(batch, -1)
            directions = cameras.ray_grid(self.camera, size, size, fov)[1].reshape(batch, -1, 3)
            origins = self.camera[:, None, :, 3]
            c = -(origins * directions).sum(-1)
            delta = (c.square() - distance**2 + 1).clamp(min=0).sqrt()
            mask = mask & (delta > 0)
            t, far = c - delta + 0.125, c + delta
            best, best_t = torch.full_like(t, 5.0), t
            alive = mask & (t < far)
            for _ in range(15):
                value = self.evaluate(origins + t[..., None] * directions)
                better = alive & (value < best)
                best, best_t = torch.where(better, value, best), torch.where(better, t, best_t)
                alive = alive & (value > 5e-3)
                t = torch.where(alive, t + value, t)
                alive = alive & (t < far)
            if level + 1 < len(self.scales):
                k = 2 * best_t * math.tan(fov / (2 * size))
                mask = mask & (best <= 0.5 * (2 * k.square() + 1 / 256).sqrt())
                mask = mask.view(batch, size, size)
        hit = mask & (best <= 5e-3)
        return hit.view(batch, size, size), torch.where(mask, best_t, 0.0).view(batch, size, size)


class CapturedValues:
    """Values at points [B, P, 3], with products in float16, recorded once and replayed when called."""

    def __init__(self, field: FilmSirenSDF, latents: Tensor, points: Tensor) -> None:
        evaluate = batched(field, latents)
        self.replay = recorded(lambda: evaluate(points).flatten(), points.device)

    def __call__(self) -> Tensor:
        return self.replay()


def positional_encoding(x: Tensor, frequencies: int) -> Tensor:
    """As `ops.positional_encoding`, with powers of two."""
    phases = x[..., None, :] * 2.0 ** torch.arange(frequencies, dtype=x.dtype, device=x.device)[:, None]
    waves = torch.stack([phases.sin(), phases.cos()], -2)
    return torch.cat([x, waves.flatten(-3)], -1)


def sample_pdf(edges: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Inverse-transform samples of histograms by `searchsorted`, as in NeRF (Mildenhall et al. 2020)."""
    pdf = weights / weights.sum(-1, keepdim=True)
    cdf = torch.cat([torch.zeros_like(pdf[..., :1]), pdf.cumsum(-1)], -1)
    above = torch.searchsorted(cdf, u.contiguous(), right=True).clamp(1, edges.shape[-1] - 1)
    below = above - 1
    low, high = cdf.gather(-1, below), cdf.gather(-1, above)
    share = (u - low) / (high - low).clamp(min=1e-12)
    left, right = edges.gather(-1, below), edges.gather(-1, above)
    return left + share * (right - left)


def composite(
    densities: Tensor, deltas: Tensor, colors: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights, opacity, colour and depth by a cumulative sum, as a user of plain torch writes them."""
    thickness = densities * deltas
    weights = -torch.expm1(-thickness) * torch.exp(thickness - thickness.cumsum(1))
    rgb = (weights[..., None] * colors).sum(1)
    return weights, weights.sum(1), rgb, (weights * distances).sum(1)


def trace_step(
    values: Tensor, alive: Tensor, origins: Tensor, directions: Tensor, far: Tensor, state: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """One plain step and the compaction by boolean masks: points and indices of the rays that go on."""
    t, nearest = state[0, alive], state[1, alive]
    better = values < nearest
    state[1, alive] = torch.where(better, values, nearest)
    state[2, alive] = torch.where(better, t, state[2, alive])
    t = t + values
    state[0, alive] = t
    alive = alive[(values > threshold) & (t < far[alive])]
    return origins[alive] + state[0, alive, None] * directions[alive], alive


def dense_grid(
    evaluate: Evaluate, resolution: int, share: int = 1, at_once: int = 2**16, device: str = "cpu"
) -> Tensor:
    """Values on every `share`-th slab of the grid of [-1, 1]^3."""
    ticks = torch.linspace(-1, 1, resolution + 1, device=device)
    parts: list[Any] = []
    for x in ticks[::share]:
        points = torch.cartesian_prod(x[None], ticks, ticks)
        for some in points.split(at_once):
            parts.append(evaluate(some, some.new_zeros(len(some), dtype=torch.int64)))
    return torch.cat(parts).view(-1, resolution + 1, resolution + 1)
