"""What learning a scene minimises: functions of a model and a batch of rays to a loss and its log.

All losses are means over rays, so that chunks of a batch may be averaged.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.fields.base import eikonal_loss, map_tensors
from sdfgan.fields.nerf import ProposalField, density_normals
from sdfgan.fields.ref_nerf import RefNerfField
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.marching import render_packed, weighted_packed
from sdfgan.nerf.models import GridModel, NetworkModel, SceneModel, SurfaceModel
from sdfgan.ops.pixels import PixelSamples
from sdfgan.raycast import render_rays
from sdfgan.training.steps import Log
from sdfgan.volume import Rays, RaySamples, VolumeRendering

_COARSE_WEIGHT = {"nerf": 1.0, "mip-nerf": 0.1}  # of the loss on the coarse image
_PROPOSAL_NORMALS = 0.1  # weight of theirs among the normal losses
_NORMAL_WEIGHT = 3e-4  # of Ref-NeRF's authors
_ANYWHERE = 8  # samples for one point anywhere
_SEEN, _BESIDE = 0.02, 2  # least weight of samples at which curvature is measured, and of how many one is taken
_MEETS, _LEAST = 0.1, 1e-7  # sum of a ray's opacities that counts as something; least opacity of a sample with a log
_MARGIN = 1e-3  # of opacities from 0 and 1, where their entropy is infinite


class Batch(NamedTuple):
    """Rays to learn from."""

    rays: Rays
    colors: Tensor  # [R, 3] of the images, over the background; of the first R rays
    background: Tensor  # [R, 3]
    alpha: Tensor | None = None  # [R] of the images that have it
    view: Tensor | None = None  # [R] int64, which image each is of; for surfaces that are traced
    gain: Tensor | None = None  # [R, 3] factors of the images' exposures on what the scene sends

    def exposed(self, rgb: Tensor, opacity: Tensor) -> Tensor:
        """What the images show [R, 3] of the scene's colours [>= R, 3] over the background, seen at an opacity."""
        count = len(self.colors)
        rgb = first(rgb, count)
        if self.gain is None:
            return rgb
        behind = (1 - first(opacity, count))[:, None] * first(self.background, count)  # is as it is
        return self.gain * (rgb - behind) + behind


class Leaf(NamedTuple):
    """What a loss was made from."""

    unit: Tensor  # [N, 3] places, where a hash grid has them
    features: Tensor  # [N, F] of the hash grid


def scene_loss(
    model: SceneModel, batch: Batch, random: torch.Generator, leaves: list[Leaf] | None = None
) -> tuple[Tensor, Log]:
    """The loss of a model, a scalar, and its log: `mse`; `samples`, the places evaluated for each ray; and what
    a model has besides.

    `random` is on the batch's device; `leaves` are those of `grid_loss`.

    With `ray_entropy`, which is of volumes, more rays follow the batch's own: they enter all losses but those on
    colours and masks.
    """
    if model.config.ray_entropy_weight and not (isinstance(model, SurfaceModel) and model.traced):
        batch = with_unseen(model, batch, random)
    if isinstance(model, SurfaceModel):
        return surface_loss(model, batch, random)
    if isinstance(model, GridModel):
        return grid_loss(model, batch, random, leaves)
    assert isinstance(model, NetworkModel)
    return network_loss(model, batch, random)


def grid_loss(
    model: GridModel, batch: Batch, random: torch.Generator, leaves: list[Leaf] | None = None
) -> tuple[Tensor, Log]:
    """The squared error, and the losses on opacities that have a weight.

    With `leaves` the loss has no gradient by the hash grid's table, but by the features that are added to them: that of
    many chunks makes one table, which costs less than a table of each (`HashGrid.table_gradient`). On a CPU in full
    precision alone.
    """
    jitter = torch.rand(len(batch.background), generator=random, device=batch.colors.device)
    marched = model.occupancy.march(batch.rays, jitter, model.radiance, keep=True)
    if leaves is not None and len(marched.distances):
        assert marched.places.known is not None, "on a CPU in full precision"
        unit, encoded, _ = marched.places.known
        leaves.append(Leaf(unit, encoded.requires_grad_()))
    seen = render_packed(marched, model.radiance, batch.background)
    count = len(batch.colors)
    mse = (batch.exposed(seen.rgb, seen.opacity) - batch.colors).square().mean()
    log = {"mse": mse.detach(), "samples": mse.new_full((), marched.evaluated / max(count, 1))}
    return add_opacity_losses(mse, log, model.config, seen, marched.deltas, marched.offsets), log


