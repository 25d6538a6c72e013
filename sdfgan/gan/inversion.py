"""Finding the shape and the camera that a generator would have made an image from.

Candidates are drawn from the generator's own distribution and the best of them optimised together: first their latents
and cameras, then, of the best, the FiLM codes, which can leave the range of the mapping network and are held near it.
The camera's two angles follow central differences of the loss, which any renderer has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sdfgan import conditions
from sdfgan.cameras import PoseDistribution, rotate_axes
from sdfgan.fields import Field
from sdfgan.gan import drawing, truncation
from sdfgan.gan.config import ResolvedGanConfig

_ANGLE_STEP = math.radians(2.0)  # of the differences
_STRAY_WEIGHT = 0.01  # holds FiLM codes near where they started
_AT_ONCE = 64  # candidates

Features = Callable[[Tensor], Tensor]  # [B, 3, R, R] -> [B, ...]


@dataclass(frozen=True)
class Effort:
    """How hard to try."""

    candidates: int = 512
    starts: int = 8
    latent_steps: int = 80
    code_steps: int = 120
    latent_rate: float = 0.05
    code_rate: float = 0.02
    angle_rate: float = 0.03  # radians
    mask_weight: float = 1.0
    perceptual_weight: float = 0.0


@dataclass(frozen=True)
class Inverted:
    """What was found."""

    condition: Any  # one row
    latent: Tensor  # [1, L] that the codes started from
    elevation: float  # radians
    azimuth: float
    loss: float
    silhouette_iou: float | None  # None for a generator of images without a silhouette (channels 3)
    image: Tensor  # [4, R, R] premultiplied
    history: list[tuple[Any, float, float]]  # condition, elevation and azimuth as they went


def invert(
    generator: Field,
    config: ResolvedGanConfig,
    target: Tensor,
    poses: PoseDistribution,
    effort: Effort | None = None,
    *,
    features: Features | None = None,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> Inverted:
    """The shape and camera of an image [4, R, R], premultiplied on black, R being the resolution worked at.

    Where the configuration has 3 channels, colours alone are compared, over the whole image.

    Args:
        poses: where candidates' cameras are; the optimised one may leave it.
        features: of `perceptual_weight`.
        on_progress: called with the best loss after each step (latent_steps + code_steps times).
    """
    effort = effort or Effort()
    config = dataclasses.replace(config, resolution=target.shape[-1], stages=())
    device = next(generator.parameters()).device
    loss_of = _TargetLoss(generator, config, target.to(device), effort, features)
    random = torch.Generator().manual_seed(seed)
    latents, angles = _candidates(loss_of, poses, random, device)
    history: list[tuple[Any, float, float]] = []

    def note(condition: Any, angles: Tensor, losses: Tensor) -> None:
        best = int(losses.argmin())
        row = conditions.rows(condition, slice(best, best + 1))
        history.append((row.detach(), *angles[best].tolist()))
        if on_progress is not None:
            on_progress(losses[best].item())

    # Latents of all starts at once, held to their distribution by their length alone.
    latents = latents.clone().requires_grad_()
    optimizer = _Optimizer([latents], effort.latent_rate, angles, effort.angle_rate, effort.latent_steps)
    limit = 1.1 * config.latent_std * math.sqrt(generator.latent_size)
    kept = _Kept()
    for _ in range(effort.latent_steps):
        condition = generator.condition(latents)
        losses = loss_of(condition, optimizer.angles)
        kept.offer(losses, latents, optimizer.angles)
        note(condition, optimizer.angles, losses)
        optimizer.step(losses, loss_of.angle_gradient(condition, optimizer.angles))
        with torch.no_grad():
            latents *= (limit / latents.norm(dim=1, keepdim=True)).clamp(max=1)
    with torch.no_grad():
        kept.offer(loss_of(generator.condition(latents), optimizer.angles), latents, optimizer.angles)

    # FiLM codes of the best one.
    best = int(kept.losses.argmin())
    latent, angles = kept.values[best : best + 1].clone(), kept.angles[best : best + 1].clone()
    with torch.no_grad():
        start = generator.condition(latent)
        mean = truncation.mean_condition(generator, config)
    scales = {name: tensor.std().clamp(min=1e-3) for name, tensor in conditions.tensors_of(mean).items()}
    offsets = {name: torch.zeros_like(tensor).requires_grad_() for name, tensor in conditions.tensors_of(start).items()}
    optimizer = _Optimizer(list(offsets.values()), effort.code_rate, angles, effort.angle_rate / 3, effort.code_steps)

    def moved() -> Any:
        tensors = conditions.tensors_of(start)
        return conditions.with_tensors(start, {n: t + scales[n] * offsets[n] for n, t in tensors.items()})

    kept = _Kept()
    for _ in range(effort.code_steps):
        condition = moved()
        losses = loss_of(condition, optimizer.angles)
        flat = torch.cat([offset.flatten(1) for offset in offsets.values()], 1)
        kept.offer(losses, flat, optimizer.angles)
        note(condition, optimizer.angles, losses)
        stray = sum(offset.square().mean() for offset in offsets.values())
        optimizer.step(losses + _STRAY_WEIGHT * stray, loss_of.angle_gradient(condition, optimizer.angles))
    with torch.no_grad():
        losses = loss_of(moved(), optimizer.angles)
        kept.offer(losses, torch.cat([offset.flatten(1) for offset in offsets.values()], 1), optimizer.angles)
        parts = kept.values.split([offset[0].numel() for offset in offsets.values()], 1)
        for offset, part in zip(offsets.values(), parts, strict=True):
            offset.copy_(part.view_as(offset))
        condition = moved()
        made = loss_of.draw(condition, kept.angles)
    elevation, azimuth = kept.angles[0].tolist()
    return Inverted(
        condition=condition,
        latent=latent,
        elevation=elevation,
        azimuth=azimuth,
        loss=kept.losses[0].item(),
        silhouette_iou=silhouette_iou(made[0, 3], target.to(device)[3]) if config.channels == 4 else None,
        image=made[0].cpu(),
        history=history,
    )


def silhouette_iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two alphas [R, R], counted as seen above 1/2; 1 for two empty ones."""
    a, b = a > 0.5, b > 0.5
    union = (a | b).sum()
    return 1.0 if union == 0 else ((a & b).sum() / union).item()


