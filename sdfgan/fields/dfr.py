"""The field of dfr, an older project: for its trained weights, and to compare its recipe with ours.

A layer is sin(omega (gamma (W x + b) + beta)); a trunk of four layers, branches of three, no sphere in the formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sdfgan.checks import check_whole
from sdfgan.conditions import Condition
from sdfgan.fields.base import Field, eikonal_loss, linear_layers

_TRUNK, _BRANCH = 4, 3
LAYERS = _TRUNK + 2 * _BRANCH
PRECONDITIONING_STEPS = 1500


@dataclass(frozen=True)
class DfrCondition(Condition):
    """Layer i is sin(scales[:, i] * (W_i x) + shifts[:, i]); both [B, layers, width]: trunk, SDF, texture in turn."""

    scales: Tensor
    shifts: Tensor


class DfrSDF(Field):
    """latent [latent_size] -> signed distance and albedo (sin + 1) / 2.

    Args:
        width: units per sine layer.
        mapping_width: units per hidden layer of the mapping network.
        omega_first, omega_hidden: frequencies.
        shared: one (gamma, beta) for all layers, from a shallower mapping network, as in earlier versions.
    """

    mixed_precision = True

    def __init__(
        self,
        width: int = 256,
        latent_size: int = 256,
        mapping_width: int = 256,
        omega_first: float = 5.0,
        omega_hidden: float = 15.0,
        shared: bool = False,
    ) -> None:
        super().__init__()
        check_whole("DfrSDF", 1, width=width, latent_size=latent_size, mapping_width=mapping_width)
        self.latent_size, self.width, self.shared = latent_size, width, shared
        self.omegas = [omega_first] + [omega_hidden] * (LAYERS - 1)
        films = 2 * width * (1 if shared else LAYERS)
        self.film = linear_layers(latent_size, mapping_width, 2 if shared else 3, films, lambda: nn.LeakyReLU(0.2))
        bound = math.sqrt(6 / width) / omega_hidden
        self.layers = nn.ModuleList([nn.Linear(3 if i == 0 else width, width) for i in range(LAYERS)])
        self.sdf_head, self.texture_head = nn.Linear(width, 1), nn.Linear(width, 3)
        for layer in (*self.layers, self.sdf_head, self.texture_head):
            first = layer is self.layers[0]
            nn.init.uniform_(layer.weight, *((-1 / 3, 1 / 3) if first else (-bound, bound)))

    def condition(self, latents: Tensor | None) -> DfrCondition:
        """FiLM of latents [B, latent_size], folded into the layers' biases and frequencies."""
        self._check_latents(latents)
        assert latents is not None
        film = (
            self.film(latents)
            .view(len(latents), 1 if self.shared else LAYERS, 2, self.width)
            .expand(-1, LAYERS, -1, -1)
        )
        omegas = film.new_tensor(self.omegas)[:, None]
        biases = torch.stack([layer.get_parameter("bias") for layer in self.layers])
        scales = omegas * film[:, :, 0]
        return DfrCondition(scales, scales * biases + omegas * film[:, :, 1])

    def sdf(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Signed distances [N]; see `Field.sdf`."""
        x = points
        for index in range(_TRUNK + _BRANCH):
            x = self._layer(index, x, condition, image)
        return self.sdf_head(x)[:, 0]

    def rgb(self, points: Tensor, condition: Any = None, image: Tensor | None = None) -> Tensor:
        """Albedo [N, 3]; see `Field.rgb`."""
        x = points
        for index in (*range(_TRUNK), *range(_TRUNK + _BRANCH, LAYERS)):
            x = self._layer(index, x, condition, image)
        return (self.texture_head(x).sin() + 1) / 2

    def _layer(self, index: int, x: Tensor, condition: DfrCondition, image: Tensor | None) -> Tensor:
        scale, shift = condition.scales[:, index], condition.shifts[:, index]
        if image is not None:
            scale, shift = scale[image], shift[image]
        elif len(scale) != 1:
            raise ValueError(f"DfrSDF: image indices are needed to choose among {len(scale)} latents")
        return torch.sin(scale * (x @ self.layers[index].get_parameter("weight").T) + shift)

    def precondition(self, latent_std: float, random: torch.Generator, steps: int = PRECONDITIONING_STEPS) -> float:
        """Fit a ball of radius 0.4, as dfr does before it trains; returns the last loss (MSE + 5 eikonal).

        The learning rate is dfr's 4e-5 at its width of 256, and larger for narrower networks.
        """
        optimizer = torch.optim.Adam(self.parameters(), 4e-5 * 256 / self.width)
        device, batch = self.sdf_head.weight.device, 128
        loss = torch.zeros(())
        for _ in range(steps):
            points = torch.randn(batch, 3, generator=random).to(device)
            latents = latent_std * torch.randn(batch, self.latent_size, generator=random).to(device)
            image = torch.arange(batch, device=device)
            value, gradient = self.sdf_and_gradient(points, self.condition(latents), image)
            loss = (value - (points.norm(dim=-1) - 0.4)).square().mean() + 5 * eikonal_loss(gradient)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()