def surface_loss(model: SurfaceModel, batch: Batch, random: torch.Generator) -> tuple[Tensor, Log]:
    """The absolute error (NeuS, eq. 14), and what makes the field a distance, smooth, and opaque where images are.

    What rays see is the volume around the surface or, in the last steps, the surface itself (`render_rays`).
    `eikonal` is that of the samples and of points anywhere in the cube: an eighth as many, or one for each traced ray.
    `curvature` is that of PermutoSDF (Rosu and Behnke 2023, arXiv:2211.12562, eq. 8): how far normals turn within a
    cell of the finest grid.
    """
    config = model.config
    jitter = torch.rand(len(batch.background), generator=random, device=batch.colors.device)
    rays, background, evaluated = batch.rays, batch.background, jitter.new_zeros(())
    if model.beyond is not None:
        rays, behind = model.split(rays)
        far_off = model.beyond.occupancy.march(behind, jitter, model.beyond.radiance, keep=True)
        background = render_packed(far_off, model.beyond.radiance, background).rgb
        evaluated = evaluated + far_off.evaluated
    rays = rays if batch.view is None else rays._replace(image=batch.view)
    seen = (_trace if model.traced else _march)(model, rays, jitter, background)
    count = len(batch.colors)
    error = batch.exposed(seen.rgb, seen.opacity) - batch.colors
    loss, log = error.abs().mean(), {"mse": error.detach().square().mean()}
    log["samples"] = (evaluated + seen.evaluated) / max(count, 1)
    anywhere = 2 * torch.rand(seen.elsewhere, 3, generator=random, device=jitter.device) - 1
    eikonal = eikonal_loss(torch.cat((seen.gradients, model.surface.sdf_and_gradient(anywhere)[1])))
    loss, log["eikonal"] = loss + config.eikonal_weight * eikonal, eikonal.detach()
    if config.curvature_weight:
        curvature = _curvature(model, seen.points, seen.gradients, seen.weights.detach(), random)
        loss, log["curvature"] = loss + config.curvature_weight * curvature, curvature.detach()
    if config.mask_weight and batch.alpha is not None:
        mask = F.binary_cross_entropy(first(seen.opacity, count).clamp(_MARGIN, 1 - _MARGIN), batch.alpha)
        loss, log["mask"] = loss + config.mask_weight * mask, mask.detach()
    if seen.volume is not None:
        return add_opacity_losses(loss, log, config, *seen.volume), log
    return loss + config.opacity_weight * entropy(seen.opacity).mean() if config.opacity_weight else loss, log


class _Seen(NamedTuple):
    """What R rays see of a surface by N samples."""

    rgb: Tensor  # [R, 3]
    opacity: Tensor  # [R]
    points: Tensor  # [N, 3]
    gradients: Tensor  # [N, 3] of the distance
    weights: Tensor  # [N]
    evaluated: int | Tensor  # places evaluated, in all
    elsewhere: int  # how many other places should be distances, too
    volume: tuple[VolumeRendering, Tensor, Tensor] | None = None  # with the samples' deltas and rays' offsets


def _march(model: SurfaceModel, rays: Rays, jitter: Tensor, background: Tensor) -> _Seen:
    """Its volume."""
    marched = model.occupancy.march(rays, jitter, model.volume)
    seen, weights = weighted_packed(marched, model.volume, background)
    assert seen.samples is not None and seen.samples.extras is not None
    points = marched.places.points.detach()  # no camera moves to where normals turn less
    return _Seen(
        seen.rgb, seen.opacity, points, seen.samples.extras, weights, marched.evaluated, len(points) // _ANYWHERE,
        (seen, marched.deltas, marched.offsets),
    )  # fmt: skip


def _trace(model: SurfaceModel, rays: Rays, jitter: Tensor, background: Tensor) -> _Seen:
    """The surface itself."""
    assert rays.image is not None
    given = model.photograph_rays(rays, rays.image)
    seen = render_rays(model.surface, given, background, condition=rays.origins)
    count = seen.counts[0] + len(seen.points)
    return _Seen(seen.rgb, seen.alpha, seen.points, seen.field.gradient, seen.weights, count, len(jitter))


