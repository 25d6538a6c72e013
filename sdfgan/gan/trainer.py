"""One step of GAN training, and everything that a checkpoint must hold to continue it exactly.

A batch is cut into chunks of a fixed size. On a CPU chunks run in parallel threads of one torch thread each, and their
gradients are averaged in order: the result is the same for any number of threads. With several processes each takes
its share of the chunks; all draw the same random numbers, so their number does not matter either.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from sdfgan.cameras import PoseDistribution, pose_distribution, rotate_axes
from sdfgan.data.pictures import InMemory, Pictures
from sdfgan.errors import UserError
from sdfgan.fields import DfrSDF, Field, PiGanField
from sdfgan.gan import augment, picture
from sdfgan.gan.augment import Augmentation
from sdfgan.gan.config import GanConfig, largest_part
from sdfgan.gan.discriminators import DISCRIMINATORS, Verdict, add_spectral_norm, logits_of, update_spectral_norm
from sdfgan.gan.generator import make_generator
from sdfgan.gan.losses import (
    ADVERSARIAL_LOSSES,
    back_face_loss,
    eikonal_loss,
    gradient_penalty,
    r1_penalty,
    top_k_weights,
)
from sdfgan.gan.picture import Picture
from sdfgan.training.checkpoint import (
    pack_generator_state,
    pack_module,
    pack_optimizer,
    unpack_generator_state,
    unpack_module,
    unpack_optimizer,
)
from sdfgan.training.distributed import Workers

_MOST_SKIPPED_IN_A_ROW = 20
_EIKONAL_BOX = 0.9  # random eikonal points lie in [-0.9, 0.9]^3
_FIRST_LOSS_SCALE, _STEPS_TO_DOUBLE_IT = 2.0**12, 1000  # of fp16
_WORST_PRECONDITIONING = 0.5
_MAPPINGS = ("mapping", "texture_mapping", "film")  # of the generators
_ADA_INTERVAL = 4  # steps between changes of its probability

T = TypeVar("T")
Gradients = Sequence[Tensor]


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


class Trainer:
    """Networks, optimisers and random state of a run; `step` advances them by one update each."""

    def __init__(
        self, config: GanConfig, workers: Workers | None = None, poses: PoseDistribution | None = None
    ) -> None:
        """`poses` are the cameras', if they are not those of the configuration."""
        self.config = config
        self.workers = workers or Workers()
        self.device = torch.device(config.device)
        self.loss = ADVERSARIAL_LOSSES[config.gan_loss]
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)  # a few operations have no such version
            torch.backends.cudnn.benchmark = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.generator: Field = make_generator(config).to(self.device)
            self.discriminator = DISCRIMINATORS[config.discriminator](
                config.resolutions,
                config.discriminator_channels,
                config.discriminator_most_channels,
                picture_channels=config.channels,
                latent_size=self.generator.latent_size if _ever(config, "latent_weight") else 0,
                guess_direction=_ever(config, "pose_weight"),
                sphere=self.loss.sphere,
            )
            if self.loss.spectral_norm:
                add_spectral_norm(self.discriminator)
            self.discriminator.to(self.device)
        self.random = torch.Generator().manual_seed(config.seed)
        self.averages = {name: copy.deepcopy(self.generator).requires_grad_(False) for name in ("ema", "ema_slow")}
        betas = (config.beta1, config.beta2)
        self.optimizer_g = torch.optim.Adam(self._parts(), config.lr_generator, betas)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), config.lr_discriminator, betas)
        spans = [(math.radians(span[0]), math.radians(span[1])) for span in (config.elevation, config.azimuth)]
        self.poses = poses or pose_distribution(config.poses, *spans)
        self.fov = math.radians(config.fov)
        self.steps_done = 0
        self._skipped_in_a_row = 0
        self.loss_scale = _FIRST_LOSS_SCALE if config.precision == "fp16" else 1.0
        self._good_steps = 0  # since the loss scale changed
        self.augmented = 0.0  # the probability of ADA
        self._signs: list[float] = []  # of real logits, since it changed
        self.threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        if self.device.type == "cpu":
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))

    @property
    def average(self) -> Field:
        """The moving average of the generator that pictures are made from."""
        return self.averages["ema"]

    def _parts(self) -> list[dict[str, Any]]:
        """The generator's parameters with the shares of its learning rate: the mapping network may have its own."""
        own: list[nn.Parameter] = []
        mapping: list[nn.Parameter] = []
        for name, parameter in self.generator.named_parameters():
            (mapping if name.split(".")[0] in _MAPPINGS else own).append(parameter)
        if self.config.mapping_rate == 1:
            return [{"params": list(self.generator.parameters()), "rate": 1.0}]
        return [{"params": own, "rate": 1.0}, {"params": mapping, "rate": self.config.mapping_rate}]

    def close(self) -> None:
        """Give torch its threads back, and its freedom."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
            torch.set_num_threads(self.threads)
        if self.config.deterministic:
            torch.use_deterministic_algorithms(False)

    def map(self, function: Callable[..., T], *arguments: Sequence[Any]) -> list[T]:
        """`function` of each chunk's arguments, in order; in parallel on a CPU."""
        mapper = map if self._pool is None else self._pool.map
        return list(mapper(function, *arguments))

    def precondition(self) -> None:
        """What some generators need before the first step of a fresh run."""
        if isinstance(self.generator, DfrSDF):
            loss = self.generator.precondition(self.config.latent_std, self.random)
            if not loss < _WORST_PRECONDITIONING:
                raise UserError(
                    f"--generator dfr: the fit of a ball before training failed (loss {loss:.2g}); lower its omegas"
                )
            for averaged in self.averages.values():
                averaged.load_state_dict(self.generator.state_dict())

    # ------------------------------------------------------------------------------------------------------- a step

    def step(self, pictures: Pictures | Tensor) -> dict[str, float]:
        """One update of the generator, and as many as are set of the discriminator; returns numbers for the log."""
        reals = InMemory(pictures) if isinstance(pictures, Tensor) else pictures
        now = _Step(self, self.config.at(self.steps_done))
        self._set_learning_rates(now.config)
        log: dict[str, float] = {}
        for index in range(now.config.discriminator_steps):
            last = index == now.config.discriminator_steps - 1
            fakes = now.draw_fakes()
            # One rendering serves both updates, unless its graph would take too much memory.
            keep_graph = last and not self.config.recompute
            fakes = self.map(now.render if keep_graph else torch.no_grad()(now.render), fakes)
            log = now.update_discriminator(fakes, now.draw_reals(reals))
        log |= now.update_generator(fakes)
        self._update_averages()
        self.steps_done += 1
        self._adjust_augmentation(log, now.config)
        log["learning_rate"] = self.optimizer_g.param_groups[0]["lr"]
        return log

    def picture(self, generator: Field, condition: Any, axes: Tensor) -> Tensor:
        """Pictures [B, C, R, R] as the discriminator sees them: at the resolution in force, premultiplied on black."""
        config = self.config.at(self.steps_done)
        return picture.draw(generator, condition, axes, config).channels(config.channels)

    def latents(self, count: int, random: torch.Generator) -> Tensor:
        """Random latents [count, L] on the CPU."""
        return self.config.latent_std * torch.randn(count, self.generator.latent_size, generator=random)

    # ---------------------------------------------------------------------------------------------------- parameters

    def _set_learning_rates(self, config: GanConfig) -> None:
        """Constant, then linearly down to 5%."""
        assert config.steps is not None
        progress = self.steps_done / config.steps
        factor = 1.0
        if config.decay_start < 1 and progress > config.decay_start:
            factor = max(0.05, (1 - progress) / (1 - config.decay_start))
        for group in self.optimizer_g.param_groups:
            group["lr"] = config.lr_generator * factor * group["rate"]
        self.optimizer_d.param_groups[0]["lr"] = config.lr_discriminator * factor

    def apply(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, gradients: Sequence[Gradients], clip: float
    ) -> tuple[float, bool]:
        """Step on the mean of all chunks' gradients, unless it is not finite; returns its norm, and whether it was."""
        means = [sum(parts[1:], parts[0]) / len(parts) for parts in zip(*gradients, strict=True)]
        for parameter, gradient in zip(module.parameters(), self.workers.average(means), strict=True):
            parameter.grad = gradient / self.loss_scale if self.loss_scale != 1 else gradient
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), clip).item()
        finite = math.isfinite(norm)
        if finite:
            optimizer.step()
            self._skipped_in_a_row = 0
            self._good_steps += 1
            if self.config.precision == "fp16" and self._good_steps >= _STEPS_TO_DOUBLE_IT:
                self.loss_scale, self._good_steps = self.loss_scale * 2, 0
        elif self.loss_scale > 1:  # fp16 overflows: that is how its scale is found
            self.loss_scale, self._good_steps = self.loss_scale / 2, 0
        else:
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row > _MOST_SKIPPED_IN_A_ROW:
                raise UserError(
                    f"training stopped at step {self.steps_done}: gradients were not finite "
                    f"{self._skipped_in_a_row} times in a row; the last checkpoint is good, lower --lr-generator"
                )
        for parameter in module.parameters():
            parameter.grad = None
        return norm, finite

    @torch.no_grad()
    def _update_averages(self) -> None:
        # Early on averages follow quickly, so that the first pictures are not of the initialisation.
        warm = (1 + self.steps_done) / (10 + self.steps_done)
        decays = (self.config.ema_decay, self.config.ema_decay_slow)
        for module, decay in zip(self.averages.values(), decays, strict=True):
            for averaged, current in zip(module.parameters(), self.generator.parameters(), strict=True):
                averaged.lerp_(current, 1 - min(decay, warm))

    def _adjust_augmentation(self, log: dict[str, float], config: GanConfig) -> None:
        if not config.ada_target:
            return
        assert config.batch_size is not None
        self._signs.append(log["sign_real"])
        if len(self._signs) == _ADA_INTERVAL:
            seen = _ADA_INTERVAL * config.batch_size
            mean = sum(self._signs) / _ADA_INTERVAL
            self.augmented = augment.adjusted(self.augmented, mean, config.ada_target, seen, config.ada_pictures)
            self._signs = []
        log["ada_probability"] = self.augmented

    # ---------------------------------------------------------------------------------------------------- checkpoint

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `load_state` continues exactly."""
        tensors = {
            **pack_module(self.generator, "generator"),
            **pack_module(self.discriminator, "discriminator"),
            **pack_optimizer(self.optimizer_g, "optimizer_g"),
            **pack_optimizer(self.optimizer_d, "optimizer_d"),
            **pack_generator_state(self.random, "random"),
        }
        for name, module in self.averages.items():
            tensors |= pack_module(module, name)
        return tensors, {
            "skipped_in_a_row": self._skipped_in_a_row,
            "loss_scale": self.loss_scale,
            "good_steps": self._good_steps,
            "augmented": self.augmented,
            "signs": self._signs,
        }

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any], step: int, source: Any) -> None:
        """Undo `state`. Raises UserError, naming `source`, where something is missing or does not fit."""
        self.load_networks(tensors, source)
        unpack_optimizer(self.optimizer_g, tensors, "optimizer_g", source)
        unpack_optimizer(self.optimizer_d, tensors, "optimizer_d", source)
        unpack_generator_state(self.random, tensors, "random", source)
        try:
            self._skipped_in_a_row, self._good_steps = int(state["skipped_in_a_row"]), int(state["good_steps"])
            self.loss_scale, self.augmented = float(state["loss_scale"]), float(state["augmented"])
            self._signs = [float(sign) for sign in state["signs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source}: not a checkpoint of this version: {error}") from error
        self.steps_done = step

    def load_networks(self, tensors: dict[str, Tensor], source: Any) -> None:
        """Take the networks, and nothing else, from another run's tensors."""
        unpack_module(self.generator, tensors, "generator", source)
        unpack_module(self.discriminator, tensors, "discriminator", source)
        for name, module in self.averages.items():
            unpack_module(module, tensors, name, source)


