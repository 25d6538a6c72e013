"""What the operators for volumes mean, in plain torch; `sdfgan.ops.reference` has them all."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .composite import Composited
from .grid_march import GridMarch, MarchSamples
from .pixels import PixelSamples, PixelViews


def composite(
    densities: Tensor,
    deltas: Tensor | None = None,
    colors: Tensor | None = None,
    distances: Tensor | None = None,
    *,
    offsets: Tensor | None = None,
) -> Composited:
    """Packed rays one at a time; dense ones by a cumulative product."""
    if offsets is not None:
        each = []
        for a, b in [(0, 0), *pairwise(offsets.tolist())]:  # a ray in front, so that there is one
            others = (None if x is None else x[None, a:b] for x in (deltas, colors, distances))
            each.append(composite(densities[None, a:b], *others))
        return Composited(
            torch.cat([one.weights[0] for one in each]),
            torch.cat([one.opacity for one in each])[1:],
            None if colors is None else torch.cat([one.colors for one in each if one.colors is not None])[1:],
            None if distances is None else torch.cat([one.depth for one in each if one.depth is not None])[1:],
        )
    alphas = densities
    if deltas is not None:
        lengths = torch.where((densities == 0) & deltas.isinf(), 0, deltas)  # transparent over any length
        alphas = -torch.expm1(-densities * lengths)
    passes = torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas[:, :-1]], 1).cumprod(1)
    weights = (alphas * passes)[:, : alphas.shape[1]]
    return Composited(
        weights,
        weights.sum(1),
        None if colors is None else (weights[..., None] * colors).sum(1),
        None if distances is None else (weights * distances).sum(1),
    )


def sample_pixels(views: PixelViews, pixels: Tensor, images: Tensor | None = None) -> PixelSamples:
    """The lens is inverted by Newton's method, in float64."""
    view = (torch.searchsorted(views.starts, pixels, right=True) - 1).clamp(0, len(views.widths) - 1)
    inside = (pixels >= 0) & (pixels < views.starts[-1])
    offset = pixels - views.starts[view]
    column, row = offset % views.widths[view], offset // views.widths[view]
    fx, fy, cx, cy = views.intrinsics[view].double().unbind(1)
    x, y = (column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy
    if views.distortion is not None:
        x, y = _undistort(x, y, views.distortion[view].double())
    shown = inside if views.mask is None else inside & views.mask[torch.where(inside, pixels, 0)]
    z, reach, narrowing = torch.ones_like(x), (1 + x**2 + y**2).sqrt(), torch.ones_like(x)
    if views.fisheye is not None:
        angle, fisheye = (x**2 + y**2).sqrt(), views.fisheye[view]
        narrowing = torch.where(fisheye, torch.sinc(angle / math.pi), 1.0)
        x, y, z = x * narrowing, y * narrowing, torch.where(fisheye, angle.cos(), 1.0)
        reach = torch.where(fisheye, torch.where(angle <= math.pi, 1.0, math.nan), reach)
    camera = views.camera_to_world[view].double()
    along = x[:, None] * camera[..., 0] - y[:, None] * camera[..., 1] - z[:, None] * camera[..., 2]
    length = along.norm(dim=1, keepdim=True)
    directions = torch.where(shown[:, None] & reach.isfinite()[:, None], along / length, math.nan)
    origins = torch.where(directions.isnan(), math.nan, camera[..., 3])
    radii = 2 / math.sqrt(12) * (narrowing / (fx * fy)).sqrt() / reach
    radii = torch.where(shown, radii, math.nan)
    dtype = views.camera_to_world.dtype
    colors = None
    if images is not None:
        colors = images[torch.where(inside, pixels, 0)].to(dtype)
        colors = torch.where(inside[:, None], colors / 255 if images.dtype == torch.uint8 else colors, math.nan)
    return PixelSamples(origins.to(dtype), directions.to(dtype), radii.to(dtype), colors)


def _undistort(x_seen: Tensor, y_seen: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """From the centre of the picture outwards, a little at a time, so that no other branch of the lens is met."""
    k1, k2, p1, p2, k3, k4, k5, k6, a = F.pad(lens, (0, 9 - lens.shape[1])).unbind(1)
    x, y, good = torch.zeros_like(x_seen), torch.zeros_like(y_seen), torch.ones_like(x_seen, dtype=torch.bool)
    for share in torch.linspace(0, 1, 51)[1:].tolist():
        for _ in range(6):
            u = x * x + y * y
            top, bottom = 1 + u * (k1 + u * (k2 + u * (k3 + u * a))), 1 + u * (k4 + u * (k5 + u * k6))
            top_slope = k1 + u * (2 * k2 + u * (3 * k3 + u * 4 * a))
            bottom_slope = k4 + u * (2 * k5 + u * 3 * k6)
            radial, slope = top / bottom, 2 * (top_slope * bottom - top * bottom_slope) / bottom**2
            error_x = x * radial + 2 * p1 * x * y + p2 * (u + 2 * x * x) - share * x_seen
            error_y = y * radial + p1 * (u + 2 * y * y) + 2 * p2 * x * y - share * y_seen
            xx = radial + x * x * slope + 2 * p1 * y + 6 * p2 * x
            xy = x * y * slope + 2 * p1 * x + 2 * p2 * y
            yy = radial + y * y * slope + 6 * p1 * y + 2 * p2 * x
            determinant = xx * yy - xy * xy
            x, y = x - (yy * error_x - xy * error_y) / determinant, y - (xx * error_y - xy * error_x) / determinant
        good &= (error_x.abs() + error_y.abs() < 1e-9) & (determinant > 0) & (bottom > 0)
        good &= radial + u * slope > 0  # the radial part rises: the lens has not folded
    nan = torch.full_like(x, math.nan)
    return torch.where(good, x, nan), torch.where(good, y, nan)


def frustum_gaussians(
    origins: Tensor, directions: Tensor, edges: Tensor, radii: Tensor, *, cylinder: bool = False, full: bool = False
) -> tuple[Tensor, Tensor]:
    """Moments of the pieces of cones (mip-NeRF, eq. 7) or cylinders."""
    near, far = edges[:, :-1], edges[:, 1:]
    middle, half = (near + far) / 2, (far - near) / 2
    radius2 = radii[:, None].square()
    if cylinder:
        mean, along, across = middle, half**2 / 3, (radius2 / 4).expand_as(middle)
    else:
        total = 3 * middle**2 + half**2
        mean = middle + 2 * middle * half**2 / total
        along = half**2 / 3 - 4 / 15 * half**4 * (12 * middle**2 - half**2) / total**2
        across = radius2 * (middle**2 / 4 + 5 / 12 * half**2 - 4 / 15 * half**4 / total)
    means = origins[:, None] + mean[..., None] * directions[:, None]
    outer = directions[:, :, None] * directions[:, None, :]  # [R, 3, 3]
    null = torch.eye(3, dtype=edges.dtype, device=edges.device) - outer
    covariances = along[..., None, None] * outer[:, None] + across[..., None, None] * null[:, None]
    return means, covariances if full else covariances.diagonal(dim1=-2, dim2=-1).contiguous()


def integrated_positional_encoding(means: Tensor, variances: Tensor, octaves: int) -> Tensor:
    """E[sin(2^k x)], E[cos(2^k x)] of x ~ N(mean, variance), in float64."""
    blocks = [means.double()[..., :0]]
    for octave in range(octaves):
        angle = means.double() * 2.0**octave
        damping = (-0.5 * 4.0**octave * variances.double()).exp()
        blocks += [damping * angle.sin(), damping * angle.cos()]
    return torch.cat(blocks, -1).to(means.dtype)


def integrated_directional_encoding(directions: Tensor, roughness: Tensor, levels: int = 4) -> Tensor:
    """Polynomials in z by their coefficients, times powers of x + iy, in float64."""
    x, y, z = directions.double().unbind(-1)
    real, imaginary = [], []
    for level in range(levels):
        degree = 2**level
        damping = (-0.5 * degree * (degree + 1) * roughness.double()).exp()
        re, im = torch.ones_like(x), torch.zeros_like(x)  # (x + iy)^m
        for order in range(degree + 1):
            legendre = sum(
                coefficient * z**power for power, coefficient in enumerate(_legendre(degree, order)) if coefficient
            )
            real.append(damping * legendre * re)
            imaginary.append(damping * legendre * im)
            re, im = re * x - im * y, re * y + im * x
    empty = directions.new_empty((*directions.shape[:-1], 0), dtype=torch.float64)
    stacked = [torch.stack(parts, -1) if parts else empty for parts in (real, imaginary)]
    return torch.cat(stacked, -1).to(directions.dtype)


def _legendre(degree: int, order: int) -> list[float]:
    """Coefficients by powers of z of the spherical harmonic Y over (x + iy)^order, Condon-Shortley phase."""
    scale = (2 * degree + 1) / (4 * math.pi) * math.factorial(degree - order) / math.factorial(degree + order)
    result = [0.0] * (degree - order + 1)
    for k in range(degree // 2 + 1):  # d^order/dz^order of (1/2^l) sum_k (-1)^k C(l,k) C(2l-2k,l) z^(l-2k)
        power = degree - 2 * k
        if power >= order:
            term = (-1) ** k * math.comb(degree, k) * math.comb(2 * degree - 2 * k, degree) / 2**degree
            term *= math.factorial(power) / math.factorial(power - order)
            result[power - order] = (-1) ** order * math.sqrt(scale) * term
    return result


def interlevel_bounds(edges: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """For each bin: the sum of the weights of all proposal bins that overlap it."""
    left, right = edges[:, :-1, None], edges[:, 1:, None]
    overlaps = (proposal_edges[:, None, :-1] < right) & (proposal_edges[:, None, 1:] > left)
    return torch.where(overlaps, proposal_weights[:, None], 0).sum(-1)


def interlevel_loss(edges: Tensor, weights: Tensor, proposal_edges: Tensor, proposal_weights: Tensor) -> Tensor:
    """max(0, w - bound)^2 / (w + epsilon), summed over the bins of a ray."""
    w = weights.detach()
    excess = (w - interlevel_bounds(edges, proposal_edges, proposal_weights)).clamp(min=0)
    return (excess.square() / (w + 1e-7)).sum(-1)


def distortion_loss(edges: Tensor, weights: Tensor) -> Tensor:
    """All pairs."""
    middle, width = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)
    apart = (middle[:, :, None] - middle[:, None, :]).abs()
    pairs = (weights[:, :, None] * weights[:, None, :] * apart).sum((1, 2))
    return pairs + (weights.square() * width).sum(1) / 3


def grid_march(
    march: GridMarch, density: Callable[[Tensor, Tensor], Tensor], limit: float
) -> tuple[MarchSamples, Tensor]:
    """All steps of rays that lie in occupied cells and in front of which the optical depth is less than `limit`.

    `density(points [N, 3], directions [N, 3])` is asked for all of them. Returns the samples and offsets [R+1].
    """
    taken, distances, deltas = _march_steps(march)
    points = march.origins[:, None] + distances[..., None] * march.directions[:, None]
    directions = march.directions[:, None].expand_as(points)
    thickness = torch.zeros_like(distances)
    thickness[taken] = density(points[taken], directions[taken]).to(thickness) * deltas[taken]
    taken &= thickness.cumsum(1) - thickness < limit
    samples = MarchSamples(points[taken], directions[taken], distances[taken], deltas[taken])
    return samples, torch.nn.functional.pad(taken.sum(1).cumsum(0), (1, 0))


def _march_steps(march: GridMarch) -> tuple[Tensor, Tensor, Tensor]:
    """[R, S] which steps lie in occupied cells, their distances and lengths."""
    low, high = _march_ticks(march.near, march) + march.jitter, _march_ticks(march.far, march)
    most = int((high - low).ceil().clamp(min=0).max()) + 1 if len(low) else 0
    ticks = low[:, None] + torch.arange(most, device=low.device)
    distances = _march_distances(ticks, march)
    points = march.origins[:, None] + distances[..., None] * march.directions[:, None]
    if not math.isinf(march.even):
        length = points.norm(dim=-1, keepdim=True).clamp(min=1)
        points = points * ((2 - 1 / length) / length) / 2
    n = march.resolution
    x, y, z = ((points + 1) * (n / 2)).long().clamp(0, n - 1).unbind(-1)
    taken = march.occupied[(x * n + y) * n + z] & (ticks < high[:, None])
    return taken, distances, _march_distances(ticks + 1, march) - distances


def _march_ticks(distance: Tensor, march: GridMarch) -> Tensor:
    """How many steps it is to a distance: inverts `_march_distances`."""
    if math.isinf(march.even):
        return distance / march.step
    even = march.even
    return (distance.clamp(max=even) + even * (distance / even).clamp(min=1).log()) / march.step


def _march_distances(ticks: Tensor, march: GridMarch) -> Tensor:
    """The distance after some steps: they are even up to `even`, and from there on a fixed share of the distance."""
    if math.isinf(march.even):
        return ticks * march.step
    even = march.even
    return (ticks * march.step).clamp(max=even) * ((ticks * march.step - even).clamp(min=0) / even).exp()