def _curvature(
    model: SurfaceModel, points: Tensor, gradients: Tensor, weights: Tensor, random: torch.Generator
) -> Tensor:
    """Mean of 1 - cos of the angle between normals at samples that are seen, and beside them along the surface."""
    chance = torch.rand(len(weights), generator=random, device=weights.device)
    chosen = ((weights > _SEEN) & (chance < 1 / _BESIDE)).nonzero()[:, 0]
    normals = F.normalize(gradients[chosen], dim=1)
    aside = torch.randn(len(chosen), 3, generator=random, device=weights.device)
    tangents = F.normalize(torch.linalg.cross(normals.detach(), aside), dim=1)
    _, others = model.surface.sdf_and_gradient(points[chosen] + 2 / model.config.hash_finest * tangents)
    turned = 1 - (normals * F.normalize(others, dim=1)).sum(1)
    return turned.sum() / max(len(chosen), 1)


def network_loss(model: NetworkModel, batch: Batch, random: torch.Generator) -> tuple[Tensor, Log]:
    """The squared errors of all levels, or what holds proposals to them, and the terms of the model's paper.

    Rays that pass no visual hull are background: nothing is learnt from them.
    """
    if model.occupancy is not None:
        rays, met = model.met(batch.rays)
        colored = met[met < len(batch.colors)]
        if len(colored) == 0:  # the hull is not met: the first ray as it is, so that there is a loss
            rays, met = map_tensors(lambda part: part[:1], batch.rays), met.new_zeros(1)
            colored = met
        errors = (batch.background[: len(batch.colors)] - batch.colors).square().mean(1).index_fill(0, colored, 0)
        share = len(colored) / len(batch.colors)
        gain = None if batch.gain is None else batch.gain[colored]
        hit = Batch(rays, batch.colors[colored], batch.background[met], gain=gain)
        loss, log = _network_loss(model, hit, random)
        log = {name: share * value for name, value in log.items()}
        return share * loss, log | {"mse": log["mse"] + errors.mean()}
    return _network_loss(model, batch, random)


def _network_loss(model: NetworkModel, batch: Batch, random: torch.Generator) -> tuple[Tensor, Log]:
    """`network_loss` of rays that are evaluated."""
    config = model.config
    seen = model.render(batch.rays, batch.background, random)
    mse = (batch.exposed(seen.rgb, seen.opacity) - batch.colors).square().mean()
    loss, last = mse, seen.levels[-1]
    log = {"mse": mse.detach(), "samples": mse.new_full((), float(sum(model.sampling.counts)))}
    for level in seen.levels[:-1]:
        if level.rgb is not None:
            error = batch.exposed(level.rgb, level.weights.sum(1)) - batch.colors
            loss = loss + _COARSE_WEIGHT[model.kind] * error.square().mean()
        else:
            covered = ops.interlevel_loss(last.spans, last.weights.detach(), level.spans, level.weights).mean()
            loss = loss + config.interlevel_weight * covered
            log["interlevel"] = covered.detach()
    if config.distortion_weight:
        distortion = ops.distortion_loss(last.spans, last.weights).mean()
        loss = loss + config.distortion_weight * distortion
        log["distortion"] = distortion.detach()
    rays, samples = last.weights.shape
    offsets = torch.arange(0, rays * samples + 1, samples, device=last.weights.device)
    loss = add_opacity_losses(loss, log, config, seen, last.edges.diff(dim=1).flatten(), offsets)
    if model.kind == "ref-nerf":
        extra, numbers = normal_losses(model, seen)
        loss, log = loss + extra, log | numbers
    return loss, log


def normal_losses(model: NetworkModel, seen: VolumeRendering) -> tuple[Tensor, Log]:
    """Ref-NeRF, eqs. 11 and 12; that of normals of the density, which are dear, on the first `normal_share` of rays.

    Those of images come first and are in no order, so that the expected gradient is that of all of them. Two things
    differ from the paper, for a few thousand steps. The density is that of Gaussians wider by `normal_deviation`: its
    own gradient is noise until it has learnt fine detail. And predicted normals learn by `predicted_normal_weight`
    more than the density, whose weights fall if they learn by as much: there is fog then, not a surface.
    """
    assert seen.samples is not None and seen.places is not None and isinstance(model.network, RefNerfField)
    weights, predicted = seen.levels[-1].weights, seen.samples.normals
    assert predicted is not None
    config, (rays, count) = model.config, weights.shape
    facing = (predicted * seen.places.directions).sum(1).clamp(min=0)
    away = (weights.flatten() * facing.square()).sum() / max(rays, 1)
    some = math.ceil(config.normal_share * rays)
    places = map_tensors(lambda part: part[: some * count], seen.places)
    weights, predicted = weights[:some].flatten(), predicted[: some * count]

    def differ(true: Tensor, weights: Tensor, predicted: Tensor) -> Tensor:
        return (weights * (predicted - true).square().sum(1)).sum() / max(some, 1)

    places = widened(places, config.normal_deviation)
    _, true = density_normals(model.network.density, places, create_graph=config.normal_weight > 0)
    apart = differ(true, weights, predicted)
    log = {"normals": apart.detach(), "orientation": away.detach()}
    loss = config.normal_weight * apart + config.orientation_weight * away
    if config.predicted_normal_weight:
        loss = loss + config.predicted_normal_weight * differ(true.detach(), weights.detach(), predicted)
    if config.prop_normal:
        assert isinstance(model.coarse, ProposalField)
        _, proposed = density_normals(model.coarse.density, places, create_graph=True)
        apart = differ(proposed, weights.detach(), predicted.detach())
        loss = loss + _PROPOSAL_NORMALS * (config.normal_weight or _NORMAL_WEIGHT) * apart
    return loss, log