@dataclass
class _Step:
    """What happens within one step, under the settings in force there."""

    trainer: Trainer
    config: GanConfig

    def __post_init__(self) -> None:
        config, workers, done = self.config, self.trainer.workers, self.trainer.steps_done
        assert config.resolution is not None and config.batch_size is not None and config.chunk_size is not None
        assert config.steps is not None and config.r1_gamma is not None
        if config.batch_size % workers.count:
            raise UserError(f"--batch-size {config.batch_size} must be a multiple of the {workers.count} processes")
        chunk = largest_part(config.batch_size // workers.count, config.chunk_size)
        self.batch, self.resolution, self.chunks = config.batch_size, config.resolution, config.batch_size // chunk
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

    # ------------------------------------------------------------------------------------------------------- drawing

    def _mine(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        """Tensors [batch, ...] as the chunks of this process."""
        chunks = list(zip(*(tensor.chunk(self.chunks) for tensor in tensors), strict=True))
        return list(self.trainer.workers.share(chunks))

    def draw_fakes(self) -> list[Fake]:
        """Latents, cameras and points of this process's chunks; the same everywhere however many there are."""
        random, device = self.trainer.random, self.trainer.device
        latents = self.trainer.latents(self.batch, random)
        axes = rotate_axes(self.trainer.poses.sample(self.batch, random))
        free = (2 * torch.rand(self.batch, self.config.eikonal_points, 3, generator=random) - 1) * _EIKONAL_BOX
        lights = picture.draw_lights(axes, self.config, random)
        seeds: Sequence[int | None] = [None] * self.chunks
        if isinstance(self.trainer.generator, PiGanField):
            seeds = torch.randint(2**62, (self.chunks,), generator=random).tolist()
        chunks = zip(self._mine(latents, axes, free, lights), self.trainer.workers.share(seeds), strict=True)
        return [
            Fake(z.to(device), views.to(device), x.to(device), light.to(device), seed)
            for (z, views, x, light), seed in chunks
        ]

    def draw_reals(self, pictures: Pictures) -> list[Tensor]:
        """Real pictures [b, C, R, R] in [0, 1] of this process's chunks."""
        random, device = self.trainer.random, self.trainer.device
        chosen = torch.randint(len(pictures), (self.batch,), generator=random)
        flip = torch.rand(self.batch, generator=random) < 0.5
        indices = torch.cat([indices for (indices,) in self._mine(chosen)])
        images = pictures.batch(indices, self.resolution)[:, : self.config.channels].to(device).float() / 255
        flips = torch.cat([flips for (flips,) in self._mine(flip)]).to(device)
        if self.config.mirror:
            images = torch.where(flips[:, None, None, None], images.flip(3), images)
        return list(images.chunk(self.chunks // self.trainer.workers.count))

    def draw_views(self) -> list[View]:
        """How the discriminator will see this process's chunks of a batch."""
        random, probability = self.trainer.random, self.trainer.augmented
        augmentations: Sequence[Augmentation | None] = [None] * self.chunks
        seeds: Sequence[Tensor | None] = [None] * self.chunks
        if probability > 0:
            drawn = augment.draw(self.batch, probability, random)
            augmentations = [Augmentation(*parts) for parts in zip(*(p.chunk(self.chunks) for p in drawn), strict=True)]
        if self.noise > 0:
            seeds = torch.randint(2**62, (self.batch,), generator=random).chunk(self.chunks)
        views = [View(augmentation, seed) for augmentation, seed in zip(augmentations, seeds, strict=True)]
        return list(self.trainer.workers.share(views))

    def render(self, fake: Fake) -> Fake:
        """The same with its pictures and gradients of the field."""
        generator = self.trainer.generator
        condition = generator.condition(fake.latents)
        made = picture.draw(generator, condition, fake.axes, self.config, fake.lights, fake.seed)
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

    def update_discriminator(self, fakes: list[Fake], reals: list[Tensor]) -> dict[str, float]:
        """One update; returns its numbers."""
        trainer = self.trainer
        if trainer.loss.spectral_norm:
            update_spectral_norm(trainer.discriminator)
        shares: Sequence[Tensor | None] = [None] * len(fakes)
        if trainer.loss.gradient_penalty:
            shares = [share for (share,) in self._mine(torch.rand(self.batch, generator=trainer.random))]
        judged = trainer.map(self._discriminator_chunk, fakes, reals, self.draw_views(), self.draw_views(), shares)
        log = self._mean([numbers for numbers, _ in judged])
        clip = self.config.gradient_clip_discriminator or math.inf
        gradients = [gradients for _, gradients in judged]
        norm, finite = trainer.apply(trainer.discriminator, trainer.optimizer_d, gradients, clip)
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
        trainer, config, loss = self.trainer, self.config, self.trainer.loss
        assert fake.made is not None and config.r1_gamma is not None
        fakes = self.see(fake.made.channels(config.channels).detach(), fake_view)
        reals = self.see(reals, real_view)
        of_fakes, of_reals = self.judge(fakes), self.judge(reals)
        total = playing = loss.real(of_reals.logit).mean() + loss.fake(of_fakes.logit).mean()
        log = {
            "loss_d": playing,
            "logit_real": of_reals.logit.mean(),
            "logit_fake": of_fakes.logit.mean(),
            "sign_real": of_reals.logit.sign().mean(),
            "accuracy": ((of_reals.logit > 0).float().mean() + (of_fakes.logit < 0).float().mean()) / 2,
            "gap": of_reals.logit.mean() - of_fakes.logit.mean(),
            "logit_spread": torch.cat([of_reals.logit, of_fakes.logit]).std(unbiased=False),
        }
        identity, guesses = self._identity(of_fakes, fake)
        total, log = total + identity, log | {f"{name}_d": value for name, value in guesses.items()}
        if self.with_r1:
            log["r1"] = r1_penalty(logits_of(trainer.discriminator, self.fade), reals, config.r1_of)
            total = total + config.r1_gamma / 2 * config.r1_interval * log["r1"]
        if share is not None:
            judge = logits_of(trainer.discriminator, self.fade)
            log["gradient_penalty"] = gradient_penalty(judge, reals, fakes, share.to(reals))
            total = total + config.gradient_penalty * log["gradient_penalty"]
        return _detached(log), self._gradients(total, trainer.discriminator)

    def _identity(self, verdict: Verdict, fake: Fake) -> tuple[Tensor | float, dict[str, Tensor]]:
        """How far the guesses of latent and direction are off, weighted, and each for the log."""
        weights = {"latent": self.config.latent_weight, "pose": self.config.pose_weight}
        truths = {"latent": (verdict.latent, fake.latents), "pose": (verdict.direction, fake.axes[:, 2])}
        errors = {n: (truths[n][0] - truths[n][1]).square().mean() for n, weight in weights.items() if weight > 0}
        return sum((weights[name] * error for name, error in errors.items()), start=0.0), errors

    # ----------------------------------------------------------------------------------------------- the generator

    def update_generator(self, fakes: list[Fake]) -> dict[str, float]:
        """One update; returns its numbers."""
        trainer, views = self.trainer, self.draw_views()
        weights: Sequence[Tensor | None] = [None] * len(fakes)
        if self.config.top_k_interval:
            logits = torch.cat(trainer.map(torch.no_grad()(self._logits), fakes, views))
            interval, floor = self.config.top_k_interval, self.config.top_k_floor
            chosen = top_k_weights(trainer.workers.gather(logits), trainer.steps_done, interval, floor)
            weights = [weight for (weight,) in self._mine(chosen)]
        improved = trainer.map(self._generator_chunk, fakes, views, weights)
        log = self._mean([numbers for numbers, _ in improved])
        gradients = [gradients for _, gradients in improved]
        norm, finite = trainer.apply(trainer.generator, trainer.optimizer_g, gradients, self.config.gradient_clip)
        return log | {"gradient_norm_g": norm} | ({} if finite else {"skipped": 1.0})

    def _logits(self, fake: Fake, view: View) -> Tensor:
        assert fake.made is not None
        return self.judge(self.see(fake.made.channels(self.config.channels), view)).logit

    def _generator_chunk(self, fake: Fake, view: View, weights: Tensor | None) -> tuple[dict[str, Tensor], Gradients]:
        config = self.config
        if fake.made is None or not fake.made.rgb.requires_grad:
            fake = self.render(fake)
        assert fake.made is not None and fake.gradients is not None
        verdict = self.judge(self.see(fake.made.channels(config.channels), view))
        losses = self.trainer.loss.generator(verdict.logit)
        loss = (losses if weights is None else losses * weights).mean()
        eikonal = eikonal_loss(fake.gradients)
        total = loss + self.eikonal_weight * eikonal
        log = {"loss_g": loss, "eikonal": eikonal}
        identity, guesses = self._identity(verdict, fake)
        total, log = total + identity, log | guesses
        if config.back_face_weight > 0:
            log["back_face"] = back_face_loss(fake.made.normals, fake.made.alpha.detach(), fake.axes)
            total = total + config.back_face_weight * log["back_face"]
        return _detached(log), self._gradients(total, self.trainer.generator)

    # ------------------------------------------------------------------------------------------------------ numbers

    def _gradients(self, loss: Tensor, module: nn.Module) -> Gradients:
        return torch.autograd.grad(
            loss * self.trainer.loss_scale, list(module.parameters()), allow_unused=True, materialize_grads=True
        )

    def _mean(self, logs: Sequence[dict[str, Tensor]]) -> dict[str, float]:
        """Numbers of all chunks of all processes, averaged."""
        names = list(logs[0])
        means = torch.stack([torch.stack([log[name].float() for log in logs]).mean() for name in names])
        return dict(zip(names, self.trainer.workers.average([means])[0].tolist(), strict=True))

    def _silhouettes(self, alpha: Tensor) -> dict[str, float]:
        coverage = alpha.mean((1, 2, 3))
        return self._mean(
            [{
                "coverage": coverage.mean(),
                "empty": (coverage < 0.005).float().mean(),
                "full": (coverage > 0.98).float().mean(),
            }]
        )  # fmt: skip

    def _variety(self, fakes: Tensor, reals: Tensor) -> dict[str, float]:
        """How much mean colours and coverage differ between fakes, relative to reals."""
        means = [self.trainer.workers.gather(images.mean((2, 3))) for images in (fakes, reals)]
        of_fakes, of_reals = (values.std(0, unbiased=False).norm() for values in means)
        return {"variety": (of_fakes / of_reals.clamp(min=1e-6)).item()}


def _detached(log: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in log.items()}


def _ever(config: GanConfig, name: str) -> bool:
    """Whether a weight is positive at any stage: then the discriminator needs what belongs to it."""
    return getattr(config, name) > 0 or any(stage.changes.get(name, 0) > 0 for stage in config.stages)
