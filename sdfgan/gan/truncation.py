"""The mean condition that truncation (StyleGAN's psi) draws shapes towards."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from sdfgan.conditions import tensors_of, with_tensors
from sdfgan.data.shapes import default_cache_folder
from sdfgan.errors import UserError
from sdfgan.fields import Field
from sdfgan.gan.config import ResolvedGanConfig
from sdfgan.training.checkpoint import load_checkpoint
from sdfgan.training.files import save_tensors

_MEAN_OF, _MEAN_SEED, _AT_ONCE = 10_000, 0, 500  # latents


@torch.no_grad()
def mean_condition(generator: Field, config: ResolvedGanConfig) -> Any:
    """The mean [1, ...] of the conditions of 10,000 random latents: the shape that truncation tends to."""
    random = torch.Generator().manual_seed(_MEAN_SEED)
    device = next(generator.parameters()).device
    total: dict[str, Tensor] = {}
    for _ in range(_MEAN_OF // _AT_ONCE):
        latents = config.latent_std * torch.randn(_AT_ONCE, generator.latent_size, generator=random)
        condition = generator.condition(latents.to(device))
        for name, tensor in tensors_of(condition).items():
            total[name] = total.get(name, 0) + tensor.sum(0, keepdim=True)
    return with_tensors(condition, {name: tensor / _MEAN_OF for name, tensor in total.items()})


def cached_mean(checkpoint: Path, generator: Field, config: ResolvedGanConfig, weights: str) -> Any:
    """`mean_condition` of a checkpoint's generator, kept in the cache folder for the next time."""
    digest = load_checkpoint(checkpoint)[1]["sha256"]
    path = default_cache_folder() / "means" / f"{digest}-{weights}.safetensors"
    example = generator.condition(torch.zeros(1, generator.latent_size, device=next(generator.parameters()).device))
    wanted = {name: tensor.shape for name, tensor in tensors_of(example).items()}
    try:
        tensors = load_file(path)
        if {name: tensor.shape for name, tensor in tensors.items()} == wanted:
            device = next(generator.parameters()).device
            return with_tensors(example, {name: tensor.to(device) for name, tensor in tensors.items()})
    except (OSError, safetensors.SafetensorError):
        pass  # none yet, or damaged: it is made again
    mean = mean_condition(generator, config)
    with suppress(UserError):  # a cache that cannot be written is none
        save_tensors(path, tensors_of(mean))
    return mean
