"""Images of volumes: along each ray levels of samples, each placed by the weights of the one before; the last one is
composited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdfgan import ops
from sdfgan.fields.volume import Radiance, RaySamples, VolumeField
from sdfgan.volume.field import Rays
from sdfgan.volume.occupancy import OccupancyGrid
from sdfgan.volume.sampling import Sampling, bins_around, distances, finer_centres, first_centres

Background = Tensor | Sequence[float] | Literal["last"] | None


class Level(NamedTuple):
    """A histogram along R rays."""

    spans: Tensor  # [R, S+1] edges of its bins, in [0, 1] from near to far
    edges: Tensor  # [R, S+1] the same as distances
    weights: Tensor  # [R, S]
    rgb: Tensor | None = None  # [R, 3] its image, where there is one


class VolumeRendering(NamedTuple):
    """What R rays see."""

    rgb: Tensor  # [R, 3] over the background
    opacity: Tensor  # [R]
    depth: Tensor  # [R] expected distance of what was seen; infinite where nothing was
    normals: Tensor | None  # [R, 3] unit, of fields that have them; 0 where nothing was seen
    extras: Tensor | None  # [R, E] composited
    levels: tuple[Level, ...]  # all of them, for losses; the last is the image's
    samples: Radiance | None  # the field's answers, flat [R S], that the last level was made from
    places: RaySamples | None  # where the field was evaluated


def render(
    field: VolumeField,
    rays: Rays,
    *,
    condition: Any = None,
    sampling: Sampling | None = None,
    proposals: Sequence[VolumeField] = (),
    background: Background = None,
    cones: Literal["cone", "cylinder"] | None = None,
    full_covariance: bool = False,
    occupancy: OccupancyGrid | None = None,
    rays_at_once: int | None = None,
    generator: torch.Generator | None = None,
) -> VolumeRendering:
    """Render rays through a volume.

    Args:
        field: the volume.
        rays: with radii if `cones`, with image if a condition has more than one row.
        condition: what the field's `condition(latents)` gave.
        sampling: see `Sampling`; 64 samples, then 128 by default.
        proposals: for each level but the last the volume that it evaluates; none: `field` itself, without a gradient
            unless its values are used (`merge`, `images`).
        background: colour [3] or [R, 3] behind the volume; None for black; "last": what the last sample's colour lacks.
        cones: evaluate Gaussians of frustums of cones or cylinders (`ops.frustum_gaussians`) instead of points.
        full_covariance: give their covariances as matrices, not diagonals.
        occupancy: the field is evaluated in occupied cells only and counts as empty elsewhere; one level of samples.
        rays_at_once: render so many rays at a time and, for their gradient, again: the memory of a graph is that of so
            many. `samples` and `places` are None then.
        generator: of the random numbers of stratified sampling.

    Returns:
        `VolumeRendering`. Differentiable in everything that the fields depend on, not in where samples are placed.
    """
    sampling = sampling or Sampling()
    if proposals and len(proposals) != len(sampling.counts) - 1:
        raise ValueError(
            f"render: proposals must be none or {len(sampling.counts) - 1}, one for each level but the last, "
            f"got {len(proposals)}"
        )
    if cones is not None and rays.radii is None:
        raise ValueError(f"render: cones are {cones!r}, so rays must have radii, got None")
    if occupancy is not None and (len(sampling.counts) != 1 or isinstance(background, str)):
        raise ValueError("render: with an occupancy grid sampling must have one level, and background a colour or None")
    if rays_at_once is not None and len(rays.origins) > rays_at_once:
        options = {
            "condition": condition,
            "sampling": sampling,
            "proposals": proposals,
            "cones": cones,
            "full_covariance": full_covariance,
            "occupancy": occupancy,
        }
        return _in_pieces(field, rays, background, rays_at_once, generator, options)
    own = not proposals
    caster = _Caster(rays, condition, sampling, cones, full_covariance)
    levels: list[Level] = []
    kept: list[tuple[Tensor, Radiance | None]] = []  # centres, and the field's own answers there
    for index, count in enumerate(sampling.counts[:-1]):
        centres = _centres(levels, rays, count, sampling, generator)
        spans = bins_around(centres, fill=not levels)
        places, edges = caster.places(spans, centres)
        evaluated = field if own else proposals[index]
        answer = None
        if sampling.images or (own and sampling.merge):
            answer = evaluated.radiance(places, condition)
            density = answer.density
        else:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not own):
                density = evaluated.density(places, condition)
        levels.append(_level(spans, edges, density, answer if sampling.images else None, background))
        kept.append((centres, answer))
    centres = _centres(levels, rays, sampling.counts[-1], sampling, generator)
    if sampling.merge and kept:
        return _merged(field, caster, centres, kept, own, levels, background)
    spans = bins_around(centres, fill=not levels)
    places, edges = caster.places(spans, centres)
    if occupancy is not None:
        return _occupied(field, condition, occupancy, spans, edges, places, background)
    return _finish(levels, spans, edges, field.radiance(places, condition), places, background)


def _in_pieces(
    field: VolumeField,
    rays: Rays,
    background: Background,
    rays_at_once: int,
    generator: torch.Generator | None,
    options: dict[str, Any],
) -> VolumeRendering:
    """`render` of a few rays at a time; each piece has random numbers of its own, so that it can be made again."""
    if rays_at_once < 1:
        raise ValueError(f"render: rays_at_once must be at least 1, got {rays_at_once}")
    if rays.image is None and options["condition"] is not None:
        raise ValueError("render: rays must have image when rays_at_once splits those of a condition")
    device = rays.origins.device
    pieces = torch.arange(len(rays.origins), device=device).split(rays_at_once)
    seeds = torch.randint(2**62, (len(pieces),), generator=generator, device=device).tolist()

    def some(rows: Tensor, seed: int) -> VolumeRendering:
        own = Rays(*(None if part is None else part[rows] for part in rays))  # type: ignore[arg-type]
        behind = background
        if isinstance(background, Tensor) and background.dim() == 2:
            behind = background[rows]
        random = torch.Generator(device).manual_seed(seed)
        made = render(field, own, background=behind, generator=random, **options)
        return made._replace(samples=None, places=None)

    if torch.is_grad_enabled():
        return _joined([checkpoint(some, *piece, use_reentrant=False) for piece in zip(pieces, seeds, strict=True)])
    return _joined([some(*piece) for piece in zip(pieces, seeds, strict=True)])


def _joined(parts: Sequence[Any]) -> Any:
    """Tensors, None, and tuples of these, one after the other."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    members = [_joined(column) for column in zip(*parts, strict=True)]
    return type(first)(*members) if hasattr(first, "_fields") else tuple(members)


