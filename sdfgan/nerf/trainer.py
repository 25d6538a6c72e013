"""One step of learning a scene, and everything that a checkpoint must hold to continue it exactly.

A batch of rays is cut into equal chunks. On a CPU they run in parallel threads of one torch thread each, and their
gradients are averaged in order: the result is the same for any number of threads. With several processes each takes
its share of the chunks; all draw the same random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdfgan.data.scenes import Scene
from sdfgan.errors import UserError
from sdfgan.nerf.config import ResolvedNerfConfig
from sdfgan.nerf.models import Batch, SceneModel, make_model
from sdfgan.ops import sample_pixels, valid_pixels
from sdfgan.training.checkpoint import (
    pack_generator_state,
    pack_module,
    pack_optimizer,
    unpack_generator_state,
    unpack_module,
    unpack_optimizer,
)
from sdfgan.training.device import generator_on
from sdfgan.training.ranks import Ranks
from sdfgan.training.steps import ChunkThreads, Steps, assign_gradients, mean_gradients

_FIRST_RATE = 0.01  # of the learning rate when it begins to rise
_PIXELS_AT_ONCE = 2**20
_MIN_RAYS = 8  # of a chunk, while the number adapts


class _Chunk(NamedTuple):
    """What a chunk is made of."""

    pixels: Tensor  # [r] numbers of the pixels
    background: Tensor  # [r, 3]
    seed: int  # of everything else that is random


class Trainer:
    """Model, optimiser and random state of a run; `step` advances them by one update."""

    def __init__(self, config: ResolvedNerfConfig, scene: Scene, ranks: Ranks | None = None) -> None:
        """`config` is resolved."""
        self.config, self.scene = config, scene
        self.ranks = ranks or Ranks()
        self.device = torch.device(config.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model: SceneModel = make_model(config, scene.bounded).to(self.device)
        self.parameters = list(self.model.parameters())
        self.views = scene.train.to(self.device)
        self.model.see(self.views)
        lens = self.views.cameras.distortion is not None
        self.valid = valid_pixels(self.views.cameras) if lens else None  # None: all
        self.middle = _middle_pixels(self.views.sizes, self.valid) if config.center_crop_steps else None
        for pixels, which in ((self.valid, "pixel"), (self.middle, "pixel of the pictures' middles")):
            if pixels is not None and len(pixels) == 0:
                raise UserError(f"{scene.path}: no {which} has a ray: check the lens distortion")
        self.background = torch.full((3,), background_value(config, scene), device=self.device)
        self.random = torch.Generator().manual_seed(config.seed)
        assert config.rays and config.chunk_size and config.learning_rate
        # A hash grid's entries have small and rare gradients (Instant NGP, sec. 4).
        betas, eps = ((0.9, 0.99), 1e-15) if config.model == "fast" else ((0.9, 0.999), 1e-8)
        self.optimizer = torch.optim.Adam(self.parameters, config.learning_rate, betas, eps=eps, fused=True)
        count = self.ranks.count
        self.chunks = count * math.ceil(config.rays / (config.chunk_size * count))
        self.max_rays = max(1, config.rays // self.chunks)  # of a chunk
        self.rays_now = self.chunks * (self.max_rays if config.samples is None else min(_MIN_RAYS, self.max_rays))
        self.steps_done = 0
        self.steps = Steps({"model": "--learning-rate"}, config.precision)
        self.threads = ChunkThreads(self.device)

    def close(self) -> None:
        """Give torch its threads back."""
        self.threads.close()

    # ------------------------------------------------------------------------------------------------------- a step

    def step(self) -> dict[str, float]:
        """One update; returns numbers for the log."""
        rate = self._set_learning_rate()
        with self.autocast():
            self.model.before_step(self.steps_done, self.random)
        chunks = self._draw()
        results = self.threads.map(self._gradients, self.ranks.share(chunks))
        gradients = mean_gradients([gradients for gradients, _ in results])
        numbers = torch.stack([torch.stack(list(log.values())) for _, log in results]).mean(0)
        *gradients, numbers = self.ranks.average([*gradients, numbers])
        numbers = numbers.to("cpu", non_blocking=True)  # here when the update has waited for the gradients' norm
        norm = self._update(gradients)
        log = dict(zip(results[0][1], numbers.tolist(), strict=True)) | {"gradient_norm": norm}
        self.steps_done += 1
        if self.config.samples is not None:
            wanted = int(self.config.samples / max(log["samples"], 0.1))
            self.rays_now = self.chunks * min(max(wanted // self.chunks, _MIN_RAYS), self.max_rays)
        mse = log.pop("mse")
        return {
            "psnr": -10 * math.log10(max(mse, 1e-10)),
            "learning_rate": rate,
            "rays": len(chunks[0].pixels) * self.chunks,
            **log,
        }

    def _draw(self) -> list[_Chunk]:
        """The chunks of a step, alike in all processes."""
        pixels = self.middle if self.steps_done < self.config.center_crop_steps else self.valid
        count = len(self.views.pixels if pixels is None else pixels)
        random = generator_on(self.device, self.random)
        chosen = torch.randint(count, (self.rays_now,), generator=random, device=self.device)
        chosen = chosen if pixels is None else pixels[chosen]
        background = self.background.expand(self.rays_now, 3)
        if self.scene.has_alpha and self.config.random_background:
            background = torch.rand(self.rays_now, 3, generator=random, device=self.device)
        seeds = torch.randint(2**62, (self.chunks,), generator=self.random).tolist()
        parts = (chosen.tensor_split(self.chunks), background.tensor_split(self.chunks), seeds)
        return [_Chunk(*part) for part in zip(*parts, strict=True)]

    def _gradients(self, chunk: _Chunk) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradients of a chunk's loss by all parameters, and numbers for the log."""
        generator = torch.Generator(self.device).manual_seed(chunk.seed)
        pixels = sample_pixels(self.views.cameras, chunk.pixels, self.views.pixels)
        assert pixels.colors is not None
        colors = pixels.colors[:, :3] + (1 - pixels.colors[:, 3:]) * chunk.background
        with self.autocast():
            batch = Batch(self.model.rays(pixels), colors, chunk.background)
            loss, log = self.model.loss(batch, generator)
        if not loss.requires_grad:  # no ray met anything
            return [torch.zeros_like(parameter) for parameter in self.parameters], log
        gradients = torch.autograd.grad(loss * self.steps.loss_scale, self.parameters, allow_unused=True)
        zeros = zip(gradients, self.parameters, strict=True)
        return [torch.zeros_like(parameter) if g is None else g for g, parameter in zeros], log

    def autocast(self) -> Any:
        """The precision of the networks' products."""
        if self.config.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.config.precision == "bf16" else torch.float16)

    def _set_learning_rate(self) -> float:
        """Linearly up from 1%, and exponentially down all the while."""
        config = self.config
        assert config.steps and config.learning_rate and config.learning_rate_final and config.warmup_steps is not None
        rate = config.learning_rate * config.learning_rate_final ** (self.steps_done / config.steps)
        if self.steps_done < config.warmup_steps:
            rate *= _FIRST_RATE + (1 - _FIRST_RATE) * self.steps_done / config.warmup_steps
        self.optimizer.param_groups[0]["lr"] = rate
        return rate

    def _update(self, gradients: Sequence[Tensor]) -> float:
        """Step on the gradients, unless they are not finite; returns their norm."""
        assign_gradients(self.parameters, gradients, self.steps.loss_scale)
        clip = self.config.gradient_clip if self.config.gradient_clip >= 0 else math.inf
        return self.steps.take("model", self.optimizer, self.parameters, clip, self.steps_done)[0]

    # ---------------------------------------------------------------------------------------------------- checkpoint

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and plain values from which `load_state` continues exactly."""
        tensors = {
            **pack_module(self.model, "model"),
            **pack_optimizer(self.optimizer, "optimizer"),
            **pack_generator_state(self.random, "random"),
        }
        return tensors, {"rays_now": self.rays_now, **self.steps.state()}

    def load_state(self, tensors: dict[str, Tensor], state: dict[str, Any], source: Any) -> None:
        """Undo `state`. Raises UserError, naming `source`, where something is missing or does not fit."""
        unpack_module(self.model, tensors, "model", source)
        unpack_optimizer(self.optimizer, tensors, "optimizer", source)
        unpack_generator_state(self.random, tensors, "random", source)
        assert self.config.rays is not None
        try:
            self.steps_done, self.rays_now = state["step"], int(state["rays_now"])
            self.steps.load_state(state)
            if not 1 <= self.rays_now <= max(self.config.rays, self.chunks * self.max_rays):
                raise ValueError(f"rays_now {self.rays_now}")
            # Another number of processes may have another number of chunks.
            self.rays_now = min(max(self.rays_now, self.chunks), self.chunks * self.max_rays)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: not a checkpoint of this version: {str(error)[:100]}") from error


def background_value(config: ResolvedNerfConfig, scene: Scene) -> float:
    """What is behind the pictures: 1 or 0. Raises UserError where they have no alpha but need one."""
    if config.background == "white" and not scene.has_alpha:
        raise UserError(f"{scene.path}: --background white needs pictures with alpha, but these have none")
    return float(scene.has_alpha and config.background != "black")


def _middle_pixels(sizes: Tensor, valid: Tensor | None) -> Tensor:
    """Those of the valid pixels, or of all, that are in the middle halves of their pictures of sizes [B, 2]."""
    counts = sizes.prod(1)
    starts = counts.cumsum(0) - counts
    total = int(counts.sum()) if valid is None else len(valid)
    found = []
    for first in range(0, total, _PIXELS_AT_ONCE):
        some = torch.arange(first, min(first + _PIXELS_AT_ONCE, total), device=sizes.device)
        some = some if valid is None else valid[some]
        view = torch.searchsorted(starts, some, right=True) - 1
        offset, (height, width) = some - starts[view], sizes[view].unbind(1)
        row, column = offset // width + 0.5, offset % width + 0.5
        found.append(some[((row - height / 2).abs() <= height / 4) & ((column - width / 2).abs() <= width / 4)])
    return torch.cat([starts[:0], *found])
