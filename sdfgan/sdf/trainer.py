"""Training of one field, or of several small ones of a kind in one batched step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from sdfgan.errors import UserError
from sdfgan.sdf.config import ResolvedSdfConfig
from sdfgan.sdf.model import MeshSDF
from sdfgan.sdf.objective import Objective
from sdfgan.sdf.sampling import Samples
from sdfgan.training.checkpoint import pack_optimizer, unpack_optimizer

_TABLE_RATE = 5.0  # a hash grid's table learns that much faster than the network behind it
_MIN_RATE = 0.02  # of the learning rate, at the end
_MAX_SKIPPED = 20  # steps in a row


class Stream(Protocol):
    """What training takes its samples from; see `sampling.SampleStream`."""

    def __len__(self) -> int: ...
    def epoch(self, number: int, batch_size: int) -> Iterator[Samples]:
        """Batches, the last one smaller, in an order that `number` decides."""


class Trainer:
    """Fits `fields`, alike but for their weights, each to its own stream of equally many samples.

    Several are stacked and take each step as one (`torch.func.vmap`); each then moves as it would alone, for Adam
    works on every number by itself.
    """

    def __init__(self, fields: Sequence[MeshSDF], streams: Sequence[Stream], config: ResolvedSdfConfig) -> None:
        assert config.batch_size is not None and config.epochs is not None and config.learning_rate is not None
        if len({len(stream) for stream in streams}) != 1:
            raise ValueError("Trainer: fields that are trained together need equally many samples")
        self.fields, self.streams, self.config = list(fields), list(streams), config
        self.device = torch.device(config.device)
        self.step, self.skipped = 0, 0
        self.steps_per_epoch = math.ceil(len(streams[0]) / config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        objectives = [Objective(field.to(self.device), config) for field in fields]
        self.objective = objectives[0]
        self.parameters: dict[str, Tensor] = dict(self.objective.named_parameters())
        if len(fields) > 1:
            self.parameters, self._buffers = stack_module_state(objectives)
            self._skeleton = copy.deepcopy(self.objective).to("meta")
        table = [tensor for name, tensor in self.parameters.items() if name.endswith("encoding.table")]
        other = [tensor for name, tensor in self.parameters.items() if not name.endswith("encoding.table")]
        groups = [{"params": group, "scale": scale} for group, scale in ((other, 1.0), (table, _TABLE_RATE)) if group]
        self.optimizer = torch.optim.Adam(groups, config.learning_rate, betas=(0.9, 0.99), eps=1e-15, fused=True)

    def run(self) -> Iterator[float]:
        """All steps that are left; gives the mean loss of each. Raises UserError."""
        assert self.config.batch_size is not None
        while self.step < self.steps:
            number, done = divmod(self.step, self.steps_per_epoch)
            batches = zip(*(stream.epoch(number, self.config.batch_size) for stream in self.streams), strict=True)
            for index, parts in enumerate(batches):
                if index >= done:
                    yield self._advance(parts)

    def _advance(self, parts: Sequence[Samples]) -> float:
        losses = self._losses(parts)
        self.step += 1
        loss = losses.mean().item()
        if not math.isfinite(loss):
            self.skipped += 1
            if self.skipped >= _MAX_SKIPPED:
                raise UserError(f"the loss was not finite for {self.skipped} steps; try a smaller --learning-rate")
            return loss
        self.skipped = 0
        rate = self.config.learning_rate * _decay(self.config.schedule, self.step / self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        return loss

    def _losses(self, parts: Sequence[Samples]) -> Tensor:
        """Of each field [M]."""
        if len(parts) == 1:
            return self.objective(*parts[0])[None]

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], samples: tuple[Tensor, ...]) -> Tensor:
            return functional_call(self._skeleton, (parameters, buffers), samples)

        return vmap(one)(
            self.parameters, self._buffers, tuple(torch.stack(column) for column in zip(*parts, strict=True))
        )

    def finish(self) -> list[MeshSDF]:
        """The fields with what they have learnt."""
        if len(self.fields) > 1:
            with torch.no_grad():
                for index, field in enumerate(self.fields):
                    own = dict(Objective(field, self.config).named_parameters())
                    for name, tensor in self.parameters.items():
                        own[name].copy_(tensor[index])
        return self.fields

    def state(self) -> dict[str, Tensor]:
        """All that `restore` needs besides `step`, as tensors."""
        return {f"net.{name}": tensor for name, tensor in self.parameters.items()} | pack_optimizer(
            self.optimizer, "adam"
        )

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any], source: Path) -> None:
        """Go on from a checkpoint. Raises UserError, naming `source`, for one of another kind."""
        step = state.get("step")
        if not isinstance(step, int) or not 0 <= step <= self.steps:
            raise UserError(f"{source}: step must be 0 to {self.steps}, got {step!r}")
        with torch.no_grad():
            for name, tensor in self.parameters.items():
                saved = tensors.get(f"net.{name}")
                if saved is None or saved.shape != tensor.shape:
                    raise UserError(f"{source}: tensor net.{name} is missing or of another shape")
                tensor.copy_(saved)
        unpack_optimizer(self.optimizer, tensors, "adam", source)
        self.step = step


def _decay(schedule: str, done: float) -> float:
    """What is left of the learning rate when a share of the run is done."""
    if schedule == "cosine":
        return _MIN_RATE + (1 - _MIN_RATE) * (1 + math.cos(math.pi * done)) / 2
    if schedule == "linear":
        return 1 - (1 - _MIN_RATE) * done
    if schedule == "step":
        return 1.0 if done < 0.6 else 0.1 if done < 0.85 else 0.01
    return 1.0


def parameter_count(module: nn.Module) -> int:
    """Numbers that are learnt."""
    return sum(parameter.numel() for parameter in module.parameters())
