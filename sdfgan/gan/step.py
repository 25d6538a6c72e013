"""What happens within one step of GAN training: drawing, rendering, and the losses of both networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sdfgan.cameras import rotate_axes
from sdfgan.data.image_sets import Pictures
from sdfgan.fields import PiGanField
from sdfgan.gan import augment, drawing
from sdfgan.gan.augment import Augmentation
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.discriminators import Verdict, logits_of, update_spectral_norm
from sdfgan.gan.drawing import Picture
from sdfgan.gan.losses import back_face_loss, eikonal_loss, gradient_penalty, r1_penalty, top_k_weights
from sdfgan.gan.state import Gradients, TrainingState

_EIKONAL_BOX = 0.9  # random eikonal points lie in [-0.9, 0.9]^3


Numbers = dict[str, Tensor | float]  # for the log; tensors of one number, so that a step waits for them once


class Fake(NamedTuple):
    """What a chunk of fakes is made of, and then the fakes."""

    latents: Tensor  # [b, L]
    axes: Tensor  # [b, 3, 3]
    free: Tensor  # [b, P, 3] random points for the eikonal term
    lights: Tensor  # [b, 6]
    seed: int | None = None  # of where volumes are asked
    made: Picture | None = None
    gradients: Tensor | None = None  # [N, 3] of the field at samples and free points


class View(NamedTuple):
    """How the discriminator sees a chunk of pictures: one of `augment`'s transformations, and noise."""

    augmentation: Augmentation | None
    noise_seeds: Tensor | None