class _TargetLoss:
    """The loss of shapes and cameras against the target."""

    def __init__(
        self, generator: Field, config: ResolvedGanConfig, target: Tensor, effort: Effort, features: Features | None
    ) -> None:
        self.generator, self.config, self.target, self.effort = generator, config, target, effort
        self.mask_weight = effort.mask_weight if config.channels == 4 else 0.0
        self.features = features if effort.perceptual_weight > 0 else None
        self.wanted = None if self.features is None else self.features(target[None, :3])

    def draw(self, condition: Any, angles: Tensor) -> Tensor:
        """Images [B, 4, R, R] of a condition from angles [B, 2]."""
        axes = rotate_axes((angles[:, 0], angles[:, 1]))
        return drawing.draw(self.generator, condition, axes, self.config).channels(4)

    def __call__(self, condition: Any, angles: Tensor) -> Tensor:
        """Losses [B]: squared differences of colour and of coverage, also of images a quarter the size."""
        made = self.draw(condition, angles)
        losses = torch.zeros(len(made), device=made.device)
        for factor in (1, 4):
            difference = (F.avg_pool2d(made - self.target, factor)).square().mean((2, 3))
            losses = losses + difference[:, :3].sum(1) + self.mask_weight * difference[:, 3]
        if self.features is not None:
            features = self.features(made[:, :3])
            assert self.wanted is not None
            strayed = (features - self.wanted).square().flatten(1).mean(1)
            losses = losses + self.effort.perceptual_weight * strayed
        return losses

    @torch.no_grad()
    def angle_gradient(self, condition: Any, angles: Tensor) -> Tensor:
        """Derivatives [B, 2] of the losses by the angles."""
        condition = condition.detach()
        gradient = torch.zeros_like(angles)
        for index in (0, 1):
            step = torch.zeros_like(angles)
            step[:, index] = _ANGLE_STEP
            gradient[:, index] = self(condition, angles + step) - self(condition, angles - step)
        return gradient / (2 * _ANGLE_STEP)


class _Optimizer:
    """Adam on values, and on angles [B, 2] whose gradient is given; both rates fall to a tenth, as a cosine."""

    def __init__(self, values: list[Tensor], rate: float, angles: Tensor, angle_rate: float, steps: int) -> None:
        self.angles = angles.clone().requires_grad_()
        groups = [{"params": values, "lr": rate}, {"params": [self.angles], "lr": angle_rate}]
        self._adam = torch.optim.Adam(groups)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda step: 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, step / max(steps, 1))))
        )

    def step(self, losses: Tensor, angle_gradient: Tensor) -> None:
        values = self._adam.param_groups[0]["params"]
        for value, gradient in zip(values, torch.autograd.grad(losses.sum(), values, allow_unused=True), strict=True):
            value.grad = gradient
        self.angles.grad = angle_gradient
        self._adam.step()
        self._schedule.step()
        with torch.no_grad():
            self.angles[:, 0].clamp_(-math.pi / 2 + 1e-3, math.pi / 2 - 1e-3)


class _Kept:
    """The best that each row has been."""

    def __init__(self) -> None:
        self.losses, self.values, self.angles = torch.empty(0), torch.empty(0), torch.empty(0)

    @torch.no_grad()
    def offer(self, losses: Tensor, values: Tensor, angles: Tensor) -> None:
        """Take what is better than before; what is no number never is."""
        losses = losses.masked_fill(losses.isnan(), math.inf)
        if len(self.losses) == 0:
            self.losses, self.values, self.angles = losses.clone(), values.clone(), angles.clone()
            return
        better = losses < self.losses
        self.losses = torch.where(better, losses, self.losses)
        self.values = torch.where(better[:, None], values, self.values)
        self.angles = torch.where(better[:, None], angles, self.angles)


@torch.no_grad()
def _candidates(
    loss_of: _TargetLoss, poses: PoseDistribution, random: torch.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The best of random latents [S, L] and angles [S, 2]."""
    effort, generator = loss_of.effort, loss_of.generator
    count = max(effort.candidates, effort.starts)
    latents = loss_of.config.latent_std * torch.randn(count, generator.latent_size, generator=random)
    angles = torch.stack(poses.sample(count, random), 1)
    latents, angles = latents.to(device), angles.to(device)
    losses = [
        loss_of(generator.condition(some), where)
        for some, where in zip(latents.split(_AT_ONCE), angles.split(_AT_ONCE), strict=True)
    ]
    best = torch.cat(losses).topk(effort.starts, largest=False).indices
    return latents[best], angles[best]
