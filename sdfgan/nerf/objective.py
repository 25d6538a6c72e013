"""What learning a scene minimises: functions of a model and a batch of rays to a loss and numbers for the log.

All losses are means over rays, so that chunks of a batch may be averaged.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import ops
from sdfgan.fields.base import eikonal_loss
from sdfgan.fields.nerf import ProposalField, density_normals
from sdfgan.nerf.marching import render_packed, weighted_packed
from sdfgan.nerf.models import GridModel, NetworkModel, SceneModel, SurfaceModel
from sdfgan.raycast import render_rays
from sdfgan.volume import Rays, VolumeRendering

_COARSE_WEIGHT = {"nerf": 1.0, "mip-nerf": 0.1}  # of the loss on the coarse image
_PROPOSAL_NORMALS = 0.1  # weight of theirs among the normal losses
_ANYWHERE = 8  # samples for one point anywhere
_SEEN, _BESIDE = 0.02, 2  # least weight of samples at which curvature is measured, and of how many one is taken
_MARGIN = 1e-3  # of opacities from 0 and 1, where their entropy is infinite

Numbers = dict[str, Tensor]  # `mse`; `samples`, the places evaluated for each ray; and what a model has besides


class Batch(NamedTuple):
    """Rays to learn from."""

    rays: Rays
    colors: Tensor  # [R, 3] of the images, over the background
    background: Tensor  # [R, 3]
    view: Tensor  # [R] int64, which image each is of
    alpha: Tensor | None = None  # [R] of the images that have it


class Leaf(NamedTuple):
    """What a loss was made from."""

    unit: Tensor  # [N, 3] places, where a hash grid has them
    features: Tensor  # [N, F] of the hash grid


def scene_loss(
    model: SceneModel, batch: Batch, generator: torch.Generator, leaves: list[Leaf] | None = None
) -> tuple[Tensor, Numbers]:
    """The loss of a model, a scalar, and numbers; `generator` is of the batch's device, `leaves` as of `grid_loss`."""
    if isinstance(model, SurfaceModel):
        return surface_loss(model, batch, generator)
    if isinstance(model, GridModel):
        return grid_loss(model, batch, generator, leaves)
    assert isinstance(model, NetworkModel)
    return network_loss(model, batch, generator)


def grid_loss(
    model: GridModel, batch: Batch, generator: torch.Generator, leaves: list[Leaf] | None = None
) -> tuple[Tensor, Numbers]:
    """The squared error, and the entropy of opacities if that has a weight.

    With `leaves` the loss has no gradient by the hash grid's table, but by the features that are added to them: that of
    many chunks makes one table, which costs less than a table of each (`HashGrid.table_gradient`). On a CPU in full
    precision alone.
    """
    jitter = torch.rand(len(batch.colors), generator=generator, device=batch.colors.device)
    marched = model.occupancy.march(batch.rays, jitter, model.radiance, keep=True)
    if leaves is not None and len(marched.distances):
        assert marched.places.known is not None, "on a CPU in full precision"
        unit, encoded, _ = marched.places.known
        leaves.append(Leaf(unit, encoded.requires_grad_()))
    seen = render_packed(marched, model.radiance, batch.background)
    mse = (seen.rgb - batch.colors).square().mean()
    loss = mse
    if model.config.opacity_weight:
        loss = loss + model.config.opacity_weight * entropy(seen.opacity).mean()
    return loss, {"mse": mse.detach(), "samples": mse.new_full((), marched.evaluated / max(len(jitter), 1))}


def surface_loss(model: SurfaceModel, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Numbers]:
    """The absolute error (NeuS, eq. 14), and what makes the field a distance, smooth, and opaque where images are.

    What rays see is the volume around the surface or, in the last steps, the surface itself (`render_rays`).
    `eikonal` is that of the samples and of points anywhere in the cube: an eighth as many, or one for each traced ray.
    `curvature` is that of PermutoSDF (Rosu and Behnke 2023, arXiv:2211.12562, eq. 8): how far normals turn within a
    cell of the finest grid.
    """
    config = model.config
    jitter = torch.rand(len(batch.colors), generator=generator, device=batch.colors.device)
    rays, background, evaluated = batch.rays, batch.background, jitter.new_zeros(())
    if model.beyond is not None:
        rays, behind = model.split(rays)
        far_off = model.beyond.occupancy.march(behind, jitter, model.beyond.radiance, keep=True)
        background = render_packed(far_off, model.beyond.radiance, background).rgb
        evaluated = evaluated + far_off.evaluated
    seen = (_trace if model.traced else _march)(model, rays._replace(image=batch.view), jitter, background)
    error = seen.rgb - batch.colors
    loss, log = error.abs().mean(), {"mse": error.detach().square().mean()}
    log["samples"] = (evaluated + seen.evaluated) / max(len(jitter), 1)
    anywhere = 2 * torch.rand(seen.elsewhere, 3, generator=generator, device=jitter.device) - 1
    eikonal = eikonal_loss(torch.cat((seen.gradients, model.surface.sdf_and_gradient(anywhere)[1])))
    loss, log["eikonal"] = loss + config.eikonal_weight * eikonal, eikonal.detach()
    if config.curvature_weight:
        curvature = _curvature(model, seen.points, seen.gradients, seen.weights.detach(), generator)
        loss, log["curvature"] = loss + config.curvature_weight * curvature, curvature.detach()
    if config.mask_weight and batch.alpha is not None:
        mask = F.binary_cross_entropy(seen.opacity.clamp(_MARGIN, 1 - _MARGIN), batch.alpha)
        loss, log["mask"] = loss + config.mask_weight * mask, mask.detach()
    if config.opacity_weight:
        loss = loss + config.opacity_weight * entropy(seen.opacity).mean()
    return loss, log