def _occupied(
    field: VolumeField,
    condition: Any,
    occupancy: OccupancyGrid,
    spans: Tensor,
    edges: Tensor,
    places: RaySamples,
    background: Background,
) -> VolumeRendering:
    """One level; the field's answers, packed, at the places that are in occupied cells."""
    if places.image is None and condition is not None:
        raise ValueError("render: rays must have image when an occupancy grid leaves out places of a condition")
    shape = spans.shape[0], spans.shape[1] - 1
    inside = occupancy(places.points)
    chosen = inside.nonzero()[:, 0]
    own = RaySamples(*(None if part is None else part[chosen] for part in places))  # type: ignore[arg-type]
    answer = field.radiance(own, condition)
    counts = inside.view(shape).sum(1)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    middles = ((edges[:, 1:] + edges[:, :-1]) / 2).flatten()[chosen]
    seen, weights = composite_packed(answer, own, edges.diff(dim=1).flatten()[chosen], middles, offsets, background)
    weights = torch.zeros_like(inside, dtype=weights.dtype).index_put((chosen,), weights)
    return seen._replace(levels=(Level(spans, edges, weights.view(shape), seen.rgb),))


def composite_packed(
    answer: Radiance, places: RaySamples, deltas: Tensor, distances: Tensor, offsets: Tensor, background: Background
) -> tuple[VolumeRendering, Tensor]:
    """What R rays see of a field's answers at N places, one ray after the other, and the places' weights [N].

    `deltas` and `distances` [N] are the lengths and middles of the places' bins; ray r has those from `offsets` [R+1]
    [r] to [r + 1]. The background is a colour, [3] or [R, 3], or None. Differentiable in the answers.
    """
    rgb, depth, normals, extras, done = _composite(answer, answer.density, deltas, distances, offsets)
    rgb = _over(rgb, done.opacity, rgb, background)
    seen = VolumeRendering(rgb, done.opacity, _expected(depth, done.opacity), normals, extras, (), answer, places)
    return seen, done.weights


def _centres(
    levels: list[Level], rays: Rays, count: int, sampling: Sampling, generator: torch.Generator | None
) -> Tensor:
    if not levels:
        return first_centres(rays, count, sampling, generator)
    return finer_centres(levels[-1].spans, levels[-1].weights, count, sampling, generator)


class _Caster(NamedTuple):
    """Turns what is measured along rays into places."""

    rays: Rays
    condition: Any
    sampling: Sampling
    cones: Literal["cone", "cylinder"] | None
    full: bool

    def places(self, spans: Tensor, centres: Tensor) -> tuple[RaySamples, Tensor]:
        """The places of R rays' bins between spans [R, S+1], flat, and the bins' edges as distances."""
        rays = self.rays
        edges = distances(spans, rays, self.sampling.spacing)
        covariances = None
        if self.cones is None:
            t = distances(centres, rays, self.sampling.spacing)
            points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
        else:
            assert rays.radii is not None
            points, covariances = ops.frustum_gaussians(
                rays.origins, rays.directions, edges, rays.radii, cylinder=self.cones == "cylinder", full=self.full
            )
            covariances = covariances.flatten(0, 1)
        samples = centres.shape[1]
        directions = rays.directions[:, None].expand(-1, samples, 3).reshape(-1, 3)
        image = None if rays.image is None else rays.image.repeat_interleave(samples)
        return RaySamples(points.reshape(-1, 3), directions, covariances, image), edges


