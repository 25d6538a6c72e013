"""What learning a mesh minimises: a function of a field and a batch of samples to a loss.

Losses are means over samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sdfgan.fields.base import eikonal_loss
from sdfgan.fields.coordinate import CoordinateSDF
from sdfgan.sdf.config import ResolvedSdfConfig
from sdfgan.sdf.sampling import Samples

_NORMAL_BAND = 0.05  # distance from the surface within which normals are compared


def distance_loss(field: CoordinateSDF, samples: Samples, config: ResolvedSdfConfig) -> Tensor:
    """The loss of a field at samples, a scalar.

    Distances are compared in the range of the target scaler; gradients are those of the true distance. l1 and l2 are
    means of |d| and d^2 (clamped: l1 with both sides cut at `clamp`, Park et al. 2019), weighted by the inverse
    density of the samples if `weighted`, and by 1 / (|distance| + focus), divided by its mean, if that is not 0;
    eikonal is (|gradient| - 1)^2 (Gropp et al. 2020), normal 1 - cosine.
    """
    points, distances, weights, _ = samples
    scaler = field.target_scaler
    if config.loss == "clamped":
        distances = distances.clamp(-config.clamp, config.clamp)
    target = distances if scaler is None else scaler(distances[:, None])[:, 0]
    with torch.autocast(points.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        raw = field.raw(points).float()
    if config.loss == "clamped":
        ends = points.new_tensor([[-config.clamp], [config.clamp]])
        low, high = ends[:, 0] if scaler is None else scaler(ends)[:, 0]
        raw = raw.maximum(low).minimum(high)
    difference = raw - target
    error = difference.square() if config.loss == "l2" else difference.abs()
    if config.focus:  # a distance that is as far off as it is large shows as a hole; far away that is nothing
        near = 1 / (distances.abs() + config.focus)
        error = error * near / near.mean()
    loss = (weights * error).mean() if config.weighted else error.mean()
    if config.eikonal_weight or config.normal_weight:
        loss = loss + _gradient_loss(field, samples._replace(distances=distances), config)
    return loss


def _gradient_loss(field: CoordinateSDF, samples: Samples, config: ResolvedSdfConfig) -> Tensor:
    _, gradient = field.sdf_and_gradient(samples.points)
    loss = config.eikonal_weight * eikonal_loss(gradient)
    if config.normal_weight:
        length = gradient.norm(dim=1)
        near = (samples.distances.abs() < _NORMAL_BAND).to(length.dtype)
        cosine = (gradient * samples.normals).sum(1) / length.clamp(min=1e-6)
        loss = loss + config.normal_weight * (near * (1 - cosine)).sum() / near.sum().clamp(min=1)
    return loss


class DistanceLoss(nn.Module):
    """`distance_loss` of a field as a module, whose parameters `torch.func` replaces by those of many fields."""

    def __init__(self, field: CoordinateSDF, config: ResolvedSdfConfig) -> None:
        super().__init__()
        self.field, self.config = field, config

    def forward(self, *samples: Tensor) -> Tensor:
        """A scalar; arguments as of `Samples`."""
        return distance_loss(self.field, Samples(*samples), self.config)
