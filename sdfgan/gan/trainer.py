"""One step of GAN training, and everything that a checkpoint must hold to continue it exactly.

A batch is cut into chunks of a fixed size. On a CPU chunks run in parallel threads of one torch thread each, and their
gradients are summed in order: the result is the same for any number of threads.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sdfgan.cameras import pose_distribution, rotate_axes
from sdfgan.errors import UserError
from sdfgan.fields import FilmSirenSDF
from sdfgan.gan.config import GanConfig
from sdfgan.gan.discriminator import Discriminator
from sdfgan.gan.generator import make_generator
from sdfgan.gan.losses import discriminator_loss, eikonal_loss, generator_loss, r1_penalty
from sdfgan.raycast import Rendering, render
from sdfgan.training.checkpoint import (
    pack_generator_state,
    pack_module,
    pack_optimizer,
    unpack_generator_state,
    unpack_module,
    unpack_optimizer,
)

_MOST_SKIPPED_IN_A_ROW = 20
_EIKONAL_BOX = 0.9  # random eikonal points lie in [-0.9, 0.9]^3

T = TypeVar("T")


class Trainer:
    """Networks, optimisers and random state of a run; `step` advances them by one update each."""

    def __init__(self, config: GanConfig) -> None:
        assert config.resolution is not None and config.batch_size is not None and config.chunk_size is not None
        self.config = config
        self.device = torch.device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.generator = make_generator(config).to(self.device)
            self.discriminator = Discriminator(config.resolution, config.discriminator_channels).to(self.device)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        betas = (config.beta1, config.beta2)
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), config.lr_generator, betas)
        self.optimizer_d = torch.optim.Adam(self.discriminator.parameters(), config.lr_discriminator, betas)
        self.random = torch.Generator().manual_seed(config.seed)
        self.poses = pose_distribution(config.poses, _radians(config.elevation), _radians(config.azimuth))
        self.fov = math.radians(config.fov)
        self.steps_done = 0
        self._skipped_in_a_row = 0
        self.chunks = config.batch_size // config.chunk_size
        self.threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        if self.device.type == "cpu":
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))

    def close(self) -> None:
        """Give torch its threads back."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
            torch.set_num_threads(self.threads)

    def map(self, function: Callable[..., T], *arguments: Sequence[Any]) -> list[T]:
        """`function` of each chunk's arguments, in order; in parallel on a CPU."""
        mapper = map if self._pool is None else self._pool.map
        return list(mapper(function, *arguments))

    # ------------------------------------------------------------------------------------------------------- a step

    def step(self, pictures: Tensor) -> dict[str, float]:
        """One update of both networks on pictures [N, 4, R, R] uint8; returns numbers for the log."""
        batch = self._draw(pictures)
        self._set_learning_rates()
        rendered = self.map(self._render_chunk, *batch["fake"])
        fakes = [fake for fake, _ in rendered]
        lazy = self.config.r1_gamma > 0 and self.steps_done % self.config.r1_interval == 0
        judged = self.map(
            self._discriminator_chunk, [fake.detach() for fake in fakes], batch["real"], [lazy] * self.chunks
        )
        log = _mean([numbers for numbers, _ in judged])
        log["gradient_norm_d"] = self._apply(
            self.discriminator, self.optimizer_d, [gradients for _, gradients in judged], math.inf
        )
        improved = self.map(self._generator_chunk, rendered)
        log |= _mean([numbers for numbers, _ in improved])
        log["gradient_norm_g"] = self._apply(
            self.generator, self.optimizer_g, [gradients for _, gradients in improved], self.config.gradient_clip
        )
        self._update_average()
        self.steps_done += 1
        log["coverage"] = sum(fake[:, 3].mean().item() for fake in fakes) / len(fakes)
        log["learning_rate"] = self.optimizer_g.param_groups[0]["lr"]
        return log

    def _draw(self, pictures: Tensor) -> dict[str, Any]:
        """Everything random of one step, for all chunks, from one generator."""
        size, random = self.config.batch_size, self.random
        assert size is not None
        latents = torch.randn(size, self.generator.latent_size, generator=random)
        axes = rotate_axes(self.poses.sample(size, random))
        free = (2 * torch.rand(size, self.config.eikonal_points, 3, generator=random) - 1) * _EIKONAL_BOX
        chosen = torch.randint(len(pictures), (size,), generator=random)
        flip = torch.rand(size, generator=random) < 0.5
        real = pictures[chosen.to(pictures.device)].to(self.device).float() / 255
        if self.config.mirror:
            real = torch.where(flip.to(self.device)[:, None, None, None], real.flip(3), real)
        fake = tuple(tensor.to(self.device).chunk(self.chunks) for tensor in (latents, axes, free))
        return {"fake": fake, "real": real.chunk(self.chunks)}

    def _render_chunk(self, latents: Tensor, axes: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """Fake pictures [b, 4, R, R] and the eikonal loss of a chunk, with a graph."""
        condition = self.generator.condition(latents)
        rendering = self.render(self.generator, condition, axes)
        image = torch.arange(len(free), device=self.device).repeat_interleave(free.shape[1])
        _, gradients = self.generator.sdf_and_gradient(free.flatten(0, 1), condition, image)
        return rendering.rgba, eikonal_loss(torch.cat([rendering.field.gradient, gradients]))

    def render(self, generator: FilmSirenSDF, condition: Any, axes: Tensor) -> Rendering:
        """Pictures as the discriminator sees them: at the training resolution, premultiplied on black."""
        assert self.config.resolution is not None
        return render(
            sdf=generator,
            axes=axes,
            condition=condition,
            resolution=self.config.resolution,
            fov=self.fov,
            steps=self.config.march_steps,
        )

    def _discriminator_chunk(
        self, fakes: Tensor, reals: Tensor, with_r1: bool
    ) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        with self._autocast():
            fake_logits, real_logits = self.discriminator(fakes).float(), self.discriminator(reals).float()
        total = loss = discriminator_loss(real_logits, fake_logits)
        log = {"loss_d": loss, "logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}
        if with_r1:
            log["r1"] = penalty = r1_penalty(self.discriminator, reals)
            total = loss + self.config.r1_gamma / 2 * self.config.r1_interval * penalty
        gradients = torch.autograd.grad(total, list(self.discriminator.parameters()))
        return {name: value.item() for name, value in log.items()}, gradients

    def _generator_chunk(self, rendered: tuple[Tensor, Tensor]) -> tuple[dict[str, float], tuple[Tensor, ...]]:
        fakes, eikonal = rendered
        with self._autocast():
            logits = self.discriminator(fakes).float()
        loss = generator_loss(logits)
        total = loss + self.config.eikonal_weight * eikonal
        gradients = torch.autograd.grad(
            total, list(self.generator.parameters()), allow_unused=True, materialize_grads=True
        )
        return {"loss_g": loss.item(), "eikonal": eikonal.item()}, gradients

    def _autocast(self) -> Any:
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    # ---------------------------------------------------------------------------------------------------- parameters

    def _set_learning_rates(self) -> None:
        """Constant, then linearly down to 5%."""
        config = self.config
        assert config.steps is not None
        progress = self.steps_done / config.steps
        factor = 1.0
        if progress > config.decay_start:
            factor = max(0.05, (1 - progress) / (1 - config.decay_start))
        self.optimizer_g.param_groups[0]["lr"] = config.lr_generator * factor
        self.optimizer_d.param_groups[0]["lr"] = config.lr_discriminator * factor

    def _apply(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        gradients: Sequence[Sequence[Tensor]],
        clip: float,
    ) -> float:
        """Step on the mean of the chunks' gradients, unless it is not finite; returns its norm."""
        for parameter, parts in zip(module.parameters(), zip(*gradients, strict=True), strict=True):
            parameter.grad = sum(parts[1:], parts[0]) / len(parts)
        norm = torch.nn.utils.clip_grad_norm_(module.parameters(), clip).item()
        if math.isfinite(norm):
            optimizer.step()
            self._skipped_in_a_row = 0
        else:
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row > _MOST_SKIPPED_IN_A_ROW:
                raise UserError(
                    f"training stopped at step {self.steps_done}: gradients were not finite "
                    f"{self._skipped_in_a_row} times in a row; the last checkpoint is good, lower --lr-generator"
                )
        for parameter in module.parameters():
            parameter.grad = None
        return norm

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on the average follows quickly, so that the first pictures are not of the initialisation.
        decay = min(self.config.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
        for averaged, current in zip(self.average.parameters(), self.generator.parameters(), strict=True):
            averaged.lerp_(current, 1 - decay)

    # ---------------------------------------------------------------------------------------------------- checkpoint

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `load_state` continues exactly."""
        tensors = {
            **pack_module(self.generator, "generator"),
            **pack_module(self.average, "ema"),
            **pack_module(self.discriminator, "discriminator"),
            **pack_optimizer(self.optimizer_g, "optimizer_g"),
            **pack_optimizer(self.optimizer_d, "optimizer_d"),
            **pack_generator_state(self.random, "random"),
        }
        return tensors, {"skipped_in_a_row": self._skipped_in_a_row}

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any], step: int, source: Any) -> None:
        """Undo `state`. Raises UserError, naming `source`, where something is missing or does not fit."""
        self.load_networks(tensors, source)
        unpack_optimizer(self.optimizer_g, tensors, "optimizer_g", source)
        unpack_optimizer(self.optimizer_d, tensors, "optimizer_d", source)
        unpack_generator_state(self.random, tensors, "random", source)
        self._skipped_in_a_row = int(state["skipped_in_a_row"])
        self.steps_done = step

    def load_networks(self, tensors: dict[str, Tensor], source: Any) -> None:
        """Take the networks, and nothing else, from another run's tensors."""
        unpack_module(self.generator, tensors, "generator", source)
        unpack_module(self.average, tensors, "ema", source)
        unpack_module(self.discriminator, tensors, "discriminator", source)


def _radians(degrees: tuple[float, float]) -> tuple[float, float]:
    return math.radians(degrees[0]), math.radians(degrees[1])


def _mean(logs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(log[name] for log in logs) / len(logs) for name in logs[0]}