def _merged(
    field: VolumeField,
    caster: _Caster,
    centres: Tensor,
    kept: list[tuple[Tensor, Radiance | None]],
    own: bool,
    levels: list[Level],
    background: Background,
) -> VolumeRendering:
    """The last level with the places of the levels before: where the field itself was evaluated, it is not again."""
    centres_of_all = torch.cat([*(c for c, _ in kept), centres], 1)
    merged, order = centres_of_all.sort(dim=1, stable=True)
    spans = bins_around(merged)
    places, edges = caster.places(spans, merged)
    if not own or caster.cones is not None:
        return _finish(levels, spans, edges, field.radiance(places, caster.condition), places, background)
    new, _ = caster.places(bins_around(centres), centres)
    answers = [*(answer for _, answer in kept if answer is not None), field.radiance(new, caster.condition)]
    rays, width = order.shape

    def sorted_(parts: Sequence[Tensor | None]) -> Tensor | None:
        counts = [part.shape[1] for part, _ in kept] + [centres.shape[1]]
        found = [(part, count) for part, count in zip(parts, counts, strict=True) if part is not None]
        tensors = [part.reshape(rays, count, *part.shape[1:]) for part, count in found]
        if len(tensors) < len(parts):
            return None
        values = torch.cat(tensors, 1)
        index = order.view(rays, width, *[1] * (values.dim() - 2)).expand(values.shape)
        return values.gather(1, index).flatten(0, 1)

    density, rgb, *others = (sorted_(parts) for parts in zip(*answers, strict=True))
    assert density is not None and rgb is not None
    return _finish(levels, spans, edges, Radiance(density, rgb, *others), places, background)


def _level(spans: Tensor, edges: Tensor, density: Tensor, answer: Radiance | None, background: Background) -> Level:
    shape = spans.shape[0], spans.shape[1] - 1
    colors = None if answer is None else answer.rgb.reshape(*shape, 3)
    done = ops.composite(density.reshape(shape), edges.diff(dim=1), colors)
    rgb = None
    if colors is not None and done.colors is not None:
        rgb = _over(done.colors, done.opacity, colors, background)
    return Level(spans, edges, done.weights, rgb)


def _over(rgb: Tensor, opacity: Tensor, colors: Tensor, background: Background) -> Tensor:
    """The composited colour over what is behind."""
    if background is None:
        return rgb
    missing = 1 - opacity[:, None]
    if isinstance(background, str):
        return rgb + missing * colors[:, -1]
    return rgb + missing * torch.as_tensor(background, dtype=rgb.dtype, device=rgb.device)


def _finish(
    levels: list[Level], spans: Tensor, edges: Tensor, answer: Radiance, places: RaySamples, background: Background
) -> VolumeRendering:
    """Composite the last level."""
    shape = spans.shape[0], spans.shape[1] - 1
    middles = (edges[:, 1:] + edges[:, :-1]) / 2
    rgb, depth, normals, extras, done = _composite(answer, answer.density.reshape(shape), edges.diff(dim=1), middles)
    opacity = done.opacity
    rgb = _over(rgb, opacity, answer.rgb.reshape(*shape, 3), background)
    if isinstance(background, str):
        depth, opacity = depth + (1 - opacity) * middles[:, -1], torch.ones_like(opacity)
    level = Level(spans, edges, done.weights, rgb)
    return VolumeRendering(rgb, opacity, _expected(depth, opacity), normals, extras, (*levels, level), answer, places)


def _composite(
    answer: Radiance, density: Tensor, deltas: Tensor, middles: Tensor, offsets: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, ops.Composited]:
    """Colour, depth, unit normals and extras of rays, and the rest."""
    parts = [part for part in (answer.rgb, answer.normals, answer.extras) if part is not None]
    colors = torch.cat(parts, 1).to(density).view(*density.shape, sum(part.shape[1] for part in parts))
    done = ops.composite(density, deltas, colors, middles, offsets=offsets)
    assert done.colors is not None and done.depth is not None
    composited = iter(done.colors.split([part.shape[1] for part in parts], 1))
    rgb = next(composited)
    normals = None if answer.normals is None else torch.nn.functional.normalize(next(composited), dim=1)
    extras = None if answer.extras is None else next(composited)
    return rgb, done.depth, normals, extras, done


def _expected(depth: Tensor, opacity: Tensor) -> Tensor:
    """The mean distance of what was seen; infinite where nothing was."""
    return torch.where(opacity > 0, depth / torch.where(opacity > 0, opacity, 1), torch.inf)