def widened(places: RaySamples, deviation: float) -> RaySamples:
    """The places' Gaussians with so much larger variances along all axes; points stay points."""
    wider = places.covariances
    if wider is None or deviation == 0:
        return places
    variance = deviation**2 * (torch.eye(3).to(wider) if wider.dim() == 3 else 1)
    return places._replace(covariances=wider + variance)


def add_opacity_losses(
    loss: Tensor, log: Log, config: ResolvedNerfConfig, seen: VolumeRendering, deltas: Tensor, offsets: Tensor
) -> Tensor:
    """The loss with those on opacities, of rays and of samples, that have a weight; samples are as in `ray_entropy`."""
    if config.opacity_weight:
        loss = loss + config.opacity_weight * entropy(seen.opacity).mean()
    if config.ray_entropy_weight:
        assert seen.samples is not None
        spread = ray_entropy(seen.samples.density, deltas, offsets).mean()
        loss, log["ray_entropy"] = loss + config.ray_entropy_weight * spread, spread.detach()
    return loss


def first(values: Tensor, count: int) -> Tensor:
    """The first of the values [N, ...]; without an operation where these are all."""
    return values if len(values) == count else values[:count]


def entropy(opacity: Tensor) -> Tensor:
    """Of rays that are stopped with this probability [R]: 0 for surely stopped and surely not."""
    p = opacity.clamp(1e-4, 1 - 1e-4)
    return -(p * p.log() + (1 - p) * (1 - p).log())


def ray_entropy(density: Tensor, deltas: Tensor, offsets: Tensor) -> Tensor:
    """How spread out what each of R rays meets is [R] (InfoNeRF, Kim et al. 2022, arXiv:2112.15399, eqs. 5 to 8).

    The entropy of a_i / sum a, a_i = 1 - exp(-density_i delta_i), of the samples [N] from offsets [R+1] [r] to [r + 1];
    0 for rays with sum a of at most 0.1, which meet nothing. Differentiable.
    """
    a = 1 - (-density * deltas).exp()
    counts = offsets.diff()
    ray = torch.repeat_interleave(torch.arange(len(counts), device=a.device), counts, output_size=len(a))
    nothing = a.new_zeros(len(counts))
    total, logs = (nothing.index_add(0, ray, part) for part in (a, a * a.clamp(min=_LEAST).log()))
    meets = total > _MEETS
    total = torch.where(meets, total, 1)
    return torch.where(meets, total.log() - logs / total, 0)


def with_unseen(model: SceneModel, batch: Batch, random: torch.Generator) -> Batch:
    """A batch with half as many rays more, without colours, as no camera has them (InfoNeRF, sec. 3.3).

    Each begins between two of the batch's origins and passes where one of their rays is nearest to the scene's centre.
    """
    rays: Rays = map_tensors(lambda part: part[::2].detach(), batch.rays)
    others = rays.origins.roll(1, 0)
    share = torch.rand(len(others), 1, generator=random, device=others.device)
    towards = F.normalize(torch.lerp(rays.origins, others, share), dim=1)
    origins = towards * torch.lerp(rays.origins.norm(dim=1), others.norm(dim=1), share[:, 0])[:, None]
    along = -(rays.origins * rays.directions).sum(1, keepdim=True)
    directions = F.normalize(rays.origins + along.clamp(min=_MARGIN) * rays.directions - origins, dim=1)
    assert rays.radii is not None
    unseen = model.rays(PixelSamples(origins, directions, rays.radii, None))
    pairs = zip(batch.rays, unseen, strict=True)
    together: list[Any] = [None if a is None or b is None else torch.cat((a, b)) for a, b in pairs]
    background = torch.cat((batch.background, batch.background[::2]))
    return batch._replace(rays=Rays(*together), background=background)