@dataclass
class Step:
    """One step, under the settings in force there."""

    trainer: TrainingState
    config: ResolvedGanConfig

    def __post_init__(self) -> None:
        config, ranks, done = self.config, self.trainer.ranks, self.trainer.steps_done
        assert config.resolution is not None and config.batch_size is not None
        assert config.steps is not None and config.r1_gamma is not None
        self.batch, self.resolution = config.batch_size, config.resolution
        self.chunks = self.batch // config.chunk_of(ranks.count)
        since = done - self.trainer.config.stage_start(done)
        grown = done > since  # the first resolution has nothing to fade in from
        self.fade = min(1.0, (since + 1) / config.fade_steps) if grown and config.fade_steps else 1.0
        self.noise = augment.fading(config.instance_noise, config.instance_noise_steps, done)
        self.blur = augment.fading(config.blur, config.blur_steps, done)
        assert config.eikonal_weight is not None
        final = config.eikonal_weight if config.eikonal_final is None else config.eikonal_final
        progress = min(1.0, done / config.steps)
        self.eikonal_weight = config.eikonal_weight + (final - config.eikonal_weight) * progress
        self.with_r1 = config.r1_gamma > 0 and done % config.r1_interval == 0
        # A recording is of one fade; and fp16's scale must reach into it.
        recorded = self.trainer.graphs is not None and self.fade == 1 and config.precision != "fp16"
        self.graphs = self.trainer.graphs if recorded else None
        if self.graphs is not None:
            self.graphs.keep_while(config)

    # ------------------------------------------------------------------------------------------------------- drawing

    def _mine(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Tensors [batch, ...] as the chunks of this process."""
        chunks = list(zip(*(tensor.chunk(self.chunks) for tensor in tensors), strict=True))
        return list(self.trainer.ranks.share(chunks))

    def draw_fakes(self) -> list[Fake]:
        """Latents, cameras and points of this process's chunks; the same everywhere however many there are."""
        random, device = self.trainer.random, self.trainer.device
        latents = self.trainer.latents(self.batch, random)
        axes = rotate_axes(self.trainer.poses.sample(self.batch, random))
        free = (2 * torch.rand(self.batch, self.config.eikonal_points, 3, generator=random) - 1) * _EIKONAL_BOX
        lights = drawing.draw_lights(axes, self.config, random)
        seeds: Sequence[int | None] = [None] * self.chunks
        if isinstance(self.trainer.generator, PiGanField):
            seeds = torch.randint(2**62, (self.chunks,), generator=random).tolist()
        chunks = self._mine(*(_upload(part, device) for part in (latents, axes, free, lights)))
        return [
            Fake(z, views, x, light, seed)
            for (z, views, x, light), seed in zip(chunks, self.trainer.ranks.share(seeds), strict=True)
        ]

    def draw_reals(self, pictures: Pictures) -> list[Tensor]:
        """Real pictures [b, C, R, R] in [0, 1] of this process's chunks."""
        random, device = self.trainer.random, self.trainer.device
        chosen = torch.randint(len(pictures), (self.batch,), generator=random)
        flip = torch.rand(self.batch, generator=random) < 0.5
        indices = torch.cat([indices for (indices,) in self._mine(chosen)])
        images = pictures.batch(indices, self.resolution)[:, : self.config.channels]
        images = _upload(images, device).float() / 255
        flips = _upload(torch.cat([flips for (flips,) in self._mine(flip)]), device)
        if self.config.mirror:
            images = torch.where(flips[:, None, None, None], images.flip(3), images)
        return list(images.chunk(self.chunks // self.trainer.ranks.count))

    def draw_views(self) -> list[View]:
        """How the discriminator will see this process's chunks of a batch."""
        random, probability = self.trainer.random, self.trainer.augmented
        augmentations: Sequence[Augmentation | None] = [None] * self.chunks
        seeds: Sequence[Tensor | None] = [None] * self.chunks
        if probability > 0:
            drawn = [_upload(part, self.trainer.device) for part in augment.draw(self.batch, probability, random)]
            augmentations = [Augmentation(*parts) for parts in zip(*(p.chunk(self.chunks) for p in drawn), strict=True)]
        if self.noise > 0:
            seeds = torch.randint(2**62, (self.batch,), generator=random).chunk(self.chunks)
        views = [View(augmentation, seed) for augmentation, seed in zip(augmentations, seeds, strict=True)]
        return list(self.trainer.ranks.share(views))

    def render(self, fake: Fake) -> Fake:
        """The same with its pictures and gradients of the field."""
        generator = self.trainer.generator
        condition = generator.condition(fake.latents)
        made = drawing.draw(generator, condition, fake.axes, self.config, fake.lights, fake.seed)
        gradients = made.gradients
        if torch.is_grad_enabled() and fake.free.numel():
            image = torch.arange(len(fake.free), device=fake.free.device).repeat_interleave(fake.free.shape[1])
            _, free = generator.sdf_and_gradient(fake.free.flatten(0, 1), condition, image)
            gradients = torch.cat([gradients, free])
        return fake._replace(made=made, gradients=gradients)

    def see(self, images: Tensor, view: View) -> Tensor:
        """Pictures as the discriminator sees them."""
        if view.augmentation is not None:
            images = augment.apply(images, view.augmentation)
        if self.blur > 0:
            images = augment.blur(images, self.blur)
        if view.noise_seeds is not None:
            images = augment.instance_noise(images, self.noise, view.noise_seeds)
        return images

    def judge(self, images: Tensor) -> Verdict:
        """The discriminator's verdict, in its own arithmetic."""
        with self._autocast():
            verdict = self.trainer.discriminator(images, self.fade)
        return Verdict(*(part.float() for part in verdict))

    def _autocast(self) -> Any:
        if self.config.precision == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float16
        return torch.autocast(self.trainer.device.type, dtype=dtype)

    # ------------------------------------------------------------------------------------------- the discriminator

    def update_discriminator(self, fakes: list[Fake], reals: list[Tensor]) -> Numbers:
        """One update; returns its numbers."""
        trainer = self.trainer
        if trainer.loss.spectral_norm:
            update_spectral_norm(trainer.discriminator)
        shares: Sequence[Tensor | None] = [None] * len(fakes)
        if trainer.loss.gradient_penalty:
            shares = [share for (share,) in self._mine(torch.rand(self.batch, generator=trainer.random))]
        judged = trainer.threads.map(
            self._discriminator_chunk, fakes, reals, self.draw_views(), self.draw_views(), shares
        )
        log = self._mean([numbers for numbers, _ in judged])
        clip = self.config.gradient_clip_discriminator or math.inf
        gradients = [gradients for _, gradients in judged]
        norm, finite = trainer.apply("discriminator", gradients, clip)
        seen = torch.cat([fake.made.channels(self.config.channels).detach() for fake in fakes if fake.made is not None])
        alpha = torch.cat([fake.made.alpha.detach() for fake in fakes if fake.made is not None])
        return (
            log
            | self._silhouettes(alpha)
            | self._variety(seen, torch.cat(reals))
            | {
                "gradient_norm_d": norm,
                "skipped": float(not finite),
            }
        )

    def _discriminator_chunk(
        self, fake: Fake, reals: Tensor, fake_view: View, real_view: View, share: Tensor | None
    ) -> tuple[dict[str, Tensor], Gradients]:
        assert fake.made is not None
        fakes = self.see(fake.made.channels(self.config.channels).detach(), fake_view)
        inputs = [fakes, self.see(reals, real_view), fake.latents, fake.axes]
        inputs += [] if share is None else [share.to(reals)]
        if self.graphs is None:
            return self._compare(*inputs)
        log, gradients = self.graphs(("discriminator", self.with_r1), self._compare, *inputs)
        if self.chunks > 1:  # the next one overwrites them
            log, gradients = {name: value.clone() for name, value in log.items()}, [g.clone() for g in gradients]
        return log, gradients

    def _compare(
        self, fakes: Tensor, reals: Tensor, latents: Tensor, axes: Tensor, share: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Gradients]:
        """The discriminator's losses for pictures as it sees them; numbers for the log, and its gradients."""
        trainer, config, loss = self.trainer, self.config, self.trainer.loss
        assert config.r1_gamma is not None
        of_fakes, of_reals = self.judge(fakes), self.judge(reals)
        total = playing = loss.real(of_reals.logit).mean() + loss.fake(of_fakes.logit).mean()
        log = {
            "loss_d": playing,
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
        if self.with_r1:
            log["r1"] = r1_penalty(logits_of(trainer.discriminator, self.fade), reals, config.r1_of)
            total = total + config.r1_gamma / 2 * config.r1_interval * log["r1"]
        if share is not None:
            judge = logits_of(trainer.discriminator, self.fade)
            log["gradient_penalty"] = gradient_penalty(judge, reals, fakes, share)
            total = total + config.gradient_penalty * log["gradient_penalty"]
        return _detached(log), self._gradients(total, trainer.discriminator)

    def _identity(self, verdict: Verdict, latents: Tensor, axes: Tensor) -> tuple[Tensor | float, dict[str, Tensor]]:
        """How far the guesses of latent and direction are off, weighted, and each for the log."""
        weights = {"latent": self.config.latent_weight, "pose": self.config.pose_weight}
        errors = {}
        if weights["latent"] > 0:
            errors["latent"] = (verdict.latent - latents).square().mean()
        if weights["pose"] > 0:  # for small errors the mean over two angles, as in pi-GAN
            errors["pose"] = (verdict.direction - axes[:, 2]).square().sum(1).mean() / 2
        return sum((weights[name] * error for name, error in errors.items()), start=0.0), errors

    # ----------------------------------------------------------------------------------------------- the generator

    def update_generator(self, fakes: list[Fake]) -> Numbers:
        """One update; returns its numbers."""
        trainer, views = self.trainer, self.draw_views()
        weights: Sequence[Tensor | None] = [None] * len(fakes)
        if self.config.top_k_interval:
            logits = torch.cat(trainer.threads.map(torch.no_grad()(self._logits), fakes, views))
            interval, floor = self.config.top_k_interval, self.config.top_k_floor
            chosen = top_k_weights(trainer.ranks.gather(logits), trainer.steps_done, interval, floor)
            weights = [weight for (weight,) in self._mine(chosen)]
        improved = trainer.threads.map(self._generator_chunk, fakes, views, weights)
        log = self._mean([numbers for numbers, _ in improved])
        gradients = [gradients for _, gradients in improved]
        norm, finite = trainer.apply("generator", gradients, self.config.gradient_clip)
        return log | {"gradient_norm_g": norm} | ({} if finite else {"skipped": 1.0})

    def _logits(self, fake: Fake, view: View) -> Tensor:
        assert fake.made is not None
        return self.judge(self.see(fake.made.channels(self.config.channels), view)).logit

    def _generator_chunk(self, fake: Fake, view: View, weights: Tensor | None) -> tuple[dict[str, Tensor], Gradients]:
        config = self.config
        if fake.made is None or not fake.made.rgb.requires_grad:
            fake = self.render(fake)
        assert fake.made is not None and fake.gradients is not None
        inputs = [self.see(fake.made.channels(config.channels), view), fake.latents, fake.axes]
        inputs += [] if weights is None else [weights]
        if self.graphs is None:
            total, log = self._adversarial(*inputs)
        else:
            total, log = self.graphs.loss("generator", self._adversarial, *inputs)
            log = {name: value.clone() for name, value in log.items()} if self.chunks > 1 else log
        log = log | {"eikonal": eikonal_loss(fake.gradients)}
        total = total + self.eikonal_weight * log["eikonal"]
        if config.back_face_weight > 0:
            log["back_face"] = back_face_loss(fake.made.normals, fake.made.alpha.detach(), fake.axes)
            total = total + config.back_face_weight * log["back_face"]
        return _detached(log), self._gradients(total, self.trainer.generator)

    def _adversarial(
        self, images: Tensor, latents: Tensor, axes: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The generator's loss for pictures as the discriminator sees them, and numbers for the log."""
        verdict = self.judge(images)
        losses = self.trainer.loss.generator(verdict.logit)
        loss = (losses if weights is None else losses * weights).mean()
        identity, guesses = self._identity(verdict, latents, axes)
        return loss + identity, {"loss_g": loss, **guesses}

    # ------------------------------------------------------------------------------------------------------ numbers

    def _gradients(self, loss: Tensor, module: nn.Module) -> Gradients:
        return torch.autograd.grad(
            loss * self.trainer.steps.loss_scale, list(module.parameters()), allow_unused=True, materialize_grads=True
        )

    def _mean(self, logs: Sequence[dict[str, Tensor]]) -> Numbers:
        """Numbers of all chunks of all processes, averaged."""
        names = list(logs[0])
        means = torch.stack([torch.stack([log[name].float() for log in logs]).mean() for name in names])
        return dict(zip(names, self.trainer.ranks.average([means])[0].unbind(), strict=True))

    def _silhouettes(self, alpha: Tensor) -> Numbers:
        coverage = alpha.mean((1, 2, 3))
        log = {"coverage": coverage.mean()}
        if self.config.channels == 4:  # else they may be what they like: nobody looks
            log |= {"empty": (coverage < 0.005).float().mean(), "full": (coverage > 0.98).float().mean()}
        return self._mean([log])

    def _variety(self, fakes: Tensor, reals: Tensor) -> Numbers:
        """How much mean colours and coverage differ between fakes, relative to reals."""
        means = [self.trainer.ranks.gather(images.mean((2, 3))) for images in (fakes, reals)]
        of_fakes, of_reals = (values.std(0, unbiased=False).norm() for values in means)
        return {"variety": of_fakes / of_reals.clamp(min=1e-6)}


def as_numbers(log: Numbers) -> dict[str, float]:
    """Every tensor's number; waits for the device once."""
    tensors = {name: value for name, value in log.items() if isinstance(value, Tensor)}
    known = {name: value for name, value in log.items() if not isinstance(value, Tensor)}
    values = torch.stack([value.float() for value in tensors.values()]).tolist()
    read = dict(zip(tensors, values, strict=True)) | known
    return {name: read[name] for name in log}


def _upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, for which the host does not wait: what is in page-locked memory is fetched from there."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _detached(log: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in log.items()}