class _Seen(NamedTuple):
    """What R rays see of a surface by N samples."""

    rgb: Tensor  # [R, 3]
    opacity: Tensor  # [R]
    points: Tensor  # [N, 3]
    gradients: Tensor  # [N, 3] of the distance
    weights: Tensor  # [N]
    evaluated: int | Tensor  # places evaluated, in all
    elsewhere: int  # how many other places should be distances, too


def _march(model: SurfaceModel, rays: Rays, jitter: Tensor, background: Tensor) -> _Seen:
    """Its volume."""
    marched = model.occupancy.march(rays, jitter, model.volume)
    seen, weights = weighted_packed(marched, model.volume, background)
    assert seen.samples is not None and seen.samples.extras is not None
    points = marched.places.points
    return _Seen(
        seen.rgb, seen.opacity, points, seen.samples.extras, weights, marched.evaluated, len(points) // _ANYWHERE
    )


def _trace(model: SurfaceModel, rays: Rays, jitter: Tensor, background: Tensor) -> _Seen:
    """The surface itself."""
    assert rays.image is not None
    given = model.photograph_rays(rays, rays.image)
    seen = render_rays(model.surface, given, background, condition=rays.origins)
    count = seen.counts[0] + len(seen.points)
    return _Seen(seen.rgb, seen.alpha, seen.points, seen.field.gradient, seen.weights, count, len(jitter))


def _curvature(
    model: SurfaceModel, points: Tensor, gradients: Tensor, weights: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean of 1 - cos of the angle between normals at samples that are seen, and beside them along the surface."""
    chance = torch.rand(len(weights), generator=generator, device=weights.device)
    chosen = ((weights > _SEEN) & (chance < 1 / _BESIDE)).nonzero()[:, 0]
    normals = F.normalize(gradients[chosen], dim=1)
    aside = torch.randn(len(chosen), 3, generator=generator, device=weights.device)
    tangents = F.normalize(torch.linalg.cross(normals.detach(), aside), dim=1)
    _, others = model.surface.sdf_and_gradient(points[chosen] + 2 / model.config.hash_finest * tangents)
    turned = 1 - (normals * F.normalize(others, dim=1)).sum(1)
    return turned.sum() / max(len(chosen), 1)


def network_loss(model: NetworkModel, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Numbers]:
    """The squared errors of all levels, or what holds proposals to them, and the terms of the model's paper."""
    config = model.config
    seen = model.render(batch.rays, batch.background, generator)
    mse = (seen.rgb - batch.colors).square().mean()
    loss, last = mse, seen.levels[-1]
    log = {"mse": mse.detach(), "samples": mse.new_full((), float(sum(model.sampling.counts)))}
    for level in seen.levels[:-1]:
        if level.rgb is not None:
            loss = loss + _COARSE_WEIGHT[model.kind] * (level.rgb - batch.colors).square().mean()
        else:
            covered = ops.interlevel_loss(last.spans, last.weights.detach(), level.spans, level.weights).mean()
            loss = loss + config.interlevel_weight * covered
            log["interlevel"] = covered.detach()
    if config.distortion_weight:
        distortion = ops.distortion_loss(last.spans, last.weights).mean()
        loss = loss + config.distortion_weight * distortion
        log["distortion"] = distortion.detach()
    if config.opacity_weight:
        loss = loss + config.opacity_weight * entropy(seen.opacity).mean()
    if model.kind == "ref-nerf":
        extra, numbers = normal_losses(model, seen)
        loss, log = loss + extra, log | numbers
    return loss, log


def normal_losses(model: NetworkModel, seen: VolumeRendering) -> tuple[Tensor, Numbers]:
    """Ref-NeRF, eqs. 11 and 12."""
    assert seen.samples is not None and seen.places is not None
    predicted, true = seen.samples.normals, seen.samples.extras
    assert predicted is not None and true is not None
    weights = seen.levels[-1].weights
    rays = max(len(weights), 1)
    weights = weights.reshape(-1)
    differ = (weights * (predicted - true).square().sum(1)).sum() / rays
    facing = (predicted * seen.places.directions).sum(1).clamp(min=0)
    away = (weights * facing.square()).sum() / rays
    log = {"normals": differ.detach(), "orientation": away.detach()}
    if model.config.prop_normal:
        assert isinstance(model.coarse, ProposalField)
        _, proposed = density_normals(model.coarse.density, seen.places, create_graph=True)
        apart = (weights.detach() * (predicted.detach() - proposed).square().sum(1)).sum() / rays
        differ = differ + _PROPOSAL_NORMALS * apart
    return model.config.normal_weight * differ + model.config.orientation_weight * away, log


def entropy(opacity: Tensor) -> Tensor:
    """Of rays that are stopped with this probability [R]: 0 for surely stopped and surely not."""
    p = opacity.clamp(1e-4, 1 - 1e-4)
    return -(p * p.log() + (1 - p) * (1 - p).log())
