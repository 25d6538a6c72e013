"""How others differentiate images of signed distances, written from their papers on this package's march.

- `relaxed_boundary`: Wang et al. 2024, "A Simple Approach to Differentiable Rendering of SDFs" (arXiv:2405.08733);
- `reparameterised`: Vicini et al. 2022, "Differentiable Signed Distance Function Rendering";
- `volume`: VolSDF, Yariv et al. 2021 (arXiv:2106.12052), by `sdfgan.volume`.

Each takes random rays within pixels, as they do, and gives an image with a graph. And `GridSDF`, their shape: distances
on a grid. Nothing here is fast: every ray goes through plain torch operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import cameras, ops, raycast
from sdfgan.fields.base import Field, FieldSample
from sdfgan.raycast.sphere_trace import march
from sdfgan.volume import Rays, Sampling, SdfVolume
from sdfgan.volume import render as render_volume

_STEEPEST = -0.1  # of the sdf along a ray, where a hit moves, as in `raycast.render`: else some would be thrown far
_STEPS = 300
_WARP_STEPS = 48
# Of the weights of a warp: 1 / (_TINY + |sdf| + _TURNED (n . d)^2)^3, and of how far from a surface rays are warped.
_TINY, _TURNED, _REACH = 1e-5, 0.05, 0.05
_SAMPLES = (48, 48)  # of a ray through a volume: evenly, then where the first ones found something


@dataclass(frozen=True)
class View:
    """What one square image is of. All tensors of one dtype."""

    field: Field  # with a graph
    still: Field  # the same without: rays are marched through it
    axes: Tensor  # [1, 3, 3]
    light: raycast.Lighting
    resolution: int
    pixels: Tensor | None = None  # [M] int64, in rising order: those that are drawn, of relaxed_boundary and volume

    def rays(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and unit directions [N, 3] through places [N, 2] of the image, which is [-1, 1]^2."""
        x, y, z = self.axes[0]
        away = cameras.camera_distance()
        return (away * z).expand(len(places), 3), F.normalize(places[:, :1] * x + places[:, 1:] * y - away * z, dim=-1)

    def places(self, side: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Random places [N, 2] of side^2 strata of each pixel, and their pixels [N]."""
        fine = self.resolution * side
        column, row = torch.meshgrid(torch.arange(fine), torch.arange(fine), indexing="xy")
        jitter = torch.rand(2, fine, fine, generator=random, dtype=torch.float64)
        across, up = 2 * (column + jitter[0]) / fine - 1, 1 - 2 * (row + jitter[1]) / fine
        pixel = ((row // side) * self.resolution + column // side).flatten()
        places = torch.stack([across, up], -1).view(-1, 2).to(self.axes.dtype)
        if self.pixels is None:
            return places, pixel
        drawn = torch.isin(pixel, self.pixels)
        return places[drawn], pixel[drawn]

    def shade(self, points: Tensor) -> Tensor:
        """Colour and alpha [N, 4] of surfaces at points [N, 3]."""
        sample = self.field.evaluate(points, None, torch.zeros(len(points), dtype=torch.int64))
        return torch.cat([_lit(self, sample), torch.ones_like(sample.sdf)[:, None]], -1)

    def image(self, samples: Tensor, pixel: Tensor) -> Tensor:
        """[4, R, R]: means of samples [N, 4], as many of each pixel that is drawn: a box filter. Zero elsewhere."""
        count = self.resolution**2 if self.pixels is None else len(self.pixels)
        total = samples.new_zeros(self.resolution**2, 4).index_add(0, pixel, samples)
        return (total * (count / len(samples))).T.reshape(4, self.resolution, self.resolution)


Estimator = Callable[[View, int, torch.Generator], Tensor]  # side^2 rays per pixel -> [4, R, R]


def _lit(view: View, sample: FieldSample) -> Tensor:
    normals = F.normalize(sample.gradient, dim=-1, eps=1e-6)
    return sample.rgb * view.light.brightness(normals, view.axes, torch.zeros(len(normals), dtype=torch.int64))


class Met(NamedTuple):
    """What rays [N] meet."""

    hit: Tensor  # [N] bool
    t: Tensor  # [N] where
    ray: Tensor  # [M] int64: rays that pass the surface nearer than the band before that
    nearest: Tensor  # [M] where


@torch.no_grad()
def meet(view: View, origins: Tensor, directions: Tensor, band: float) -> Met:
    """March rays to the surface, collecting local minima of the sdf below `band`, up to four of each ray."""
    field, away = view.still, cameras.camera_distance()
    origins, directions = origins.detach().contiguous(), directions.detach().contiguous()
    radius = field.extent + band
    middle = -(origins * directions).sum(-1)
    half = (middle.square() - away**2 + radius**2).clamp(min=0).sqrt()
    start, far = middle - half, middle + half
    rules = ops.MarchRules(
        threshold=band / 50, lipschitz=float(field.lipschitz), relaxation=1.0, slack=band / 8, refine=8,
        footprint=1.3 * band / away,
    )  # fmt: skip
    state, status = ops.start_march(start, far)
    alive = (status == int(ops.RayStatus.MARCHING)).nonzero()[:, 0].int()
    layers = ops.LayerState.none(4, start)
    points = (origins + start[:, None] * directions)[alive.long()]
    count = torch.full((1,), len(alive), dtype=torch.int32)
    level = ops.LevelRays(origins, directions, start, far, state, status, points, alive, count)
    level_rules = ops.TraceLevel(1, round(_STEPS * float(field.lipschitz)), rules)
    march(field, None, level, level_rules, lambda ray: torch.zeros_like(ray, dtype=torch.int64), layers)
    ray, order = (torch.arange(4) < layers.complete[:, None]).nonzero().unbind(-1)
    guess, _, reach, _ = layers.layers[order, :, ray].unbind(-1)
    low, high = guess - reach, guess + reach

    def sdf(t: Tensor) -> Tensor:
        return field.sdf(origins[ray] + t[:, None] * directions[ray], None, torch.zeros_like(ray))

    for _ in range(12):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        left = sdf(one) < sdf(two)
        low, high = torch.where(left, low, one), torch.where(left, two, high)
    return Met(status == int(ops.RayStatus.HIT), state[0], ray, (low + high) / 2)


def hits(view: View, origins: Tensor, directions: Tensor, met: Met) -> Tensor:
    """Colours [N, 4] of rays; those of hits move with the surface (implicit differentiation). Zero elsewhere."""
    o, d, t = origins[met.hit], directions[met.hit], met.t[met.hit]
    image = torch.zeros(len(t), dtype=torch.int64)
    points = o + t[:, None] * d
    with torch.no_grad():
        gradient = view.still.sdf_and_gradient(points.detach(), None, image)[1]
        slope = (gradient * d).sum(-1).clamp(max=_STEEPEST)
    value = view.field.sdf(points, None, image)
    moved = t - (value - value.detach()) / slope
    shaded = view.shade(o + moved[:, None] * d)
    return shaded.new_zeros(len(origins), 4).index_put((met.hit.nonzero()[:, 0],), shaded)


def relaxed_boundary(view: View, side: int, random: torch.Generator, width: float) -> Tensor:
    """The silhouette's integral, spread over a band: where a ray's smallest sdf F before what it hits is in (0, width).

    d(pixel) = (1 / width) * integral over the band of (what is behind - what is at the minimum) dF.
    """
    places, pixel = view.places(side, random)
    origins, directions = view.rays(places)
    met = meet(view, origins, directions, width)
    colours = hits(view, origins, directions, met)
    points = origins[met.ray] + met.nearest[:, None] * directions[met.ray]
    value = view.field.sdf(points, None, torch.zeros_like(met.ray))
    inside = (value.detach() > 0) & (value.detach() < width)
    with torch.no_grad():
        jump = (colours[met.ray] - view.shade(points)) / width * inside[:, None]
    return view.image(colours.index_add(0, met.ray, jump * (value - value.detach())[:, None]), pixel)


def reparameterised(view: View, side: int, random: torch.Generator) -> Tensor:
    """Places move with the silhouettes, smoothly between them: the integral of L(u + s(u)) (1 + div s(u)).

    s follows the surface at x = o + t d, a mean of the points where the ray was marched, weighted so that it tends to
    the silhouette next to one. A sample that moves leaves its pixel, so the filter must be continuous: a tent.
    """
    places, _ = view.places(side, random)
    shift, divergence = _warp(view, places)
    moved = places + shift
    origins, directions = view.rays(moved)
    colours = hits(view, origins, directions, meet(view, origins, directions, 1e-3)) * (1 + divergence)[:, None]
    return _tent(colours, moved, view.resolution) / side**2


def _tent(samples: Tensor, places: Tensor, resolution: int) -> Tensor:
    """[4, R, R]: samples [N, 4] are shared by the four pixels around them."""
    position = torch.stack([places[:, 0] + 1, 1 - places[:, 1]], -1) * (resolution / 2) - 0.5  # column, row
    corner = position.detach().floor()
    share = position - corner
    total = samples.new_zeros((resolution + 2) ** 2, 4)
    for x in (0, 1):
        for y in (0, 1):
            weight = (share[:, 0] if x else 1 - share[:, 0]) * (share[:, 1] if y else 1 - share[:, 1])
            column, row = corner[:, 0].long() + x + 1, corner[:, 1].long() + y + 1
            total = total.index_add(0, row * (resolution + 2) + column, samples * weight[:, None])
    return total.view(resolution + 2, resolution + 2, 4)[1:-1, 1:-1].permute(2, 0, 1)


def _warp(view: View, places: Tensor) -> tuple[Tensor, Tensor]:
    """How far each place [N, 2] moves and by how much its surroundings grow [N]: zero, with a gradient."""
    still, away = view.still, cameras.camera_distance()
    image = torch.zeros(len(places), dtype=torch.int64)
    with torch.enable_grad():
        leaf = places.detach().requires_grad_()
        t = _mean_distance(view, *_detached(view).rays(leaf))
        (t_slope,) = torch.autograd.grad(t.sum(), leaf)
    t, near = t.detach(), t.isfinite()
    t, t_slope = t.masked_fill(~near, away), t_slope.masked_fill(~near[:, None], 0.0)
    origins, directions = view.rays(places)
    x, y, z = view.axes[0]
    length = (places.square().sum(-1, keepdim=True) + away**2).sqrt()
    steps = []  # of the point, by either coordinate of the place
    for axis, slope in zip((x, y), t_slope.unbind(-1), strict=True):
        turned = (axis - directions * (directions * axis).sum(-1, keepdim=True)) / length
        steps.append(t[:, None] * turned + slope[:, None] * directions)
    points = origins + t[:, None] * directions
    with torch.enable_grad():
        at = points.detach().requires_grad_()
        value, gradient, _ = still.evaluate(at, None, image)  # gradients must not jump: see `GridSDF`
        direction = gradient / gradient.square().sum(-1, keepdim=True).clamp_min(1e-6)
        weight = (1 - value.abs() / _REACH).clamp(min=0) * near
        depth, (right, up) = away - (at * z.detach()).sum(-1), ((at * axis.detach()).sum(-1) for axis in (x, y))
        towards = (direction * z.detach()).sum(-1) / depth
        follow = [
            weight * away / depth * ((direction * axis.detach()).sum(-1) + along * towards)
            for axis, along in ((x, right), (y, up))
        ]
        bends = [torch.autograd.grad(part.sum(), at, retain_graph=True)[0] for part in follow]
    spread = sum((bend * step.detach()).sum(-1) for bend, step in zip(bends, steps, strict=True))
    value, gradient = view.field.sdf_and_gradient(points, None, image)
    change = value - value.detach()
    shift, divergence = [], -change * spread
    for part, step in zip(follow, steps, strict=True):
        slope = (gradient * step).sum(-1)
        shift.append(-change * part.detach())
        divergence = divergence - (slope - slope.detach()) * part.detach()
    return torch.stack(shift, -1), divergence


def _detached(view: View) -> View:
    return View(view.still, view.still, view.axes.detach(), view.light, view.resolution)


def _mean_distance(view: View, origins: Tensor, directions: Tensor) -> Tensor:
    """[N] with a graph by the rays: sum of w t over sum of w, along plain sphere tracing; infinite far from all."""
    extent = float(view.still.extent)
    alive = torch.arange(len(origins))
    t = origins.new_full((len(origins),), cameras.camera_distance() - extent)
    before, total, mixed = torch.zeros_like(t), torch.zeros_like(t), torch.zeros_like(t)
    end = cameras.camera_distance() + extent
    for _ in range(_WARP_STEPS):
        d = directions[alive]
        value, gradient, _ = view.still.evaluate(origins[alive] + t[:, None] * d, None, torch.zeros_like(alive))
        hit = value.detach() < 1e-4
        ahead = torch.where(hit, 0.0, value.abs())
        turned = (gradient * d).sum(-1).square() / gradient.square().sum(-1).clamp_min(1e-6)
        weight = 0.5 * (ahead + before) / (_TINY + value.abs() + _TURNED * turned) ** 3
        total, mixed = total.index_add(0, alive, weight), mixed.index_add(0, alive, weight * t)
        goes_on = ~hit & (t.detach() + ahead.detach() < end)
        t, before, alive = (t + ahead)[goes_on], ahead[goes_on], alive[goes_on]
        if len(alive) == 0:
            break
    return torch.where(total > 1e-3, mixed / total.clamp_min(1e-3), torch.inf)


def volume(view: View, side: int, random: torch.Generator, width: float) -> Tensor:
    """A volume whose density is Laplace's distribution of scale `width` at -sdf, over width."""
    places, pixel = view.places(side, random)
    origins, directions = view.rays(places)
    away, radius = cameras.camera_distance(), float(view.still.extent) + 4 * width
    span = (places.new_full((len(places),), away + sign * radius) for sign in (-1, 1))
    seen = render_volume(
        SdfVolume(_Lit(view), width),
        Rays(origins, directions, *span, image=torch.zeros(len(places), dtype=torch.int64)),
        sampling=Sampling(_SAMPLES, stratified=True, merge=True),
        generator=random,
    )
    return view.image(torch.cat([seen.rgb, seen.opacity[:, None]], -1), pixel)


class _Lit(Field):
    """A field whose colours are lit."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        return self.view.field.sdf(points, condition, image)

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        sample = self.view.field.evaluate(points, condition, image)
        return sample._replace(rgb=_lit(self.view, sample))


class GridSDF(Field):
    """Distances [N, N, N] (x, y, z) at the corners of cells of [-1, 1]^3, trilinear between; mid-grey.

    Its surfaces are shaded by central differences at the corners, trilinear between: the gradient of what is
    trilinear jumps from cell to cell, and no derivative of an image sees that.
    """

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values, cell = values, 2 / (len(values) - 1)
        self._slopes = torch.stack(torch.gradient(values, spacing=cell), -1).reshape(-1, 3)
        with torch.no_grad():
            steepest = torch.stack([values.diff(dim=axis).abs().max() for axis in range(3)]) / cell
        self.lipschitz = max(1.0, steepest.norm().item())  # which bounds the trilinear gradient

    @property
    def extent(self) -> float:
        """Shapes are in the unit ball."""
        return 1.0

    def _corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Places [N, 8] in the flat grid of the corners around points [N, 3], and where points are between, [N, 3]."""
        cells = len(self.values) - 1
        position = ((points + 1) * (cells / 2)).clamp(0, cells)
        corner = position.detach().floor().clamp(max=cells - 1)
        strides = torch.tensor([(cells + 1) ** 2, cells + 1, 1])
        around = torch.cartesian_prod(*[torch.arange(2)] * 3) @ strides
        return (corner.long() @ strides)[:, None] + around, position - corner

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        index, share = self._corners(points)
        return _trilinear(self.values.reshape(-1, 1)[index], share)[:, 0]

    def sdf_and_gradient(
        self, points: Tensor, condition: Any = None, image: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The gradient of what is trilinear, by ordinary operations, so that they are differentiable again."""
        index, share = self._corners(points)
        u, v, w = share.unbind(-1)
        at = self.values.reshape(-1)[index].view(-1, 2, 2, 2)
        along_x = at[:, 1] - at[:, 0]  # [N, 2, 2]
        face = at[:, 0] + u[:, None, None] * along_x
        along_y = face[:, 1] - face[:, 0]  # [N, 2]
        edge = face[:, 0] + v[:, None] * along_y
        slope_x = along_x[:, 0] + v[:, None] * (along_x[:, 1] - along_x[:, 0])
        slopes = [torch.lerp(s[:, 0], s[:, 1], w) for s in (slope_x, along_y)] + [edge[:, 1] - edge[:, 0]]
        return torch.lerp(edge[:, 0], edge[:, 1], w), torch.stack(slopes, -1) * ((len(self.values) - 1) / 2)

    def evaluate(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> FieldSample:
        index, share = self._corners(points)
        answer = _trilinear(torch.cat([self.values.reshape(-1, 1), self._slopes], -1)[index], share)
        return FieldSample(answer[:, 0], answer[:, 1:], self.rgb(points))


def _trilinear(corners: Tensor, share: Tensor) -> Tensor:
    """[N, C] between corners [N, 8, C]."""
    for part in share.unbind(-1):
        half = corners.shape[1] // 2
        corners = corners[:, :half] + part[:, None, None] * (corners[:, half:] - corners[:, :half])
    return corners[:, 0]


def grid_points(cells: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Corners [(cells + 1)^3, 3] of a `GridSDF`, in its order."""
    ticks = torch.linspace(-1, 1, cells + 1, dtype=dtype)
    return torch.cartesian_prod(ticks, ticks, ticks)
