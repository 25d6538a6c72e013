"""The networks of a GAN run, and everything else that a checkpoint must hold to continue it exactly."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sdfgan.cameras import PoseDistribution
from sdfgan.errors import UserError
from sdfgan.fields import Field, FilmSirenSDF
from sdfgan.fields.dfr import DfrSDF
from sdfgan.gan import augment
from sdfgan.gan.config import ResolvedGanConfig, check_settings
from sdfgan.gan.discriminators import DISCRIMINATORS, add_spectral_norm
from sdfgan.gan.losses import ADVERSARIAL_LOSSES
from sdfgan.gan.models import make_generator, mirror_of, poses_of
from sdfgan.gan.poses import PoseLearner
from sdfgan.gan.symmetry import find_mirror
from sdfgan.ops import Mirror
from sdfgan.raycast import Room
from sdfgan.training.checkpoint import (
    Saved,
    pack_generator_state,
    pack_module,
    pack_optimizer,
    unpack_generator_state,
    unpack_module,
    unpack_optimizer,
)
from sdfgan.training.graphs import Graphs
from sdfgan.training.health import Health
from sdfgan.training.job import Job
from sdfgan.training.ranks import Ranks
from sdfgan.training.steps import ChunkThreads, Steps, assign_gradients, mean_gradients

_WORST_PRECONDITIONING = 0.5
_MIRROR_INTERVAL = 100  # steps between looks for a plane of symmetry
_ADA_INTERVAL = 4  # steps between changes of its probability
_SMALL = 32  # pixels: rendering chunks of such images in parallel, Python's threads wait for each other mostly
_RATES = {"generator": "--learning-rate-generator", "discriminator": "--learning-rate-discriminator"}
_MAPPINGS = ("mapping", "texture_mapping", "film")  # of the generators

Gradients = Sequence[Tensor]


class TrainingState(Job):
    """Networks, averages, optimisers and random state of a run, and the threads that work on them."""

    kind = "gan"
    threads: ChunkThreads
    health: Health

    def __init__(
        self, config: ResolvedGanConfig, ranks: Ranks | None = None, poses: PoseDistribution | None = None
    ) -> None:
        """`poses` are the cameras', if they are not those of the configuration."""
        self.config = config
        self.ranks = ranks or Ranks()
        for stage in (config, *(config.at(stage.step) for stage in config.stages)):
            assert stage.batch_size is not None
            if stage.batch_size % self.ranks.count:
                batch, count = stage.batch_size, self.ranks.count
                raise UserError(f"--batch-size {batch} must be a multiple of the {count} processes, at every stage")
            check_settings(dataclasses.replace(stage, chunk_size=stage.chunk_of(self.ranks.count)))
        self.device = torch.device(config.device)
        self.loss = ADVERSARIAL_LOSSES[config.gan_loss]
        self._deterministic_before = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
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
                config.discriminator_max_channels,
                image_channels=config.channels,
                latent_size=self.generator.latent_size if _ever(config, "latent_weight") else 0,
                guess_direction=_ever(config, "pose_weight"),
                sphere=self.loss.sphere,
            )
            if self.loss.spectral_norm:
                add_spectral_norm(self.discriminator)
            self.discriminator.to(self.device)
        self.random = torch.Generator().manual_seed(config.seed)
        self.averages = {name: copy.deepcopy(self.generator).requires_grad_(False) for name in ("ema", "ema_slow")}
        self._poses = poses or poses_of(config)
        self.pose_learner: PoseLearner | None = None
        if config.poses == "learned":
            self.pose_learner = PoseLearner(self._poses.elevation, self._poses.azimuth).to(self.device)
        learners = [] if self.pose_learner is None else [self.pose_learner]
        self.modules = [self.generator, self.discriminator, *self.averages.values(), *learners]
        betas = (config.beta1, config.beta2)
        self.optimizer_g = torch.optim.Adam(self._parts(), config.learning_rate_generator, betas, fused=True)
        self.optimizer_d = torch.optim.Adam(
            self.discriminator.parameters(), config.learning_rate_discriminator, betas, fused=True
        )
        self.fov = math.radians(config.fov)
        self.steps, self.steps_done = config.steps, 0
        self.updates = Steps(_RATES, config.precision)
        self.averages_warm_up = True
        self.augmented = 0.0  # the probability of ADA
        self._signs: list[float] = []  # of real logits, since it changed
        self.threads = ChunkThreads(self.device)
        self.graphs = Graphs() if self.device.type == "cuda" and config.cuda_graphs else None
        # What is to be the same bit for bit must not depend on how much room there was before.
        self.room = Room() if self.device.type == "cuda" and not config.deterministic else None

    @property
    def average(self) -> Field:
        """The moving average of the generator that images are made from."""
        return self.averages["ema"]

    @property
    def mirror(self) -> Mirror | None:
        """The plane about which all shapes are alike, if there is one."""
        return getattr(self.generator, "mirror", None)

    @mirror.setter
    def mirror(self, mirror: Mirror | None) -> None:
        for field in (self.generator, *self.averages.values()):
            if isinstance(field, FilmSirenSDF):
                field.mirror = mirror

    @property
    def mirror_is_due(self) -> bool:
        """Whether to look for it at this step."""
        since = self.config.symmetric_from
        return (
            since is not None
            and self.mirror is None
            and self.steps_done >= since
            and not (self.steps_done - since) % _MIRROR_INTERVAL
        )

    def find_mirror(self) -> None:
        """Let the plane about which shapes are nearly alike be their mirror, if one is. All processes take that of the
        first."""
        if isinstance(self.average, FilmSirenSDF):
            found = find_mirror(self.average, self.config.latent_std) or (math.nan,) * 3
            values = self.ranks.gather(torch.tensor([found], dtype=torch.float64, device=self.device))[0].tolist()
            self.mirror = None if math.isnan(values[0]) else Mirror(*values)

    @property
    def poses(self) -> PoseDistribution:
        """Of the cameras of fakes; of those that are learned as they are now."""
        return self._poses if self.pose_learner is None else self.pose_learner.histogram

    @property
    def renders_at_once(self) -> bool:
        """Whether a step renders all its chunks at once: small images, of which a CPU keeps all graphs anyway, and for
        whose field it has kernels."""
        config = self.config.at(self.steps_done)
        small = config.resolution <= _SMALL and config.renderer == "sdfgan" and not config.recompute
        kernels = self.device.type == "cpu" and isinstance(self.generator, FilmSirenSDF) and self.generator.has_kernels
        return small and kernels

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
        """Give torch its threads back, and its freedom if it had it."""
        super().close()
        if self.config.deterministic:
            enabled, warn_only = self._deterministic_before
            torch.use_deterministic_algorithms(enabled, warn_only=warn_only)

    def precondition(self) -> None:
        """What some generators need before the first step of a fresh run."""
        if isinstance(self.generator, DfrSDF):
            loss = self.generator.precondition(self.config.latent_std, self.random)
            if not loss < _WORST_PRECONDITIONING:
                raise UserError(
                    f"--generator dfr: fitting a sphere before training failed (loss {loss:.2g}); lower its omegas"
                )
            for averaged in self.averages.values():
                averaged.load_state_dict(self.generator.state_dict())

    def apply(self, name: Literal["generator", "discriminator"], gradients: Sequence[Gradients], clip: float) -> Tensor:
        """Step on the mean of all chunks' gradients, unless it is not finite; gives its norm."""
        module: nn.Module = self.generator if name == "generator" else self.discriminator
        optimizer = self.optimizer_g if name == "generator" else self.optimizer_d
        means = self.ranks.average(mean_gradients(gradients))
        assign_gradients(module.parameters(), means, self.updates.loss_scale)
        _leave_out_unreached(module, optimizer)
        return self.updates.take(name, optimizer, module.parameters(), clip)

    # -------------------------------------------------------------------------------------- what follows each step

    def learning_rate_factor(self, config: ResolvedGanConfig) -> float:
        """What learning rates are multiplied by at this step: 1, then linearly down to 5%."""
        progress, start = self.steps_done / config.steps, config.decay_start
        return max(0.05, (1 - progress) / (1 - start)) if start < 1 and progress > start else 1.0

    def set_learning_rates(self, config: ResolvedGanConfig) -> None:
        """Those of this step, with the settings that are in force."""
        factor = self.learning_rate_factor(config)
        for group in self.optimizer_g.param_groups:
            group["lr"] = config.learning_rate_generator * factor * group["rate"]
        self.optimizer_d.param_groups[0]["lr"] = config.learning_rate_discriminator * factor

    @torch.no_grad()
    def update_averages(self) -> None:
        """Let the averages follow the generator."""
        # Early on averages follow quickly, so that the first images are not of the initialisation.
        warm = (1 + self.steps_done) / (10 + self.steps_done) if self.averages_warm_up else 1.0
        decays = (self.config.ema_decay, self.config.ema_decay_slow)
        current: list[Tensor] = list(self.generator.parameters())
        for module, decay in zip(self.averages.values(), decays, strict=True):
            averaged: list[Tensor] = list(module.parameters())
            torch._foreach_lerp_(averaged, current, 1 - min(decay, warm))

    def adjust_augmentation(self, log: dict[str, float], config: ResolvedGanConfig) -> None:
        """Let the probability of ADA follow the sign of the real logits in a step's log, and note it there."""
        if not config.ada_target:
            return
        self._signs.append(log["sign_real"])
        if len(self._signs) == _ADA_INTERVAL:
            seen = _ADA_INTERVAL * config.batch_size
            mean = sum(self._signs) / _ADA_INTERVAL
            self.augmented = augment.adjusted(self.augmented, mean, config.ada_target, seen, config.ada_images)
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
        if self.pose_learner is not None:
            tensors |= pack_module(self.pose_learner, "poses")
        return tensors, {
            **self.updates.state(),
            "averages_warm_up": self.averages_warm_up,
            "augmented": self.augmented,
            "mirror": None if self.mirror is None else list(self.mirror),
            "signs": self._signs,
        }

    def load_state(self, saved: Saved) -> None:
        """Undo `state`. Raises UserError, naming the checkpoint, where something is missing or does not fit."""
        source, tensors, state = saved
        self.load_networks(saved)
        unpack_optimizer(self.optimizer_g, tensors, "optimizer_g", source)
        unpack_optimizer(self.optimizer_d, tensors, "optimizer_d", source)
        unpack_generator_state(self.random, tensors, "random", source)
        if self.pose_learner is not None:
            self.pose_learner.load(tensors, source)
        try:
            self.updates.load_state(state)
            self.averages_warm_up, self.augmented = bool(state["averages_warm_up"]), float(state["augmented"])
            self._signs = [float(sign) for sign in state["signs"]]
            if not 0 <= self.augmented <= 1 or not all(map(math.isfinite, self._signs)):
                raise ValueError(f"augmented {self.augmented}, signs {self._signs}")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: not a checkpoint of this version: {str(error)[:100]}") from error
        self.steps_done = state["step"]

    def load_networks(self, saved: Saved) -> None:
        """Take the networks, and nothing else, from another run's checkpoint. Their averages are warm already."""
        source, tensors, _ = saved
        self.averages_warm_up = False
        unpack_module(self.generator, tensors, "generator", source)
        unpack_module(self.discriminator, tensors, "discriminator", source)
        for name, module in self.averages.items():
            unpack_module(module, tensors, name, source)
        self.mirror = mirror_of(saved)


def _leave_out_unreached(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """No gradient, rather than zeros, for what has never had another, such as layers of a resolution still to come.

    Adam would count steps of zeros, and correct its averages too little for them when the true ones come.
    """
    fresh = [parameter for parameter in module.parameters() if parameter not in optimizer.state]
    if fresh:
        reached = torch.stack([parameter.grad.any() for parameter in fresh if parameter.grad is not None]).tolist()
        for parameter, is_reached in zip(fresh, reached, strict=True):
            if not is_reached:
                parameter.grad = None


def _ever(config: ResolvedGanConfig, name: str) -> bool:
    """Whether a weight is positive at any stage: then the discriminator needs what belongs to it."""
    return getattr(config, name) > 0 or any(stage.changes.get(name, 0) > 0 for stage in config.stages)
