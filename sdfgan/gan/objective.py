"""What both networks of a GAN minimise: functions of networks and a chunk of a batch to a loss and its log.

All losses are means over images or points, so that chunks of a batch may be averaged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sdfgan.fields import Field, eikonal_loss
from sdfgan.gan import augment, drawing
from sdfgan.gan.batches import Fake, View
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.discriminators import Discriminator, Verdict, logits_of
from sdfgan.gan.losses import (
    ADVERSARIAL_LOSSES,
    back_face_loss,
    gradient_penalty,
    minimal_surface_loss,
    r1_penalty,
)
from sdfgan.raycast import Room
from sdfgan.training.device import autocast
from sdfgan.training.steps import Log


@dataclass(frozen=True)
class Objective:
    """The losses in force at a step."""

    config: ResolvedGanConfig  # in force there
    fade: float = 1.0  # how much of the resolution that came last is there
    noise: float = 0.0  # standard deviation on all images
    blur: float = 0.0  # of all images, pixels
    eikonal_weight: float = 0.0
    r1_weight: float = 0.0  # 0 in steps without it

    @classmethod
    def at(cls, run: ResolvedGanConfig, step: int) -> Objective:
        """That of a run's configuration at a step."""
        config = run.at(step)
        since = step - run.stage_start(step)
        grown = step > since  # the first resolution has nothing to fade in from
        final = config.eikonal_weight if config.eikonal_final is None else config.eikonal_final
        return cls(
            config,
            fade=min(1.0, (since + 1) / config.fade_steps) if grown and config.fade_steps else 1.0,
            noise=augment.fading(config.instance_noise, config.instance_noise_steps, step),
            blur=augment.fading(config.blur, config.blur_steps, step),
            eikonal_weight=config.eikonal_weight + (final - config.eikonal_weight) * min(1.0, step / config.steps),
            r1_weight=0.0 if step % config.r1_interval else r1_weight(config, step),
        )

    # --------------------------------------------------------------------------------------------------- the images

    def render(self, generator: Field, chunks: Sequence[Fake], room: Room | None = None) -> list[Fake]:
        """The same with their images, all rendered at once, and the field's gradients and distances."""
        latents, axes, free, lights = (torch.cat(parts) for parts in zip(*(chunk[:4] for chunk in chunks), strict=True))
        condition = generator.condition(latents)
        made = drawing.draw(generator, condition, axes, self.config, lights, chunks[0].seed, room).split(len(chunks))
        if not torch.is_grad_enabled() or not free.numel():
            return [chunk._replace(made=one, gradients=one.gradients) for chunk, one in zip(chunks, made, strict=True)]
        image = torch.arange(len(free), device=free.device).repeat_interleave(free.shape[1])
        there = generator.sdf_and_gradient(free.flatten(0, 1), condition, image)
        of_chunks = (values.chunk(len(chunks)) for values in there)
        return [
            chunk._replace(made=one, gradients=torch.cat([one.gradients, gradients]), distances=distances)
            for chunk, one, distances, gradients in zip(chunks, made, *of_chunks, strict=True)
        ]

    def see(self, images: Tensor, view: View) -> Tensor:
        """Images as the discriminator sees them."""
        if view.augmentation is not None:
            images = augment.apply(images, view.augmentation)
        if self.blur > 0:
            images = augment.blur(images, self.blur)
        if view.noise_seeds is not None:
            images = augment.instance_noise(images, self.noise, view.noise_seeds)
        return images

    def verdict(self, discriminator: Discriminator, images: Tensor, sets: int = 1) -> Verdict:
        """The discriminator's verdict on so many sets of images, in its own arithmetic."""
        with autocast(images.device, self.config.precision):
            verdict = discriminator(images, self.fade, sets)
        return Verdict(*(part.float() for part in verdict))

    # --------------------------------------------------------------------------------------------------- the losses

    def discriminator_loss(
        self,
        discriminator: Discriminator,
        fakes: Tensor,
        reals: Tensor,
        latents: Tensor,
        axes: Tensor,
        share: Tensor | None = None,
    ) -> tuple[Tensor, Log]:
        """The discriminator's, for images as it sees them; `share` [b] is of the gradient penalty."""
        config, loss = self.config, ADVERSARIAL_LOSSES[self.config.gan_loss]
        both = self.verdict(discriminator, torch.cat([fakes, reals]), sets=2)  # in one pass: up to a quarter faster
        of_fakes, of_reals = (Verdict(*parts) for parts in zip(*(part.chunk(2) for part in both), strict=True))
        total = adversarial = loss.real(of_reals.logit).mean() + loss.fake(of_fakes.logit).mean()
        log = {
            "loss_d": adversarial,
            "logit_real": of_reals.logit.mean(),
            "logit_fake": of_fakes.logit.mean(),
            "sign_real": of_reals.logit.sign().mean(),
            "gap": of_reals.logit.mean() - of_fakes.logit.mean(),
            "logit_spread": torch.cat([of_reals.logit, of_fakes.logit]).std(unbiased=False),
        }
        if loss.classifies:
            log["accuracy"] = ((of_reals.logit > 0).float().mean() + (of_fakes.logit < 0).float().mean()) / 2
        if loss.sphere:
            log["moments"] = (of_reals.logit.mean() + of_fakes.logit.mean()) / 2
        identity, guesses = self._identity(of_fakes, latents, axes)
        total, log = total + identity, log | {f"{name}_d": value for name, value in guesses.items()}
        if self.r1_weight:
            log["r1"] = r1_penalty(logits_of(discriminator, self.fade), reals, config.r1_of)
            total = total + self.r1_weight / 2 * config.r1_interval * log["r1"]
        if share is not None:
            log["gradient_penalty"] = gradient_penalty(logits_of(discriminator, self.fade), reals, fakes, share)
            total = total + config.gradient_penalty * log["gradient_penalty"]
        return total, detached(log)

    def adversarial_loss(
        self, discriminator: Discriminator, images: Tensor, latents: Tensor, axes: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Log]:
        """The generator's, for images as the discriminator sees them, of which each has one of the `weights` [b]."""
        verdict = self.verdict(discriminator, images)
        losses = ADVERSARIAL_LOSSES[self.config.gan_loss].generator(verdict.logit)
        loss = (losses if weights is None else losses * weights).mean()
        identity, guesses = self._identity(verdict, latents, axes)
        return loss + identity, detached({"loss_g": loss, **guesses})

    def shape_loss(self, fake: Fake) -> tuple[Tensor, Log]:
        """The generator's for the field behind a rendered fake: it is to be a distance, with normals to the
        camera and no more surface than is needed."""
        assert fake.made is not None and fake.gradients is not None
        log = {"eikonal": eikonal_loss(fake.gradients, fake.made.valid)}
        total = self.eikonal_weight * log["eikonal"]
        if self.config.back_face_weight > 0:
            log["back_face"] = back_face_loss(fake.made.normals, fake.made.alpha.detach(), fake.axes)
            total = total + self.config.back_face_weight * log["back_face"]
        if self.config.minimal_surface_weight > 0:
            assert fake.distances is not None
            log["minimal_surface"] = minimal_surface_loss(fake.distances)
            total = total + self.config.minimal_surface_weight * log["minimal_surface"]
        return total, detached(log)

    def _identity(self, verdict: Verdict, latents: Tensor, axes: Tensor) -> tuple[Tensor | float, Log]:
        """How far the guesses of latent and direction are off, weighted, and each for the log."""
        weights = {"latent": self.config.latent_weight, "pose": self.config.pose_weight}
        errors = {}
        if weights["latent"] > 0:
            errors["latent"] = (verdict.latent - latents).square().mean()
        if weights["pose"] > 0:  # for small errors the mean over two angles, as in pi-GAN
            errors["pose"] = (verdict.direction - axes[:, 2]).square().sum(1).mean() / 2
        return sum((weights[name] * error for name, error in errors.items()), start=0.0), errors


def r1_weight(config: ResolvedGanConfig, step: int) -> float:
    """R1's at a step: that of equally long parts of the run, each with half of the one before, or somewhat more.

    Few weights, since a CUDA graph is captured for each.
    """
    halvings = math.ceil(-math.log2(config.r1_final))
    done = min(halvings, (halvings + 1) * step // config.steps)
    return config.r1_gamma * config.r1_final ** (done / max(halvings, 1))


def silhouettes(alpha: Tensor, channels: int) -> Log:
    """What silhouettes [B, 1, R, R] cover, and how many are empty or full where the discriminator sees that."""
    coverage = alpha.mean((1, 2, 3))
    log = {"coverage": coverage.mean()}
    if channels == 4:
        log |= {"empty": (coverage < 0.005).float().mean(), "full": (coverage > 0.98).float().mean()}
    return log


def variety(fakes: Tensor, reals: Tensor) -> Tensor:
    """How much mean colours and coverage [B, C] differ between fakes, relative to reals."""
    of_fakes, of_reals = (values.std(0, unbiased=False).norm() for values in (fakes, reals))
    return of_fakes / of_reals.clamp(min=1e-6)


def detached(log: Log) -> Log:
    """The same without graphs."""
    return {name: value.detach() for name, value in log.items()}
