"""Training of a GAN, a step at a time.

A batch is cut into chunks of a fixed size. On a CPU chunks run in parallel threads of one torch thread each, and their
gradients are averaged in order: the result is the same for any number of threads. With several processes each takes
its share of the chunks; all draw the same random numbers, so their number does not matter either.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdfgan.data.image_sets import InMemory, Pictures
from sdfgan.gan import augment
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.gan.state import TrainingState
from sdfgan.gan.step import Step, as_numbers

_ADA_INTERVAL = 4  # steps between changes of its probability


class Trainer(TrainingState):
    """A run; `step` advances its networks by one update each."""

    def step(self, pictures: Pictures | Tensor) -> dict[str, float]:
        """One update of the generator, and as many as are set of the discriminator; returns numbers for the log."""
        reals = InMemory(pictures) if isinstance(pictures, Tensor) else pictures
        now = Step(self, self.config.at(self.steps_done))
        self._set_learning_rates(now.config)
        for index in range(now.config.discriminator_steps):
            last = index == now.config.discriminator_steps - 1
            fakes = now.draw_fakes()
            # One rendering serves both updates, unless its graph would take too much memory.
            keep_graph = last and not self.config.recompute
            fakes = self.threads.map(now.render if keep_graph else torch.no_grad()(now.render), fakes)
            of_discriminator = now.update_discriminator(fakes, now.draw_reals(reals))
        log = as_numbers(of_discriminator | now.update_generator(fakes))
        self._update_averages()
        self.steps_done += 1
        self._adjust_augmentation(log, now.config)
        log["learning_rate"] = self.optimizer_g.param_groups[0]["lr"]
        if now.config.precision == "fp16":
            log["loss_scale"] = self.steps.loss_scale
        return log

    def _set_learning_rates(self, config: ResolvedGanConfig) -> None:
        """Constant, then linearly down to 5%."""
        assert config.steps is not None
        progress = self.steps_done / config.steps
        factor = 1.0
        if config.decay_start < 1 and progress > config.decay_start:
            factor = max(0.05, (1 - progress) / (1 - config.decay_start))
        for group in self.optimizer_g.param_groups:
            group["lr"] = config.learning_rate_generator * factor * group["rate"]
        self.optimizer_d.param_groups[0]["lr"] = config.learning_rate_discriminator * factor

    @torch.no_grad()
    def _update_averages(self) -> None:
        # Early on averages follow quickly, so that the first pictures are not of the initialisation.
        warm = (1 + self.steps_done) / (10 + self.steps_done) if self.averages_warm_up else 1.0
        decays = (self.config.ema_decay, self.config.ema_decay_slow)
        current: list[Tensor] = list(self.generator.parameters())
        for module, decay in zip(self.averages.values(), decays, strict=True):
            averaged: list[Tensor] = list(module.parameters())
            torch._foreach_lerp_(averaged, current, 1 - min(decay, warm))

    def _adjust_augmentation(self, log: dict[str, float], config: ResolvedGanConfig) -> None:
        if not config.ada_target:
            return
        assert config.batch_size is not None
        self._signs.append(log["sign_real"])
        if len(self._signs) == _ADA_INTERVAL:
            seen = _ADA_INTERVAL * config.batch_size
            mean = sum(self._signs) / _ADA_INTERVAL
            self.augmented = augment.adjusted(self.augmented, mean, config.ada_target, seen, config.ada_images)
            self._signs = []
        log["ada_probability"] = self.augmented
